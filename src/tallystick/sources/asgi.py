"""The few lines of ASGI that the doors share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from tallystick.http.problem import Problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Reply(NamedTuple):
    """What a door answers."""

    status: int
    body: bytes
    media: bytes = b"application/json"


Door = Callable[[Scope, Receive], Awaitable[Reply]]
"""Takes one request; raises Problem, or another error that `refusal` knows, for one that it refuses."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Header names (lower case) to values. A name that was sent twice is refused where it could mean two things."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers and name in _SINGLE:
            raise Problem(400, "header_repeated", f"the header {name.decode()} was sent more than once")
        headers[name] = value
    return headers


_SINGLE = frozenset({b"authorization", b"content-type", b"content-encoding", b"content-length", b"idempotency-key", b"host"})


def peer_of(scope: Scope) -> str:
    """The sender's address; empty where there is none."""
    client = scope.get("client")
    return client[0] if client else ""


def query_of(scope: Scope, known: Iterable[str]) -> dict[str, str]:
    """Query parameters; unknown and repeated ones are refused."""
    raw = scope.get("query_string", b"")
    if not raw:
        return {}
    params: dict[str, str] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise Problem(400, "parameter_unknown", f"unknown query parameter {name[:64]!r}; known: {names}")
        if name in params:
            raise Problem(400, "parameter_repeated", f"the query parameter {name!r} was given more than once")
        params[name] = value
    return params


def choice(params: dict[str, str], name: str, values: tuple[str, ...], default: str) -> str:
    """One parameter out of a few words."""
    value = params.get(name, default)
    if value not in values:
        raise Problem(400, "parameter_invalid", f"{name}={value[:64]!r} is not one of {', '.join(values)}")
    return value


async def respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """One whole response."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
