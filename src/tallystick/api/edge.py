"""What every request meets before and after routing, as one plain ASGI layer.

In order: a request id; the caller (401 without one, except on open paths); HEAD as GET without a body; security headers on
whatever answer comes; and the last resort, which turns a failure of ours into a 500 that says nothing but its request id.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from tallystick.api.caller import Caller
from tallystick.api.problems import problem_of
from tallystick.errors import TransientError
from tallystick.http.problem import Problem
from tallystick.http.security import with_security_headers
from tallystick.telemetry import log

Scope = Any
Message = Any
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_BEARER = ((b"www-authenticate", b'Bearer realm="tallystick"'),)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Door(Protocol):
    """Finds the caller of a request, and says what a stranger gets."""

    async def identify(self, scope: Scope) -> Caller | None:
        """The caller, or None without credentials. Raises Problem 400/401/403 for bad ones."""

    def is_open(self, path: str) -> bool:
        """True for paths that need no caller."""

    def render(self, scope: Scope, problem: Problem, request_id: str) -> tuple[bytes, bytes]:
        """Content type and body of an answer that is no success, in the form that this reader wants."""


class Edge:
    """Wraps the routed application; see the module's text for what it does."""

    def __init__(self, app: App, door: Door, *, is_tls: bool) -> None:
        self._app = app
        self._door = door
        self._is_tls = is_tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = scope.setdefault("state", {})["request_id"] = uuid.uuid4().hex
        reply = _Reply(send, is_tls=self._is_tls, is_head=scope["method"] == "HEAD")
        try:
            if scope["method"] not in METHODS:
                raise Problem(
                    405, "method_not_allowed", "this method is not known here", headers={"allow": "GET, HEAD, POST, DELETE"}
                )
            caller = await self._door.identify(scope)
            if caller is None and not self._door.is_open(scope["path"]):
                raise Problem(401, "unauthenticated", "this needs an access key: Authorization: Bearer ts_…")
            scope["state"]["caller"] = caller
            if reply.is_head:
                scope = {**scope, "method": "GET"}  # a copy: the server goes by its own that this answer has no body
                receive = reply.receive_for_head(receive)
            await self._run(scope, receive, reply.send)
        except Exception as error:
            if reply.is_started:
                log.error("answer broken off", request_id=request_id, error=repr(error), exc_info=True)
                raise
            problem = problem_of(error)
            if problem.status >= 500 and not isinstance(error, TransientError):
                log.error("request failed", request_id=request_id, error=repr(error), exc_info=True)
            content_type, body = self._door.render(scope, problem, request_id)
            lines = [line for line in problem.header_lines(body) if line[0] != b"content-type"]
            bearer = _BEARER if problem.status == 401 and "www-authenticate" not in problem.headers else ()
            await reply.whole(problem.status, [(b"content-type", content_type), *lines, *bearer], body)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            # Streams register what must be released however the exchange ends: its reader may be gone in the middle.
            for close in scope["state"].get("closers", ()):
                await close()


class _Reply:
    """The sending side of one exchange: adds headers, and for HEAD drops every body."""

    def __init__(self, send: Send, *, is_tls: bool, is_head: bool) -> None:
        self._send = send
        self._is_tls = is_tls
        self.is_head = is_head
        self.is_started = False
        self._is_ended = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_started = True
            message = {**message, "headers": with_security_headers(message["headers"], is_tls=self._is_tls)}
        elif self.is_head:
            if self._is_ended:
                return
            self._is_ended = True
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    def receive_for_head(self, receive: Receive) -> Receive:
        async def wrapped() -> Message:
            # A stream asked for by HEAD must not run on: once its head is out, its reader is gone.
            return {"type": "http.disconnect"} if self._is_ended else await receive()

        return wrapped

    async def whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Send one complete answer."""
        lines = list(headers)
        if not any(name == b"content-length" for name, _ in lines):
            lines.append((b"content-length", b"%d" % len(body)))
        await self.send({"type": "http.response.start", "status": status, "headers": lines})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})
