from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tallystick.http.protocol import HANG_UP
from unit.http.serving import GET, Raw, echo, serving, short_limits


async def test_requests_are_served_on_a_kept_connection() -> None:
    """Three requests, two of them pipelined, are answered in order on one connection."""
    async with serving(echo) as (port, _):
        client = await Raw.connect(port)
        await client.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + GET)
        assert (await client.answer())[2] == b"POST /a 3"
        assert (await client.answer())[2] == b"GET /x 0"
        await client.send(b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
        assert (await client.answer())[2] == b"POST /b 2"
        client.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\nAuthorization: y\r\n\r\n", 400),
        (b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"post / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET \xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 33_000, 431),
        (b"GET /" + b"x" * 33_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 10_000 + b"\r\n", 431),
    ],
)
async def test_hostile_heads_are_refused_and_the_connection_ends(request_bytes: bytes, status: int) -> None:
    """Each malformed or oversize request gets its status as a problem document, then the connection is closed."""
    calls: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        await echo(scope, receive, send)

    async with serving(app) as (port, _):
        client = await Raw.connect(port)
        await client.send(request_bytes)
        answered, headers, body = await client.answer()
        assert answered == status
        assert headers["content-type"] == "application/problem+json"
        assert headers["connection"] == "close"
        assert headers["x-content-type-options"] == "nosniff"
        assert msgspec.json.decode(body)["status"] == status
        assert await client.is_closed()
        client.close()
        other = await Raw.connect(port)
        await other.send(GET)
        assert (await other.answer())[0] == 200
        other.close()
    if b"zz" not in request_bytes:
        assert calls == ["/x"]


async def test_oversize_body_is_refused_while_it_is_still_being_sent() -> None:
    """A sender that keeps pushing a too large body can read the 413; no reset destroys it."""
    async with serving(echo) as (port, _):
        client = await Raw.connect(port)
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n")
        for _ in range(40):
            await client.send(b"x" * 65_536)
            await asyncio.sleep(0)
        assert (await client.answer())[0] == 413
        client.close()


async def test_early_answer_of_the_application_reaches_a_sender_that_is_still_sending() -> None:
    """An application that answers before the body is whole and closes is heard too."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0"), (b"connection", b"close")]}
        )
        await send({"type": "http.response.body"})

    async with serving(refuse, short_limits(body="100MiB")) as (port, _):
        client = await Raw.connect(port)
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n")
        for _ in range(40):
            await client.send(b"x" * 65_536)
            await asyncio.sleep(0)
        assert (await client.answer())[0] == 401
        client.close()


async def test_expect_100_is_not_answered_when_the_application_refuses() -> None:
    """With Expect: 100-continue a refusal comes instead of the 100, before any body."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with serving(refuse) as (port, _):
        client = await Raw.connect(port)
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
        assert (await client.answer())[0] == 401
        client.close()


async def test_slow_head_is_closed_at_its_deadline_and_others_are_unharmed() -> None:
    """A head that comes byte by byte ends with 408 within the deadline, however steadily it comes; a proper client is served."""
    async with serving(echo) as (port, _):
        slow, good = await Raw.connect(port), await Raw.connect(port)
        started = asyncio.get_running_loop().time()

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: " + b"a" * 1000:
                await slow.send(bytes([byte]))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        await good.send(GET)
        assert (await good.answer())[0] == 200
        assert (await slow.answer())[0] == 408
        assert 0.3 < asyncio.get_running_loop().time() - started < 1.5
        dripping.cancel()
        slow.close()
        good.close()


async def test_slow_body_is_408_and_the_application_hears_of_it() -> None:
    """A body byte by byte ends with 408 at its deadline, and the application gets a disconnect."""
    gone = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        gone.set()

    async with serving(app) as (port, _):
        client = await Raw.connect(port)
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")

        async def drip() -> None:
            while True:
                await client.send(b"x")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert (await client.answer())[0] == 408
        await asyncio.wait_for(gone.wait(), 2)
        dripping.cancel()
        client.close()


async def test_idle_connections_are_closed_and_long_answers_are_not() -> None:
    """A connection without a request is closed after idle_time; a request that takes longer than every deadline is answered."""
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await echo(scope, receive, send)

    async with serving(app) as (port, _):
        idle, busy = await Raw.connect(port), await Raw.connect(port)
        await busy.send(GET)
        assert await idle.is_closed(3)
        release.set()
        assert (await busy.answer())[0] == 200
        assert await busy.is_closed(3)


async def test_connection_caps_refuse_newcomers_only() -> None:
    """Past the cap a newcomer gets 503 with Retry-After, those inside are served, and a place that is given up is free again."""
    async with serving(echo, short_limits(connections_per_address=3, idle_time="10s")) as (port, protocol):
        inside = [await Raw.connect(port) for _ in range(3)]
        for client in inside:
            await client.send(GET)
            assert (await client.answer())[0] == 200
        outside = await Raw.connect(port)
        status, headers, _ = await outside.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        assert await outside.is_closed()
        for client in inside:
            await client.send(GET)
            assert (await client.answer())[0] == 200
        inside[0].close()
        while len(protocol.table) > 2:
            await asyncio.sleep(0.01)
        again = await Raw.connect(port)
        await again.send(GET)
        assert (await again.answer())[0] == 200
        assert protocol.table.refused == 1


async def test_answer_that_nobody_reads_is_given_up() -> None:
    """A client that asks for much and reads nothing is cut off after idle_time, and the application is told."""
    sent = 0

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000000000")]})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
            sent += 1

    async with serving(flood) as (port, protocol):
        client = await Raw.connect(port)
        client.writer.transport.pause_reading()
        await client.send(GET)
        while not sent:
            await asyncio.sleep(0.01)
        stalled_at = sent
        async with asyncio.timeout(4):
            while len(protocol.table):
                await asyncio.sleep(0.01)
        assert stalled_at < 100
        client.close()


async def test_upgrade_is_ignored() -> None:
    """A request that offers h2c is answered as HTTP/1.1, and the connection ends after it."""
    async with serving(echo) as (port, _):
        client = await Raw.connect(port)
        await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.is_closed()


async def test_bad_request_behind_a_good_one_does_not_spoil_its_answer() -> None:
    """Garbage pipelined behind a request that is still being worked on puts nothing between: the connection is closed."""
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await echo(scope, receive, send)

    async with serving(app) as (port, _):
        client = await Raw.connect(port)
        await client.send(GET)
        await client.send(b"GARBAGE\r\n\r\n")
        assert await client.is_closed()
        release.set()


async def test_want_of_memory_is_not_called_a_malformed_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback of the parser that finds no memory gives 503 with advice, which a sender tries again; 400 it would not."""

    def failing(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("uvicorn.protocols.http.httptools_impl.HttpToolsProtocol.on_header", failing)
    async with serving(echo) as (port, _):
        client = await Raw.connect(port)
        await client.send(GET)
        status, headers, _ = await client.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        client.close()


async def test_an_application_can_hang_up(caplog: pytest.LogCaptureFixture) -> None:
    """In place of an answer that nobody can give: the connection ends without a byte, also with a request behind; others are served on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/unknown":
            scope["extensions"][HANG_UP]()
        else:
            await echo(scope, receive, send)

    async with serving(app) as (port, _):
        client, other = await Raw.connect(port), await Raw.connect(port)
        await client.send(b"POST /unknown HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab" + GET)
        assert await client.is_closed()
        assert "ASGI" not in caplog.text
        await other.send(GET)
        assert (await other.answer())[0] == 200
        for each in (client, other):
            each.close()
