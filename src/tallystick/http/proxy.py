"""Passes requests, streamed both ways, to the HTTP server on a Unix socket (decision 0002).

Rules

1. What concerns one connection only (RFC 9110 section 7.6.1) stays behind, and so does everything a sender says about where it
   comes from: the other side learns address and scheme from us alone (``x-forwarded-for``, ``x-forwarded-proto``).
2. When the client goes, the connection to the other side is closed, so that a tail or an export stops there too.
3. No connection or no whole head of an answer is a 503 with Retry-After; an answer that breaks off is broken off here too.
4. Connections are kept for the next request. One that proves dead before its first byte is replaced, for a request without a
   body, once.

A Unix socket's path has at most 108 bytes; a data directory may lie deeper, so the socket is reached through an open
descriptor of its directory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import httptools

from tallystick.http.problem import Problem
from tallystick.telemetry import log

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_READ_SIZE = 64 * 1024
_KEPT_MAX = 32
_CONNECT_S = 2.0
_HEAD_S = 120.0
_STAYS_BEHIND = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"expect", b"forwarded", b"x-real-ip"),
        *(b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto"),
    )
)
_ANSWER_STAYS_BEHIND = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"trailer", b"upgrade", b"date", b"server"))


class _DeadConnectionError(Exception):
    """The other side closed before the head of its answer was whole."""


class UnixProxy:
    """ASGI application that hands each request to the server on ``socket``. Raises Problem 503 (rule 3)."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._kept: list[_Upstream] = []
        self._is_away = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _Request(scope)
        try:
            upstream = self._take()
            if upstream is not None and not request.has_body:
                try:
                    await self._exchange(upstream, request, receive, send)
                    return
                except _DeadConnectionError:
                    upstream = None
            await self._exchange(upstream or await self._connect(), request, receive, send)
        except _DeadConnectionError:
            raise Problem(
                503, "api_unavailable", "this part of the server is restarting; try again", headers={"retry-after": "1"}
            ) from None

    def close(self) -> None:
        """Close the kept connections."""
        while self._kept:
            self._kept.pop().close()

    async def _exchange(self, upstream: _Upstream, request: _Request, receive: Receive, send: Send) -> None:
        """One request and its answer. The connection is kept or closed, whatever happens."""
        is_reusable = False
        answering = asyncio.ensure_future(upstream.answer(request, send))
        asking = asyncio.ensure_future(upstream.ask(request, receive))
        try:
            await asyncio.wait((answering, asking), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                is_reusable = answering.result()
            else:
                asking.result()  # the client is gone; anything else that ended it is raised
        finally:
            for task in (answering, asking):
                task.cancel()
            await asyncio.gather(answering, asking, return_exceptions=True)
            if is_reusable and len(self._kept) < _KEPT_MAX:
                self._kept.append(upstream)
            else:
                upstream.close()

    def _take(self) -> _Upstream | None:
        while self._kept:
            upstream = self._kept.pop()
            if not upstream.is_dead():
                return upstream
            upstream.close()
        return None

    async def _connect(self) -> _Upstream:
        try:
            directory = os.open(self._socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                async with asyncio.timeout(_CONNECT_S):
                    streams = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{self._socket.name}")
            finally:
                os.close(directory)
        except (OSError, TimeoutError) as error:
            if not self._is_away:  # once per outage, however many requests meet it
                log.warning("api_unreachable", socket=str(self._socket), error=str(error))
            self._is_away = True
            raise _DeadConnectionError from error
        if self._is_away:
            log.info("api_reachable", socket=str(self._socket))
        self._is_away = False
        return _Upstream(*streams)


class _Request:
    """The head of one request as it is passed on."""

    def __init__(self, scope: Scope) -> None:
        headers = scope["headers"]
        self.method: str = scope["method"]
        self.is_chunked = any(name == b"transfer-encoding" for name, _ in headers)
        self.has_body = self.is_chunked or any(name == b"content-length" and value.strip(b"0") for name, value in headers)
        query = scope.get("query_string", b"")
        target = scope["raw_path"] + (b"?" + query if query else b"")
        lines = [b"%b %b HTTP/1.1" % (self.method.encode(), target)]
        lines += [b"%b: %b" % (name, value) for name, value in headers if name not in _STAYS_BEHIND]
        if self.is_chunked:
            lines.append(b"transfer-encoding: chunked")
        if scope.get("client"):
            lines.append(b"x-forwarded-for: " + scope["client"][0].encode())
        lines.append(b"x-forwarded-proto: " + scope.get("scheme", "http").encode())
        self.head = b"\r\n".join(lines) + b"\r\n\r\n"


class _Upstream:
    """One connection to the other side, and the answer that is arriving on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._is_asked = True

    def is_dead(self) -> bool:
        """True when the other side has closed."""
        return self._reader.at_eof() or self._writer.is_closing()

    def close(self) -> None:
        self._writer.close()

    async def ask(self, request: _Request, receive: Receive) -> None:
        """Send the request, then wait; returns when the client is gone."""
        self._is_asked = False
        try:
            self._writer.write(request.head)
            while not self._is_asked:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                await self._pass_on(message.get("body", b""), request, is_last=not message.get("more_body", False))
        except OSError:
            pass  # the other side takes no more: its answer, or its end, is seen where it is read
        while (await receive())["type"] != "http.disconnect":
            continue

    async def _pass_on(self, piece: bytes, request: _Request, *, is_last: bool) -> None:
        if request.is_chunked:
            if piece:
                self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if is_last:
                self._writer.write(b"0\r\n\r\n")
        elif piece:
            self._writer.write(piece)
        self._is_asked = is_last
        await self._writer.drain()

    async def answer(self, request: _Request, send: Send) -> bool:
        """Pass the answer on; True when the connection can serve another request. Raises _DeadConnectionError."""
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        is_started = False
        while not answer.is_whole:
            try:
                async with asyncio.timeout(None if is_started else _HEAD_S):
                    data = await self._reader.read(_READ_SIZE)
                if not data:
                    raise ConnectionError("closed inside an answer")
                parser.feed_data(data)
            except (OSError, TimeoutError, httptools.HttpParserError) as error:
                if not is_started:
                    raise _DeadConnectionError from error
                log.warning("api_answer_broken_off", error=str(error))
                return False
            if answer.has_head and not is_started:
                is_started = True
                answer.is_whole = answer.is_whole or request.method == "HEAD"
                await send({"type": "http.response.start", "status": parser.get_status_code(), "headers": answer.headers})
            if is_started:
                body, answer.body = b"".join(answer.body), []
                await send({"type": "http.response.body", "body": body, "more_body": not answer.is_whole})
        return self._is_asked and request.method != "HEAD" and bool(parser.should_keep_alive())


class _Answer:
    """httptools' callbacks: what has been parsed of one answer."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.has_head = False
        self.is_whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() not in _ANSWER_STAYS_BEHIND:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.is_whole = True
