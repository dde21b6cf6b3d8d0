"""Helpers: a real uvicorn server with our protocol in the test's own loop, and a raw client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn

from tallystick.config import Duration, IngestLimits, Size
from tallystick.http.protocol import limited_protocol
from tallystick.http.small import SmallDoor

App = Callable[[Any, Any, Any], Awaitable[None]]


class Server(uvicorn.Server):
    """uvicorn without signal handlers."""

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()


def short_limits(**changes: Any) -> IngestLimits:
    """Limits with short times; sizes and durations may be given as text."""
    wanted: dict[str, Any] = {"head_time": "400ms", "body_time": "600ms", "idle_time": "800ms", "body": "64KiB", **changes}
    for name, value in wanted.items():
        if isinstance(value, str):
            wanted[name] = Duration(value) if name.endswith("_time") else Size(value)
    return IngestLimits(**wanted)


@contextlib.asynccontextmanager
async def serving(
    app: App, limits: IngestLimits | None = None, uds: Path | None = None, small: SmallDoor | None = None
) -> AsyncIterator[tuple[int, Any]]:
    """Yields port (0 for a Unix socket) and the protocol class."""
    protocol = limited_protocol(limits or short_limits(), small)
    place: dict[str, Any] = {"uds": str(uds)} if uds else {"host": "127.0.0.1", "port": 0}
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        **place,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield (0 if uds else server.servers[0].sockets[0].getsockname()[1]), protocol
    finally:
        server.should_exit = True
        server.force_exit = True
        await task


class Raw:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Raw:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, timeout_s: float = 5) -> tuple[int, dict[str, str], bytes]:
        """The next whole response with a Content-Length: status, headers, body."""
        async with asyncio.timeout(timeout_s):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split(" ")[1]), headers, body

    async def is_closed(self, timeout_s: float = 5) -> bool:
        """True when the server closes, with nothing more sent before."""
        async with asyncio.timeout(timeout_s):
            return await self.reader.read(1) == b""

    def close(self) -> None:
        self.writer.close()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers method, path and length of the body."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    text = f"{scope['method']} {scope['path']} {len(body)}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
