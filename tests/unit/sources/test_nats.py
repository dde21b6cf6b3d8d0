"""The source `nats` against a real server with JetStream, and an intake with dials."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import nkeys
import pytest
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from support.certificates import Authority
from support.nats_server import NatsServer, publish
from tallystick.config.settings import IngestLimits
from tallystick.config.units import Duration, Size
from tallystick.errors import ConfigError, TallystickError
from tallystick.plugin import SourceContext
from tallystick.sources.nats import ConsumerUnfitError, NatsSettings, NatsSource
from tallystick.sources.remote import RemoteTlsSettings
from tallystick.testing.source import MemoryIntake


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats")).start()
    yield server
    server.close()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Rig:
    """One stream of its own, and the source that reads it."""

    def __init__(self, server: NatsServer, client: Any, stream: str, tmp_path: Path) -> None:
        self.server, self.client, self.stream, self.tmp_path = server, client, stream, tmp_path
        self.manager = client.jsm()
        self.intake = MemoryIntake()

    async def publish(self, *bodies: bytes) -> None:
        await publish(self.client, f"{self.stream}.a", bodies)

    async def info(self) -> Any:
        return await self.manager.consumer_info(self.stream, "tallystick")

    @asynccontextmanager
    async def source(self, *, is_ending: bool = False, **options: Any) -> AsyncIterator[NatsSource]:
        """A run of the source; ``is_ending``: it will end by itself."""
        settings = NatsSettings(**{"stream": self.stream, "servers": (self.server.url,), **options})
        context = SourceContext("queue", self.tmp_path, self.tmp_path / "state", IngestLimits())
        source, stop = NatsSource(settings, context), asyncio.Event()
        task = asyncio.create_task(source.run(self.intake, stop))
        try:
            yield source
            if is_ending:
                await task
        finally:
            self.intake.is_open.set()  # so that a test that failed ends
            stop.set()
            await task

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_acknowledged(self, count: int) -> None:
        async with asyncio.timeout(20):
            while await self._acknowledged() < count:
                await asyncio.sleep(0.01)

    async def _acknowledged(self) -> int:
        try:
            return int((await self.info()).ack_floor.stream_seq)
        except NotFoundError:
            return 0


@pytest.fixture
async def rig(server: NatsServer, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    client = await nats.connect(server.url)
    stream = request.node.name[-40:].replace("[", "_").replace("]", "")
    await client.jsm().add_stream(name=stream, subjects=[f"{stream}.>"])
    yield Rig(server, client, stream, tmp_path)
    await client.jsm().delete_stream(stream)
    await client.close()


async def test_messages_are_acknowledged_after_the_commit(rig: Rig) -> None:
    """While the intake waits none is; then all are. Each record has the subject as peer and its place as id."""
    bodies = [b'{"n":%d}' % n for n in range(5)]
    await rig.publish(*bodies)
    rig.intake.is_open.clear()
    async with rig.source() as source:
        await rig.until(lambda: source.status()["in_hand"] == 5)
        assert (await rig.info()).num_ack_pending == 5
        rig.intake.is_open.set()
        await rig.until_acknowledged(5)
        await rig.until(lambda: source.status()["last_success"])
        assert source.status()["lag"] == 0
    assert [record.data for record in rig.intake.records] == bodies
    assert rig.intake.records[2].peer == f"{rig.stream}.a"
    assert rig.intake.records[2].id.startswith(f"{rig.stream}:3.")


async def test_a_slow_journal_is_no_reason_to_deliver_again(rig: Rig) -> None:
    """Three times the time to acknowledge pass before the commit is through: nothing came twice."""
    await rig.publish(b"1", b"2")
    rig.intake.delay_s = 3.0
    async with rig.source(ack_wait=Duration("1s")) as source:
        await rig.until_acknowledged(2)
        assert source.status()["repeats"] == 0
    assert len(rig.intake.records) == 2


async def test_what_was_not_acknowledged_comes_again_with_the_same_id(rig: Rig) -> None:
    """A run is cancelled with messages in hand; the next one gets them again, under the ids they had."""
    await rig.publish(b"1", b"2")
    rig.intake.is_open.clear()
    settings = NatsSettings(stream=rig.stream, servers=(rig.server.url,), ack_wait=Duration("1s"))
    context = SourceContext("queue", rig.tmp_path, rig.tmp_path / "state", IngestLimits())
    first = NatsSource(settings, context)
    task = asyncio.create_task(first.run(rig.intake, asyncio.Event()))
    await rig.until(lambda: first.status()["in_hand"] == 2)
    task.cancel()
    await asyncio.wait([task])
    rig.intake.is_open.set()
    async with rig.source(ack_wait=Duration("1s")) as source:
        await rig.until(lambda: len(rig.intake.records) == 2)
        assert source.status()["repeats"] == 2
    assert [record.id.partition(".")[0] for record in rig.intake.records] == [f"{rig.stream}:1", f"{rig.stream}:2"]


async def test_a_batch_is_bounded_in_bytes_and_in_messages(rig: Rig) -> None:
    """Large messages come in several commits, and one above the bound comes alone."""
    await rig.publish(*[b"x" * 40_000] * 6, b"y" * 200_000, b"z")
    async with rig.source(batch=Size("100KiB"), batch_records=3):
        await rig.until_acknowledged(8)
    assert len(rig.intake.records) == 8
    assert rig.intake.records[6].data == b"y" * 200_000
    assert max(rig.intake.commits) <= 2


async def test_memory_is_bounded_while_the_intake_waits(rig: Rig) -> None:
    """48 MB wait in the stream and nothing can be committed: one batch is in hand, and the process grows by no more than a few."""
    await rig.publish(*[bytes(50_000)] * 1_000)
    rig.intake.is_open.clear()
    before = resident_bytes()
    async with rig.source(batch=Size("1MiB")) as source:
        await rig.until(lambda: source.status()["in_hand"])
        await asyncio.sleep(1.0)
        assert source.status()["in_hand"] <= 20
        assert source.status()["lag"] == 1_000
        assert resident_bytes() - before < 16 * 2**20
        rig.intake.is_open.set()
        await rig.until_acknowledged(1_000)


async def test_a_new_consumer_may_begin_at_the_end(rig: Rig) -> None:
    """`start = "latest"`: what is there stays unread; the consumer keeps its place, so a later run reads on."""
    await rig.publish(b"old")
    async with rig.source(start="latest") as source:
        await rig.until(lambda: source.status()["lag"] == 0)
    await rig.publish(b"while it was away")
    async with rig.source(start="latest"):
        await rig.until(lambda: rig.intake.records)
    assert [record.data for record in rig.intake.records] == [b"while it was away"]


async def test_messages_that_aged_out_unread_are_a_gap(rig: Rig) -> None:
    """Pushed out of the stream while the source was away: the account gets the range, status the number; a filtered consumer claims nothing."""
    await rig.publish(b"1")
    async with rig.source():
        await rig.until_acknowledged(1)
    await rig.manager.update_stream(name=rig.stream, subjects=[f"{rig.stream}.>"], max_msgs=1)
    await rig.publish(b"2", b"3", b"4")
    async with rig.source() as source:
        await rig.until(lambda: len(rig.intake.records) == 2)
        await rig.until(lambda: source.status()["missing"] == 2)
    (gap,) = rig.intake.gaps.values()
    assert gap == {"stream": rig.stream, "first": 2, "last": 3, "count": 2}


async def test_a_filter_limits_what_is_read_and_claims_no_gaps(rig: Rig) -> None:
    """Others' subjects are skipped places in the stream, and nothing is missing."""
    for subject in ("a", "b", "b", "a"):
        await publish(rig.client, f"{rig.stream}.{subject}", [subject.encode()])
    async with rig.source(subjects=(f"{rig.stream}.a",)) as source:
        await rig.until(lambda: len(rig.intake.records) == 2)
        assert source.status()["missing"] == 0
    assert rig.intake.gaps == {}


async def test_a_consumer_that_would_lose_messages_is_not_used(rig: Rig) -> None:
    """One without explicit acknowledgement is refused with words; one that gives up after some deliveries is named in status."""
    await rig.manager.add_consumer(rig.stream, ConsumerConfig(durable_name="none", ack_policy="none"))
    with pytest.raises(ConsumerUnfitError, match="explicit"):
        async with rig.source(is_ending=True, consumer="none"):
            pass
    await rig.manager.add_consumer(rig.stream, ConsumerConfig(durable_name="three", ack_policy="explicit", max_deliver=3))
    async with rig.source(consumer="three") as source:
        await rig.until(lambda: "3 deliveries" in source.status()["reason"])
    with pytest.raises(ConsumerUnfitError, match="no stream"):
        async with rig.source(is_ending=True, stream="nowhere"):
            pass


async def test_a_deleted_consumer_ends_the_run_and_the_next_makes_it_anew(rig: Rig) -> None:
    """The run says why it ended; the next one reads from the start, where repeats are merged by id."""
    await rig.publish(b"1")

    async def delete() -> None:
        async with rig.source(is_ending=True):
            await rig.until_acknowledged(1)
            await rig.manager.delete_consumer(rig.stream, "tallystick")

    with pytest.raises(TallystickError, match="consumer"):
        await delete()
    async with rig.source():
        await rig.until(lambda: len(rig.intake.records) == 2)
    assert rig.intake.records[0].id == rig.intake.records[1].id


async def test_a_broker_that_goes_away_ends_the_run_and_the_next_reads_on(tmp_path: Path) -> None:
    """The broker is killed: the run ends with words; once it is back the next one has all that the broker has on disk, once."""
    server = NatsServer(tmp_path).start()
    client = await nats.connect(server.url)
    await client.jsm().add_stream(name="s", subjects=["s.>"])
    rig = Rig(server, client, "s", tmp_path)

    async def kill() -> None:
        async with rig.source(is_ending=True):
            await rig.publish(b"1")
            await rig.until_acknowledged(1)
            await client.close()
            server.kill()

    try:
        with pytest.raises(TallystickError, match="connection to NATS ended"):
            await kill()
        with pytest.raises(TallystickError, match="no connection"):
            async with rig.source(is_ending=True):
                pass
        server.start()
        rig.client = await nats.connect(server.url)
        await rig.publish(b"2")
        async with rig.source():
            await rig.until(lambda: len(rig.intake.records) == 2)
        await rig.client.close()
    finally:
        server.close()


@pytest.mark.parametrize("way", ["user", "token", "nkey", "tls"])
async def test_every_way_to_log_in(tmp_path: Path, way: str) -> None:
    """User and password, token, NKey and mutual TLS, each against a server that asks for it; without it the run fails with words."""
    configuration, login, own = {
        "user": ('authorization { user: "u", password: "p" }', {"user": "u", "password": "p"}, {}),
        "token": ('authorization { token: "t0ken" }', {"token": "t0ken"}, {}),
        "nkey": ("", {}, {}),
        "tls": ('tls { cert_file: "server.pem", key_file: "server.key", ca_file: "ca.pem", verify: true }', {}, {}),
    }[way]
    if way == "nkey":
        seed = b"SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU"
        public = nkeys.from_seed(bytearray(seed)).public_key.decode()
        configuration, login = f'authorization {{ users: [{{ nkey: "{public}" }}] }}', {"nkey": seed.decode()}
        own = {"nkeys_seed_str": seed.decode()}
    if way == "tls":
        authority = Authority(tmp_path)
        authority.issue("server", "127.0.0.1")
        authority.issue("client", "tallystick")
        configuration = configuration.replace('file: "', f'file: "{tmp_path}/')
        tls = RemoteTlsSettings(ca="ca.pem", cert="client.pem", key="client.key")
        login = {"tls": tls}
        from tallystick.sources.remote import client_context

        own = {"tls": client_context(tls, tmp_path)}
    server = NatsServer(tmp_path, configuration).start()
    client = await nats.connect(server.url, **(own or login))
    try:
        await client.jsm().add_stream(name="s", subjects=["s.>"])
        rig = Rig(server, client, "s", tmp_path)
        await rig.publish(b"1")
        async with rig.source(**login):
            await rig.until_acknowledged(1)
        with pytest.raises(TallystickError, match="no connection to"):
            async with rig.source(is_ending=True):
                pass
    finally:
        await client.close()
        server.close()


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"user": "u", "token": "t"}, "token"),
        ({"credentials": "missing.creds"}, "credentials"),
        ({"ack_wait": Duration("100ms")}, "ack_wait"),
        ({"servers": ("http://127.0.0.1:1",)}, "servers"),
        ({"servers": ("nats://u:p@127.0.0.1:1",)}, "servers"),
        ({"servers": ("nats://broker.example.com:4222",)}, "servers"),
        ({"tls": RemoteTlsSettings(ca="missing.pem")}, "tls"),
        ({"tls": RemoteTlsSettings(cert="a.pem")}, "tls"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, options: dict[str, Any], place: str) -> None:
    """Each with the name of the setting at fault."""
    with pytest.raises(ConfigError) as caught:
        NatsSettings(stream="s", **options).check(tmp_path)
    assert caught.value.place == place


def test_another_machine_is_allowed_over_tls_or_by_the_word(tmp_path: Path) -> None:
    """TLS by URL or table, or `insecure = true`."""
    for options in ({"servers": ("tls://b.example.com",)}, {"tls": RemoteTlsSettings()}, {"insecure": True}):
        NatsSettings(**{"stream": "s", "servers": ("nats://b.example.com",), **options}).check(tmp_path)
