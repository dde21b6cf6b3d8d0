"""Errors over HTTP as RFC 9457 problem details: one exception, one body."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from tallystick.errors import TallystickError

CONTENT_TYPE = b"application/problem+json"


class Problem(TallystickError):
    """An answer that is no success. Raised anywhere below a handler, rendered once at the edge.

    ``code`` is the machine-readable word, ``detail`` one sentence for a person, ``errors`` a list of
    ``{"line","pointer","message"}`` (any of them may be absent), ``headers`` more response headers in lower case.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Iterable[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})

    @property
    def title(self) -> str:
        """The standard phrase of the status."""
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return "Error"

    def body(self, request_id: str) -> bytes:
        """The JSON body. ``type`` is left out: it is "about:blank" then (RFC 9457 section 4.2.1)."""
        members: dict[str, Any] = {"title": self.title, "status": self.status, "code": self.code, "detail": self.detail}
        if self.errors:
            members["errors"] = self.errors
        members["request_id"] = request_id
        return msgspec.json.encode(members)

    def header_lines(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """ASGI response headers for ``body``, the problem's own included."""
        lines = [(b"content-type", CONTENT_TYPE), (b"content-length", b"%d" % len(body))]
        lines += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        return lines
