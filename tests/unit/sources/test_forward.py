"""The forward source over real sockets and an intake in memory."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgpack
import pytest

from support.certificates import Authority
from support.forward_client import ForwardClient, event_time, pack, packed_forward
from support.running import Running, context_of, running, until
from tallystick.config import Duration, Size, TlsSettings, load_config
from tallystick.errors import ConfigError
from tallystick.query.evaluate import compile_query
from tallystick.sources.forward import ForwardSettings, ForwardSource, ForwardUser
from tallystick.sources.plan import build_plans

T = TypeVar("T")
KEY = "a shared key that is long enough"
NOW = event_time(1_768_832_635)


def settings(**changes: Any) -> ForwardSettings:
    return ForwardSettings(**({"listen": "127.0.0.1:0"} | changes))


@asynccontextmanager
async def listening(directory: Path, **changes: Any) -> AsyncIterator[Running]:
    async with running(ForwardSource(settings(**changes), context_of(directory))) as run:
        yield run


async def client_of(run: Running, work: Callable[[ForwardClient], T]) -> T:
    """A client's whole connection, in a thread."""

    def talk() -> T:
        with ForwardClient(run.address()) as client:
            return work(client)

    return await asyncio.to_thread(talk)


def entries(count: int, first: int = 0) -> list[tuple[Any, Any]]:
    return [(NOW, {"n": number}) for number in range(first, first + count)]


def until_closed(work: Callable[[], Any]) -> None:
    """Do it again and again until the server has closed the connection."""
    for _ in range(10_000):
        try:
            work()
        except OSError:
            return
    raise AssertionError("the server did not close the connection")


def ids(run: Running) -> list[Any]:
    return [event.id for event in run.intake.events]


async def test_every_mode(tmp_path: Path) -> None:
    """Message, Forward, PackedForward and CompressedPackedForward bring the same records; each chunk is acknowledged."""

    def talk(client: ForwardClient) -> list[str]:
        client.send(pack(["app", NOW, {"n": 0}]) + pack(["app", 1_768_832_635, {"n": 1}]))
        client.send(pack(["app", NOW, {"n": 2}, {"chunk": "c0"}]))
        client.send(pack(["app", [[NOW, {"n": 3}], [NOW, {"n": 4}]], {"chunk": "c1"}]))
        client.send(packed_forward("app", entries(2, 5), "c2"))
        client.send(packed_forward("app", entries(3, 7), "c3", compressed=True))
        return [client.ack() for _ in range(4)]

    async with listening(tmp_path) as run:
        assert await client_of(run, talk) == ["c0", "c1", "c2", "c3"]
        records = [metadata_of(event.metadata) for event in run.intake.events]
        assert records == [{"tag": "app", "n": number} for number in range(10)]
        assert run.page["chunks_acknowledged"] == 4


def metadata_of(raw: Any) -> Any:
    return json.loads(bytes(raw))


async def test_only_chunks_are_acknowledged_and_only_when_durable(tmp_path: Path) -> None:
    """While the journal does not move there is no acknowledgement; a message without a chunk never gets one."""
    async with listening(tmp_path) as run:
        run.intake.is_open.clear()
        client = await asyncio.to_thread(ForwardClient, run.address())
        client.send(packed_forward("app", entries(3)))
        client.send(packed_forward("app", entries(3), "c1"))
        await until(lambda: run.page["waiting_bytes"] > 6 * 128, "both to be received")
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(client.ack)
        assert run.intake.events == []
        run.intake.is_open.set()
        client.sock.settimeout(10)
        assert await asyncio.to_thread(client.ack) == "c1"
        assert len(run.intake.events) == 6
        client.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(client.ack)
        client.sock.close()


async def test_a_chunk_that_is_sent_again_has_the_same_ids(tmp_path: Path) -> None:
    """Acknowledged again; the ids are the same as before, so that the journal stores it once. Without a chunk there are none."""
    async with listening(tmp_path) as run:
        message = packed_forward("app", entries(3), "c1")
        for _ in range(2):
            assert await client_of(run, lambda client: (client.send(message), client.ack())[1]) == "c1"
        found = ids(run)
        assert found[:3] == found[3:]
        assert len(set(found)) == 3
        await client_of(
            run, lambda client: client.send(packed_forward("app", entries(1)) + packed_forward("app", entries(1), "c2"))
        )
        await until(lambda: len(run.intake.events) == 8, "two more")
        assert not ids(run)[6]
        assert ids(run)[7] not in found


async def test_a_large_chunk_is_cut_and_acknowledged_at_its_end(tmp_path: Path) -> None:
    """Ten thousand records, compressed: several commits, in order, one acknowledgement after the last."""
    async with listening(tmp_path) as run:
        run.intake.delay_s = 0.01
        message = packed_forward("app", entries(10_000), "big", compressed=True)
        assert await client_of(run, lambda client: (client.send(message), client.ack())[1]) == "big"
        assert len(run.intake.commits) > 3
        assert [int(name.rpartition(".")[2]) for name in ids(run)] == list(range(10_000))


async def test_no_more_is_held_than_may_wait(tmp_path: Path) -> None:
    """With the journal standing still, a flood of compressed chunks is not unpacked into memory: it waits, and the sender too."""
    bound = 256 * 1024
    async with listening(tmp_path, waiting=Size("256KiB"), message=Size("64KiB"), batch=Size("64KiB")) as run:
        run.intake.is_open.clear()
        client = ForwardClient(run.address())
        client.sock.setblocking(False)
        message = packed_forward("app", [(NOW, {"text": "x" * 200}) for _ in range(5_000)], "c", compressed=True)
        flood = message * 4_000
        sent, quiet_at = 0, time.monotonic()
        while time.monotonic() - quiet_at < 0.5 and sent < len(flood):
            try:
                sent += client.sock.send(flood[sent : sent + 65_536])
                quiet_at = time.monotonic()
            except BlockingIOError:
                await asyncio.sleep(0.01)
            assert run.page["waiting_bytes"] + run.page["unfinished_bytes"] < 3 * bound
        assert sent < len(flood)
        assert run.page["paused"] == 1
        client.sock.close()


async def test_unfinished_messages_are_bounded_over_all_connections(tmp_path: Path) -> None:
    """Many halves of messages: past the bound the newcomer is closed, and its sender tries again later."""
    async with listening(tmp_path, waiting=Size("64KiB"), message=Size("60KiB")) as run:
        clients = []
        for _ in range(6):
            client = ForwardClient(run.address())
            client.send(pack(["app", b"x" * 50_000, {"chunk": "c"}])[:40_000])
            clients.append(client)
        await until(lambda: run.page["connections_refused"].get("overloaded"), "one to be closed")
        assert run.page["unfinished_bytes"] <= 64 * 1024
        for client in clients:
            client.sock.close()
        await until(lambda: run.page["unfinished_bytes"] == 0, "what they held to be given back")


@pytest.mark.parametrize(
    "message",
    [
        pack([1, 2, {"chunk": "bad"}]),
        pack(["app", b"\xc1\xc1", {"chunk": "bad"}]),
        pack(["app", b"\x1f\x8bno gzip", {"chunk": "bad", "compressed": "gzip"}]),
        pack(["app", b"xxx", {"chunk": "bad", "compressed": "lzma"}]),
        pack(["app", pack([1, {}])[:-1], {"chunk": "bad"}]),
    ],
    ids=["no message", "no msgpack inside", "no gzip", "unknown compression", "cut"],
)
async def test_a_bad_message_goes_to_the_quarantine_and_is_acknowledged(tmp_path: Path, message: bytes) -> None:
    """Sent again it would be no better; the messages after it are taken."""

    def talk(client: ForwardClient) -> list[str]:
        client.send(message + packed_forward("app", entries(1), "good"))
        return [client.ack(), client.ack()]

    async with listening(tmp_path) as run:
        assert await client_of(run, talk) == ["bad", "good"]
        (fault,) = run.intake.faults
        assert (fault.code, fault.record) == ("forward_invalid", message)
        assert len(run.intake.events) == 1


async def test_a_bomb_goes_to_the_quarantine(tmp_path: Path) -> None:
    """A chunk that grows past the limits when it is decompressed is stopped there, and its compressed form kept."""
    message = packed_forward("app", [(NOW, {"z": "0" * 3_000_000})] * 2, "bomb", compressed=True)
    async with running(ForwardSource(settings(), context_of(tmp_path, ratio=20))) as run:
        assert await client_of(run, lambda client: (client.send(message), client.ack())[1]) == "bomb"
        (fault,) = run.intake.faults
        assert (fault.code, fault.record) == ("record_too_large", message)


@pytest.mark.parametrize(("data", "reason"), [(b"\xc1", "not_msgpack"), (pack(["a", b"x" * 100_000]), "message_too_large")])
async def test_what_cannot_be_cut_ends_the_connection(tmp_path: Path, data: bytes, reason: str) -> None:
    """Counted; what came before it is taken and acknowledged."""

    def talk(client: ForwardClient) -> str:
        client.send(packed_forward("app", entries(1), "good"))
        chunk = client.ack()
        client.send(data)
        with pytest.raises(ConnectionError):
            client.receive()
        return chunk

    async with listening(tmp_path, message=Size("64KiB")) as run:
        assert await client_of(run, talk) == "good"
        assert run.page["connections_refused"] == {reason: 1}


async def test_a_heartbeat_and_an_empty_chunk(tmp_path: Path) -> None:
    """nil is no message; a chunk of nothing is acknowledged, for there is nothing to wait for."""

    def talk(client: ForwardClient) -> str:
        client.send(pack(None) + pack(["app", b"", {"chunk": "empty"}]) + pack(None))
        return client.ack()

    async with listening(tmp_path) as run:
        assert await client_of(run, talk) == "empty"
        assert run.intake.events == []


async def test_the_handshake_lets_in_who_knows_the_key(tmp_path: Path) -> None:
    """And the user's tenant is whom the records are for."""
    users = {"edge": ForwardUser(password="swordfish", tenant="acme"), "core": ForwardUser(password="marlin")}

    def talk(client: ForwardClient) -> str:
        assert client.shake_hands(KEY, "edge", "swordfish")[:4] == ["PONG", True, "", "tallystick"]
        client.send(packed_forward("app", entries(1), "c"))
        return client.ack()

    async with listening(tmp_path, shared_key=KEY, users=users) as run:
        assert await client_of(run, talk) == "c"
        (sender,) = run.intake.senders
        assert sender is not None
        assert (sender.credential, sender.only_tenant) == ("user:edge", "acme")


@pytest.mark.parametrize(
    ("key", "user", "password"), [("another key, just as long", "edge", "swordfish"), (KEY, "edge", "wrong"), (KEY, "nobody", "")]
)
async def test_who_does_not_know_it_is_shown_out_and_on_record(tmp_path: Path, key: str, user: str, password: str) -> None:
    """PONG with the reason, the end, a count, and a failed login without any secret; nothing of what was sent is taken."""

    def talk(client: ForwardClient) -> Any:
        pong = client.shake_hands(key, user, password)
        until_closed(lambda: (client.send(packed_forward("app", entries(1), "c")), client.receive()))
        return pong

    async with listening(tmp_path, shared_key=KEY, users={"edge": ForwardUser(password="swordfish")}) as run:
        pong = await client_of(run, talk)
        assert (pong[1], pong[3:]) == (False, ["", ""])
        await until(lambda: run.intake.own_events, "the failed login to be recorded")
        assert run.page["connections_refused"] == {"login": 1}
        assert run.intake.events == []
        event = run.intake.own_events[0]
        assert (event["action"], event["outcome"]) == ("tallystick.login_failed", "denied")
        assert KEY not in str(event)


async def test_nothing_is_taken_before_the_handshake(tmp_path: Path) -> None:
    """Records instead of a PING, a flood of bytes, or silence: the end, counted."""

    def impatient(client: ForwardClient) -> None:
        client.send(packed_forward("app", entries(1), "c"))
        until_closed(client.receive)

    def flood(client: ForwardClient) -> None:
        until_closed(lambda: client.send(b"\xc6\x00\xff\xff\xff" + b"x" * 60_000))

    def silent(client: ForwardClient) -> None:
        until_closed(client.receive)

    async with listening(tmp_path, shared_key=KEY, handshake_time=Duration("300ms")) as run:
        for work in (impatient, flood, silent):
            await client_of(run, work)
        await until(lambda: sum(run.page["connections_refused"].values()) == 3, "three to be counted")
        assert run.intake.events == []


async def test_a_client_that_takes_no_acknowledgements_is_not_read(tmp_path: Path) -> None:
    """Acknowledgements that nobody takes do not pile up: the sender is read only as fast as it listens."""
    async with listening(tmp_path) as run:
        client = ForwardClient(run.address())
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.sock.setblocking(False)
        message = pack(["app", b"", {"chunk": "c" * 1_000}]) * 64
        sent, quiet_at = 0, time.monotonic()
        while time.monotonic() - quiet_at < 0.5 and sent < 64 * 2**20:
            try:
                sent += client.sock.send(message)
                quiet_at = time.monotonic()
            except BlockingIOError:
                await asyncio.sleep(0.01)
        assert sent < 64 * 2**20
        client.sock.close()


async def test_a_stop_leaves_no_acknowledgement_without_its_records(tmp_path: Path) -> None:
    """What was received when the stop comes is made durable and acknowledged, or neither."""
    async with listening(tmp_path) as run:
        run.intake.delay_s = 0.02
        client = ForwardClient(run.address())
        for number in range(20):
            client.send(packed_forward("app", entries(500, number * 500), f"c{number}"))
        await until(lambda: run.intake.events, "the first commit")
        await run.end()
        acknowledged: list[str] = []
        until_closed(lambda: acknowledged.append(client.ack()))
        assert acknowledged == [f"c{number}" for number in range(len(acknowledged))] != []
        assert len(run.intake.events) >= 500 * len(acknowledged)
        client.sock.close()


async def test_over_tls(tmp_path: Path) -> None:
    """The same bytes in TLS, with a client certificate as the sender."""
    authority = Authority(tmp_path)
    server, pair = authority.issue("server", "localhost"), authority.issue("edge-1")
    tls = TlsSettings(cert=str(server.cert), key=str(server.key), client_ca=str(authority.path))
    context = ssl.create_default_context(cafile=str(authority.path))
    context.load_cert_chain(pair.cert, pair.key)
    async with listening(tmp_path, tls=tls, clients={"edge-1": "acme"}) as run:
        reader, writer = await asyncio.open_connection(*run.address(), ssl=context, server_hostname="localhost")
        writer.write(packed_forward("app", entries(3), "c"))
        assert msgpack.unpackb(await reader.read(100)) == {"ack": "c"}
        assert run.intake.senders[0] is not None
        assert run.intake.senders[0].credential == "cert:edge-1"
        writer.close()


async def test_another_mapping_reads_each_record_as_json(tmp_path: Path) -> None:
    """A product's own records, shipped by a collector."""
    async with listening(tmp_path, mapping="github_audit") as run:
        message = packed_forward("gh", [(NOW, {"action": "repo.create", "n": 1}), (NOW, {"action": "repo.destroy"})], "c")
        assert await client_of(run, lambda client: (client.send(message), client.ack())[1]) == "c"
        assert [record.data for record in run.intake.records] == [b'{"action":"repo.create","n":1}', b'{"action":"repo.destroy"}']
        assert [record.id.rpartition(".")[2] for record in run.intake.records] == ["0", "1"]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"shared_key": "short"}, "shared_key"),
        ({"users": {"a": ForwardUser(password="x")}}, "users"),
        ({"shared_key": KEY, "tenant": "t", "users": {"a": ForwardUser(password="x", tenant="u")}}, "users.a"),
        ({"listen": "0.0.0.0:24224"}, "listen"),
        ({"listen": "0.0.0.0:24224", "shared_key": KEY}, "listen"),
        ({"message": Size("1B")}, "message"),
        ({"message": Size("1GiB")}, "message"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, changes: dict[str, Any], place: str) -> None:
    """Before any port opens, with the setting at fault."""
    with pytest.raises(ConfigError) as caught:
        settings(**changes).check(tmp_path)
    assert caught.value.place == place


def test_secrets_are_named_instead_of_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also inside of `users`; one that is missing is refused with its line."""
    monkeypatch.setenv("FORWARD_KEY", KEY)
    monkeypatch.setenv("EDGE_PASSWORD", "swordfish")
    path = tmp_path / "tallystick.toml"
    text = (
        '[sources.fluent]\ntype = "forward"\nlisten = "127.0.0.1:24224"\nshared_key = { env = "FORWARD_KEY" }\n'
        'users.edge = { password = { env = "EDGE_PASSWORD" }, tenant = "acme" }\n'
    )
    path.write_text(text)
    found = build_plans(load_config(path), compile_query)["fluent"].settings
    assert isinstance(found, ForwardSettings)
    assert (found.shared_key, found.users["edge"].password) == (KEY, "swordfish")
    path.write_text(text.replace("EDGE_PASSWORD", "NOT_SET_ANYWHERE"))
    with pytest.raises(ConfigError, match=r"NOT_SET_ANYWHERE.*tallystick\.toml:5"):
        build_plans(load_config(path), compile_query)
