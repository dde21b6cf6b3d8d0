"""Listening: what may be configured, who gets in, and who is shown out."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Authority, Pair
from support.running import Running, context_of, running, until
from tallystick.config import Duration, Size, TlsSettings
from tallystick.errors import ConfigError
from tallystick.sources.syslog import SyslogSettings, SyslogSource
from tallystick.sources.tls import certificate_names


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server_pair(authority: Authority) -> Pair:
    return authority.issue("server", "localhost", "127.0.0.1")


def settings(**changes: Any) -> SyslogSettings:
    return SyslogSettings(**({"listen": "127.0.0.1:0", "transport": ("tcp",)} | changes))


@asynccontextmanager
async def listening(directory: Path, **changes: Any) -> AsyncIterator[Running]:
    async with running(SyslogSource(settings(**changes), context_of(directory))) as run:
        yield run


def tls_of(pair: Pair, ca: Path | None = None) -> TlsSettings:
    return TlsSettings(cert=str(pair.cert), key=str(pair.key), client_ca=str(ca) if ca else None)


def client_context(authority: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


async def send_tls(run: Running, context: ssl.SSLContext, data: bytes) -> bytes:
    """Send and close; what came back until the end. Raises OSError (SSLError among them) when it does not come about."""
    reader, writer = await asyncio.open_connection(*run.address(), ssl=context, server_hostname="localhost")
    writer.write(data)
    await writer.drain()
    writer.write_eof() if writer.can_write_eof() else writer.close()
    return await reader.read()


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"listen": "0.0.0.0:5514"}, "listen", "without TLS"),
        ({"listen": "[::]:5514"}, "listen", "without TLS"),
        ({"listen": "192.0.2.1:5514", "transport": ("udp",)}, "listen", "without TLS"),
        ({"listen": "127.0.0.1"}, "listen", "no IP address and port"),
        ({"listen": "127.0.0.1:99999"}, "listen", "no IP address and port"),
        ({"listen": "example.com:514"}, "listen", "no IP address and port"),
        ({"clients": {"a": "acme"}}, "clients", "client_ca"),
        ({"tls": TlsSettings(cert="nowhere.pem", key="nowhere.key")}, "tls", "nowhere.pem"),
        ({"timezone": "Mars/Olympus"}, "timezone", "no time zone"),
        ({"record": Size("1B")}, "record", "not between"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, changes: dict[str, Any], key: str, message: str) -> None:
    """Before any socket opens, with the setting at fault."""
    with pytest.raises(ConfigError, match=message) as caught:
        settings(**changes).check(tmp_path)
    assert caught.value.place == key


def test_settings_that_are_fine(tmp_path: Path, authority: Authority, server_pair: Pair) -> None:
    """Loopback needs nothing; outside, TLS or the word `insecure`. UDP beside TLS needs the word too: it is never encrypted."""
    tls = tls_of(server_pair, authority.path)
    settings().check(tmp_path)
    settings(listen="[::1]:514").check(tmp_path)
    settings(listen="0.0.0.0:6514", tls=tls).check(tmp_path)
    settings(listen="0.0.0.0:514", insecure=True, transport=("udp", "tcp")).check(tmp_path)
    settings(clients={"web": "acme"}, tls=tls).check(tmp_path)
    with pytest.raises(ConfigError, match="without TLS"):
        settings(listen="0.0.0.0:6514", tls=tls, transport=("tcp", "udp")).check(tmp_path)
    with pytest.raises(ConfigError, match="anybody"):
        settings(listen="0.0.0.0:6514", tls=tls_of(server_pair)).check(tmp_path)
    with pytest.raises(ConfigError, match="keep one"):
        settings(clients={"web": "acme"}, tls=tls, tenant="acme").check(tmp_path)


def test_names_in_a_certificate() -> None:
    """DNS names first, the common name last."""
    certificate = {
        "subject": ((("organizationName", "x"),), (("commonName", "web-1"),)),
        "subjectAltName": (("email", "a@example.com"), ("IP Address", "192.0.2.1"), ("DNS", "web.example.com"), ("URI", "urn:x")),
    }
    assert certificate_names(certificate) == ["web.example.com", "urn:x", "a@example.com", "192.0.2.1", "web-1"]


async def test_past_the_caps_the_newcomer_is_closed(tmp_path: Path) -> None:
    """Those that are there go on; the closed one is counted; a place that is free again is given."""
    async with listening(tmp_path, connections_per_address=2) as run:
        first = await asyncio.open_connection(*run.address())
        second = await asyncio.open_connection(*run.address())
        await until(lambda: run.page["connections"] == 2, "both to be there")
        third = await asyncio.open_connection(*run.address())
        assert await third[0].read() == b""
        assert run.page["connections_refused"] == {"too_many": 1}
        first[1].write(b"<1>Oct 11 22:14:15 h a: one\n")
        await until(lambda: run.intake.events, "the first one's message")
        second[1].close()
        await until(lambda: run.page["connections"] == 1, "the second to be gone")
        fourth = await asyncio.open_connection(*run.address())
        fourth[1].write(b"<1>Oct 11 22:14:15 h a: four\n")
        await until(lambda: len(run.intake.events) == 2, "the fourth one's message")
        for _, writer in (first, third, fourth):
            writer.close()


async def test_who_brings_nothing_is_closed(tmp_path: Path) -> None:
    """After the idle time, counted."""
    async with listening(tmp_path, idle_time=Duration("200ms")) as run:
        reader, writer = await asyncio.open_connection(*run.address())
        assert await asyncio.wait_for(_closed(reader), 5)
        assert run.page["connections_refused"] == {"idle": 1}
        writer.close()


async def _closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_a_handshake_that_does_not_come_is_given_up(tmp_path: Path, server_pair: Pair) -> None:
    """A silent TLS connection costs a place only for the handshake time."""
    async with listening(tmp_path, tls=tls_of(server_pair), handshake_time=Duration("200ms")) as run:
        reader, writer = await asyncio.open_connection(*run.address())
        await until(lambda: run.page["connections"] == 1, "it to be counted before its handshake")
        assert await asyncio.wait_for(_closed(reader), 5)
        await until(lambda: run.page["connections_refused"] == {"handshake": 1}, "the count")
        assert run.page["connections"] == 0
        writer.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(tmp_path: Path, authority: Authority, server_pair: Pair) -> None:
    """TLS 1.2 is the oldest version that is spoken."""
    context = client_context(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with listening(tmp_path, tls=tls_of(server_pair)) as run:
        with pytest.raises(OSError):
            await send_tls(run, context, b"x\n")
        assert run.intake.events == []


async def test_without_a_client_certificate_nobody_gets_in(tmp_path: Path, authority: Authority, server_pair: Pair) -> None:
    """None, or one of another authority: the handshake fails, and nothing is taken."""
    stranger = Authority(tmp_path, "strangers").issue("web-1")
    async with listening(tmp_path, tls=tls_of(server_pair, authority.path)) as run:
        for pair in (None, stranger):
            try:
                # TLS 1.3 may tell of the refusal only after the first bytes, as an end without an answer.
                assert await send_tls(run, client_context(authority, pair), b"<1>Oct 11 22:14:15 h a: no\n") == b""
            except OSError:
                pass
        await until(lambda: run.page["connections_refused"].get("handshake") == 2, "both to be counted")
        assert run.intake.events == []


async def test_the_certificate_says_who_sends_and_for_which_tenant(tmp_path: Path, authority: Authority, server_pair: Pair) -> None:
    """Each mapped name writes to its tenant under its own credential; a known authority's unmapped name is shown out, counted."""
    clients = {"web-1.example.com": "acme", "db-1": "globex"}
    pairs = [authority.issue("web-1", "web-1.example.com"), authority.issue("db-1"), authority.issue("mallory")]
    async with listening(tmp_path, tls=tls_of(server_pair, authority.path), clients=clients) as run:
        for pair in pairs[:2]:
            await send_tls(run, client_context(authority, pair), b"<1>Oct 11 22:14:15 pretended a: hello\n")
        await until(lambda: len(run.intake.events) == 2, "two messages")
        assert [(one.credential, one.only_tenant) for one in run.intake.senders if one] == [
            ("cert:web-1.example.com", "acme"),
            ("cert:db-1", "globex"),
        ]
        try:
            await send_tls(run, client_context(authority, pairs[2]), b"<1>Oct 11 22:14:15 h a: no\n")
        except OSError:
            pass
        await until(lambda: run.page["connections_refused"].get("client_unknown") == 1, "the unknown name to be counted")
        assert len(run.intake.events) == 2


async def test_a_renewed_certificate_is_used_without_a_restart(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New files serve new connections; files that cannot be loaded leave the old ones in force, and status says so."""
    monkeypatch.setattr("tallystick.sources.tls._LOOK_S", 0.0)
    mine = Authority(tmp_path, "mine")
    pair = mine.issue("server", "localhost")
    async with listening(tmp_path, tls=tls_of(pair)) as run:
        first = await _serial(run, mine)
        os.utime(mine.issue("server", "localhost").cert)
        second = await _serial(run, mine)
        assert first != second
        pair.cert.write_bytes(b"half a certificate")
        assert await _serial(run, mine) == second
        assert run.page["reason"].startswith("tls: ")


async def _serial(run: Running, authority: Authority) -> str:
    reader, writer = await asyncio.open_connection(*run.address(), ssl=client_context(authority), server_hostname="localhost")
    found: dict[str, Any] = writer.get_extra_info("peercert")
    writer.close()
    await reader.read()
    return str(found["serialNumber"])


async def test_an_address_in_use_is_the_reason_why_the_source_fails(tmp_path: Path) -> None:
    """The error names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "{}:{}".format(*taken.getsockname())
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            async with listening(tmp_path, listen=address):
                pass
