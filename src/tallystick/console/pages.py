"""Templates and static files of the console, from the package itself. Autoescape is on; nothing comes from elsewhere."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files
from typing import Any

import jinja2
from litestar import Response

from tallystick.console.text import visible
from tallystick.errors import NotFoundError

_PACKAGE = files("tallystick.console")
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATIC = frozenset({"console.css", "console.js", "proof.js", "walk.js", "tally.svg"})


def _load(name: str) -> str | None:
    try:
        return (_PACKAGE / "templates" / name).read_text("utf-8")
    except FileNotFoundError:
        return None


environment = jinja2.Environment(
    loader=jinja2.FunctionLoader(_load), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)

environment.filters["visible"] = visible


def render(name: str, status_code: int = 200, /, **values: Any) -> Response[bytes]:
    """A page as a response."""
    return Response(render_bytes(name, **values), media_type="text/html", status_code=status_code)


def render_bytes(name: str, /, **values: Any) -> bytes:
    """A page as bytes."""
    return environment.get_template(name).render(**values).encode()


@lru_cache(maxsize=16)
def static_file(name: str) -> tuple[bytes, str, str]:
    """Content, content type and entity tag of a static file. Raises NotFoundError."""
    if name not in _STATIC:
        raise NotFoundError("no such file")
    content = (_PACKAGE / "static" / name).read_bytes()
    return content, _TYPES[name.rsplit(".", 1)[1]], f'"{hashlib.sha256(content).hexdigest()[:16]}"'
