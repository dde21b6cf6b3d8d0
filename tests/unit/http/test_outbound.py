"""Outgoing HTTP: which addresses may be reached, and what a hostile other side can make us do."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tallystick.errors import DestinationUnavailableError
from tallystick.http.outbound import REPLY_MAX, ForbiddenAddressError, OutboundClient, is_public

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:0:0:0:0:0:1",
    ],
)  # fmt: skip
def test_addresses_inside_are_not_public(address: str) -> None:
    """Loopback, private, link-local, metadata, shared, multicast, and IPv4 hidden in IPv6."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_global_addresses_are_public(address: str) -> None:
    """What the internet routes may be reached."""
    assert is_public(address)


async def test_one_private_address_among_several_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address of a name is checked, not only the first."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("8.8.8.8", "127.0.0.1")]

    async def look_up(*args: Any, **options: Any) -> list[Any]:
        return answers

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    client = OutboundClient(allow_private=False, timeout_s=2)
    with pytest.raises(ForbiddenAddressError, match=r"127\.0\.0\.1"):
        await client.post("https://rebind.example/", b"", {})
    await client.close()


@asynccontextmanager
async def serving(serve: Serve):  # type: ignore[no-untyped-def]
    """A raw TCP server; gives its base URL."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def post(url: str, timeout_s: float = 2.0) -> Any:
    client = OutboundClient(allow_private=True, timeout_s=timeout_s)
    try:
        return await client.post(url, b"{}", {"host": "example.com"})
    finally:
        await client.close()


async def test_an_endless_reply_is_cut_at_the_limit() -> None:
    """64 KiB are read of a reply, however long it is."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            pass

    async with serving(serve) as url:
        reply = await post(url)
    assert len(reply.body) == REPLY_MAX


async def test_a_reply_of_one_byte_a_second_ends_at_the_deadline() -> None:
    """The deadline covers the whole exchange, not each read."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
        try:
            for _ in range(100):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass

    async with serving(serve) as url:
        began = time.monotonic()
        with pytest.raises(DestinationUnavailableError, match="no answer within"):
            await post(url, timeout_s=0.3)
    assert time.monotonic() - began < 2


async def test_redirects_are_answers_not_orders() -> None:
    """A 302 to somewhere else is given back as it is; nothing is sent there."""
    hits = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hits
        hits += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with serving(serve) as url:
        assert (await post(url)).status == 302
    assert hits == 1


async def test_a_proxy_in_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the host itself."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()

    async with serving(serve) as url:
        assert (await post(url)).body == b"ok"


@pytest.mark.parametrize("reply", [b"", b"rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort"])
async def test_what_is_no_answer_is_unavailable(reply: bytes) -> None:
    """A closed connection, something that is not HTTP, and a cut body are one kind of error."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()

    async with serving(serve) as url:
        with pytest.raises(DestinationUnavailableError):
            await post(url)
