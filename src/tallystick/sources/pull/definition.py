"""What a vendor's API looks like, as data: one TOML file in `sources/pulls/`, or one of the user's own.

Five shapes are made of two choices. How it goes on from one poll to the next (``progress``):

- ``cursor``: the place that the vendor gave with the last page holds for ever; it is saved after each page's events are durable.
- ``window``: times from..to are asked for. Each window begins ``overlap`` before the last one's end, and now and then ``late`` before it,
  for records that arrive late; repeats are merged by ``key``.

And how the next page of one answer is found (``page``): ``link`` (header Link, rel=next), ``body`` (a cursor or page token at ``next``), ``header`` (a URL in
the header ``next``), ``last`` (the value ``next`` of the last record), ``none``. With ``[fetch]`` the pages list things that are fetched one by one.
"""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec

from tallystick.config import Duration
from tallystick.errors import ConfigError

AuthKind = Literal["bearer", "ssws", "basic", "oauth2", "google", "none"]
_NAME = re.compile(r"\{([a-z_]+)\}")
_GIVEN = {"since", "until", "item"}


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables of a definition."""


class Auth(_Table, frozen=True):
    """Which kinds of credential the vendor takes, the usual one first, and what they need."""

    kinds: tuple[AuthKind, ...]
    token_url: str = ""
    scope: str = ""
    audience: str = ""


class Request(_Table, frozen=True):
    """One request. Texts may hold `{name}`: a parameter, `{since}` and `{until}`. ``next`` names what carries the place of a page."""

    path: str
    method: Literal["GET", "POST"] = "GET"
    query: dict[str, str] = {}
    body: dict[str, Any] | None = None
    headers: dict[str, str] = {}


class Page(_Table, frozen=True):
    """How records and the next page are found. ``records`` and ``next`` are paths of members, separated by points."""

    by: Literal["link", "body", "header", "last", "none"]
    records: str = ""
    next: str = ""
    more: str = ""
    parameter: str = ""
    replaces: tuple[str, ...] = ()


class Progress(_Table, frozen=True):
    """How it goes on. ``time`` is how times are written: RFC 3339, without a zone, or Unix seconds. The rest is explained above."""

    by: Literal["cursor", "window"]
    time: Literal["rfc3339", "plain", "unix"] = "rfc3339"
    overlap: str = "5m"
    delay: str = "0s"
    late: str = "0s"
    late_every: str = "1h"
    longest: str = "24h"
    retention: str = "90d"


class Fetch(_Table, frozen=True):
    """List, then fetch: ``url`` is the path of the member with the URL of one thing, ``gone`` the statuses of one that has expired."""

    url: str
    records: str = ""
    gone: tuple[int, ...] = (404, 410)


class Definition(_Table, frozen=True):
    """One API. ``each`` names the parameter whose values are separate streams, each with its own place."""

    name: str
    title: str
    documentation: str
    base: str
    auth: Auth
    request: Request
    page: Page
    progress: Progress
    key: tuple[str, ...]
    when: str = ""
    mapping: str = "generic"
    parameters: dict[str, str] = {}
    each: str = ""
    interval: str = "1m"
    fetch: Fetch | None = None
    prepare: Request | None = None
    prepared: tuple[int, ...] = ()

    def check(self) -> None:
        """Raises ConfigError for what types alone cannot say."""
        for name in ("overlap", "delay", "late", "late_every", "longest", "retention"):
            _duration(getattr(self.progress, name), f"progress.{name}")
        _duration(self.interval, "interval")
        if self.page.by in ("body", "last", "header") and not self.page.next:
            raise ConfigError(f'page.by = "{self.page.by}" needs `next`', place="page.next")
        if self.page.by in ("body", "last") and not self.page.parameter:
            raise ConfigError("the place of a page needs a `parameter` that carries it", place="page.parameter")
        if not self.key:
            raise ConfigError("no `key`: what names a record, so that a repeat is told", place="key")
        known = {*self.parameters, *_GIVEN, *((self.each,) if self.each else ())}
        for text in _texts(self):
            for name in _NAME.findall(text):
                if name not in known:
                    raise ConfigError(f"{{{name}}} is no parameter", place="parameters", hint="Known: " + ", ".join(sorted(known)))


def load_definition(name: str, base_dir: Path) -> Definition:
    """A ready definition by its name, or the user's own by its path (it ends in `.toml`). Raises ConfigError."""
    if name.endswith(".toml"):
        path = base_dir / name
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}", place="definition") from error
    else:
        folder = resources.files("tallystick.sources") / "pulls"
        if name not in ready_definitions():
            raise ConfigError(
                f"there is no definition `{name}`",
                place="definition",
                hint="Known: " + ", ".join(ready_definitions()) + ", or a .toml file",
            )
        text = (folder / f"{name}.toml").read_text("utf-8")
    return read_definition(text, name)


def ready_definitions() -> list[str]:
    """Names of those that ship with Tallystick."""
    folder = resources.files("tallystick.sources") / "pulls"
    return sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".toml"))


def read_definition(text: str, name: str) -> Definition:
    """Raises ConfigError with what is wrong in it."""
    try:
        definition = msgspec.convert(tomllib.loads(text), Definition)
        definition.check()
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"the definition {name} is not valid: {error}", place="definition") from error
    except ConfigError as error:
        raise ConfigError(
            f"the definition {name} is not valid: {error.message}, at {error.place}", place="definition", hint=error.hint
        ) from None
    return definition


def fill(text: str, values: dict[str, str]) -> str:
    """``text`` with its `{name}`s."""
    return _NAME.sub(lambda match: values[match[1]], text)


def seconds(text: str) -> float:
    """Of a checked duration."""
    return Duration(text).seconds


def _duration(text: str, place: str) -> None:
    try:
        Duration(text)
    except ValueError as error:
        raise ConfigError(str(error), place=place) from error


def _texts(definition: Definition) -> list[str]:
    texts = [definition.base, definition.auth.token_url, definition.auth.audience]
    for request in (definition.request, definition.prepare):
        if request is not None:
            texts += [request.path, *request.query.values(), *request.headers.values()]
            texts += [value for value in (request.body or {}).values() if isinstance(value, str)]
    return texts
