"""Small requests between the protocol and a door that takes them whole, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tallystick.http.small import SMALL_BYTES_MAX, SmallRequest
from unit.http.serving import GET, Raw, echo, serving, short_limits


class Door:
    """Wants ``/small``; answers at once, keeps the request for later, or declines it, as its body says."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.kept: list[SmallRequest] = []

    def ticket(self, url: bytes, headers: Mapping[bytes, bytes]) -> Any:
        self.asked.append(url)
        return "ticket" if url == b"/small" else None

    def take(self, request: SmallRequest) -> None:
        assert request.ticket == "ticket"
        if request.body == b"keep":
            self.kept.append(request)
        elif request.body == b"decline":
            request.decline()
        else:
            request.answer(b"took %d" % len(request.body))


def post(body: bytes, *lines: bytes, path: bytes = b"/small", version: bytes = b"1.1") -> bytes:
    head = [b"POST %b HTTP/%b" % (path, version), b"Host: a", b"Content-Length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_small_requests_are_answered_whole_by_the_door() -> None:
    """The answer has the security headers, its length and its body; the connection stays for the next one."""
    async with serving(echo, small=Door()) as (port, _):
        client = await Raw.connect(port)
        for body in (b"a", b"abc", b""):
            await client.send(post(body))
            status, headers, text = await client.answer()
            assert (status, text) == (200, b"took %d" % len(body))
            assert headers["content-type"] == "application/json"
            assert headers["x-content-type-options"] == "nosniff"
            assert "connection" not in headers
        client.close()


async def test_a_body_in_pieces_is_whole_when_the_door_gets_it() -> None:
    """Head and body may come byte by byte."""
    async with serving(echo, small=Door()) as (port, _):
        client = await Raw.connect(port)
        for byte in post(b"abcdef"):
            await client.send(bytes([byte]))
        assert (await client.answer())[2] == b"took 6"
        client.close()


async def test_what_the_door_declines_is_answered_by_the_application() -> None:
    """With the same body, before and after requests that the door takes."""
    async with serving(echo, small=Door()) as (port, _):
        client = await Raw.connect(port)
        for body, answer in ((b"a", b"took 1"), (b"decline", b"POST /small 7"), (b"ab", b"took 2")):
            await client.send(post(body))
            assert (await client.answer())[2] == answer
        client.close()


@pytest.mark.parametrize(
    "data",
    [
        post(b"x" * (SMALL_BYTES_MAX + 1)),
        post(b"x", b"Expect: 100-continue"),
        post(b"x", b"Content-Encoding: gzip"),
        post(b"x", b"Connection: close"),
        post(b"x", b"X-A: 1", b"X-A: 2"),
        post(b"x", version=b"1.0"),
        post(b"x", path=b"/small?x=1"),
        b"POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"PUT /small HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    ],
)
async def test_anything_special_goes_the_ordinary_way(data: bytes) -> None:
    """Large or chunked bodies, codings, repeated headers, other methods and versions, connections that are to end."""
    async with serving(echo, small=Door()) as (port, _):
        client = await Raw.connect(port)
        await client.send(data)
        status, _, body = await client.answer()
        if status == 100:
            status, _, body = await client.answer()
        assert status == 200
        assert body.split(b" ")[1].startswith(b"/small")
        client.close()


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    """Behind a small request that waits, others wait too, whichever way they go."""
    door = Door()
    async with serving(echo, small=door) as (port, _):
        client = await Raw.connect(port)
        await client.send(post(b"keep") + post(b"abc") + GET)
        await until(lambda: door.kept)
        door.kept[0].answer(b"first")
        assert (await client.answer())[2] == b"first"
        assert (await client.answer())[2] == b"POST /small 3"
        assert (await client.answer())[2] == b"GET /x 0"
        await client.send(post(b"ab"))
        assert (await client.answer())[2] == b"took 2"
        client.close()


async def test_a_client_that_goes_gets_no_answer_and_harms_nobody() -> None:
    """An answer or a decline for a closed connection does nothing."""
    door = Door()
    async with serving(echo, small=door) as (port, protocol):
        for _ in range(2):
            client = await Raw.connect(port)
            await client.send(post(b"keep"))
            await until(lambda: door.kept)
            client.close()
            await until(lambda: len(protocol.table) == 0)
            request = door.kept.pop()
            request.answer(b"late") if _ else request.decline()
        other = await Raw.connect(port)
        await other.send(GET)
        assert (await other.answer())[0] == 200
        other.close()


async def test_a_request_whose_outcome_is_unknown_gets_no_answer() -> None:
    """The door hangs up: the connection ends without a byte, and what was pipelined behind is not begun."""
    door = Door()
    async with serving(echo, small=door) as (port, _):
        client = await Raw.connect(port)
        await client.send(post(b"keep") + GET)
        await until(lambda: door.kept)
        door.kept[0].hang_up()
        assert await client.is_closed()
        client.close()


async def test_a_body_that_does_not_come_is_408() -> None:
    """The body's deadline holds for small requests; the door never sees them."""
    door = Door()
    async with serving(echo, short_limits(), small=door) as (port, _):
        client = await Raw.connect(port)
        await client.send(post(b"abcdef")[:-1])
        assert (await client.answer())[0] == 408
        assert await client.is_closed()
        client.close()


async def test_a_server_that_stops_answers_and_closes() -> None:
    """A small request in hand when the server ends gets its answer, with ``Connection: close``."""
    door = Door()
    async with serving(echo, small=door) as (port, protocol):
        client = await Raw.connect(port)
        await client.send(post(b"keep"))
        await until(lambda: door.kept)
        (connection,) = protocol.table._open
        connection.shutdown()
        door.kept[0].answer(b"last")
        _, headers, body = await client.answer()
        assert (headers["connection"], body) == ("close", b"last")
        assert await client.is_closed()
        client.close()
