from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tallystick.http.problem import Problem
from tallystick.http.proxy import UnixProxy
from unit.http.serving import GET, Raw, echo, serving, short_limits


def front(proxy: UnixProxy) -> Any:
    """The proxy with problems answered, as the public application does."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await proxy(scope, receive, send)
        except Problem as problem:
            body = problem.body("r")
            await send({"type": "http.response.start", "status": problem.status, "headers": problem.header_lines(body)})
            await send({"type": "http.response.body", "body": body})

    return app


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    return deep / "api.sock"


def listening(socket: Path) -> Path:
    """A short way to the same place, since binding has the limit that the proxy goes around."""
    link = socket.parent.parent / "s"
    if not link.exists():
        link.symlink_to(socket.parent)
    return link / socket.name


async def test_requests_pass_both_ways_on_one_kept_connection(socket: Path) -> None:
    """Bodies with a length and in chunks pass through, the query too, over a socket path longer than 108 bytes."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["raw_path"], scope["query_string"], scope["client"], dict(scope["headers"])))
        await echo(scope, receive, send)

    proxy = UnixProxy(socket)
    async with serving(app, uds=listening(socket)) as (_, inner), serving(front(proxy)) as (port, _protocol):
        client = await Raw.connect(port)
        await client.send(b"GET /a%20b?q=%22x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.answer())[2] == b"GET /a b 0"
        await client.send(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        assert (await client.answer())[2] == b"POST /p 3"
        await client.send(b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n")
        assert (await client.answer())[2] == b"POST /c 5"
        await client.send(b"HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n")
        status = await client.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 9" in status.lower()
        await client.send(GET)
        assert (await client.answer())[2] == b"GET /x 0"
        path, query, _client, headers = seen[0]
        assert (path, query) == (b"/a%20b", b"q=%22x")
        assert headers[b"x-forwarded-for"] == b"127.0.0.1"
        assert headers[b"x-forwarded-proto"] == b"http"
        assert len(inner.table) == 1
        client.close()
        proxy.close()


async def test_stream_arrives_piece_by_piece_and_ends_with_the_client(socket: Path) -> None:
    """A server-sent stream is passed on as it comes, and its source hears when the client goes."""
    gone, step = asyncio.Event(), asyncio.Event()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await step.wait()
        await send({"type": "http.response.body", "body": b"data: 2\n\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            continue
        gone.set()

    async with serving(stream, uds=listening(socket)), serving(front(UnixProxy(socket))) as (port, _):
        client = await Raw.connect(port)
        await client.send(GET)
        assert b"text/event-stream" in await client.reader.readuntil(b"\r\n\r\n")
        assert await asyncio.wait_for(client.reader.readuntil(b"1\n\n\r\n"), 2)
        step.set()
        assert await asyncio.wait_for(client.reader.readuntil(b"2\n\n\r\n"), 2)
        client.close()
        await asyncio.wait_for(gone.wait(), 2)


async def test_no_server_is_503_with_retry_after_and_a_restart_heals(socket: Path) -> None:
    """Without the api process the answer is 503; after it came back, and after it was exchanged, requests pass again."""
    proxy = UnixProxy(socket)
    async with serving(front(proxy)) as (port, _):
        client = await Raw.connect(port)
        await client.send(GET)
        status, headers, body = await client.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        assert b"api_unavailable" in body
        for _ in range(2):
            async with serving(echo, uds=listening(socket)):
                await client.send(GET)
                assert (await client.answer())[0] == 200
                await client.send(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
                assert (await client.answer())[0] == 200
        client.close()


async def test_an_outage_is_logged_once_and_so_is_its_end(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many requests meet it, there is one line when the api process is away, and one when it is back."""
    said: list[str] = []
    monkeypatch.setattr("tallystick.http.proxy.log.warning", lambda event, **_: said.append(event))
    monkeypatch.setattr("tallystick.http.proxy.log.info", lambda event, **_: said.append(event))
    async with serving(front(UnixProxy(socket))) as (port, _):
        client = await Raw.connect(port)
        for _ in range(2):
            for _ in range(5):
                await client.send(GET)
                assert (await client.answer())[0] == 503
            async with serving(echo, uds=listening(socket)):
                for _ in range(3):
                    await client.send(GET)
                    assert (await client.answer())[0] == 200
        client.close()
    assert said == ["api_unreachable", "api_reachable"] * 2


async def test_server_that_dies_before_or_inside_an_answer(socket: Path) -> None:
    """Death before the answer is a 503; death inside it breaks the answer off, so that it cannot be taken for whole."""

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"GET /inside" in request:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(die, listening(socket))
    async with server, serving(front(UnixProxy(socket))) as (port, _):
        client = await Raw.connect(port)
        await client.send(b"GET /before HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer())[0] == 503
        await client.send(b"GET /inside HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(asyncio.IncompleteReadError):
            await client.answer()
        client.close()


async def test_early_answer_to_a_large_body_comes_through(socket: Path) -> None:
    """When the api process refuses a body before it is whole, the sender gets that refusal."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0"), (b"connection", b"close")]}
        )
        await send({"type": "http.response.body"})

    limits = short_limits(body="100MiB", body_time="5s")
    async with serving(refuse, limits, uds=listening(socket)), serving(front(UnixProxy(socket)), limits) as (port, _):
        client = await Raw.connect(port)
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
        await client.send(b"x" * 3_000_000)
        assert (await client.answer())[0] == 413
        client.close()
