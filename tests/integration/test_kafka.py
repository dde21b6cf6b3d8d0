"""The source `kafka` against a real broker: offsets, rebalances, gaps, logins; and in a whole server, killed while it reads."""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.kafka_broker import PASSWORD, USER, KafkaBroker
from support.ledger import CONFIGURATION, Ledger
from support.queues import exported, kill_while_reading
from support.server import Server, wait_for
from tallystick.config.settings import IngestLimits
from tallystick.config.units import Duration, Size
from tallystick.errors import TallystickError
from tallystick.plugin import SourceContext
from tallystick.sources.kafka import KafkaSettings, KafkaSource
from tallystick.sources.kafka_login import SaslSettings
from tallystick.sources.remote import RemoteTlsSettings
from tallystick.testing.source import MemoryIntake

PAGE = (Path(__file__).parents[2] / "docs" / "sources" / "kafka.md").read_text("utf-8")
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


class Rig:
    """One topic of its own, and sources that read it as one group."""

    def __init__(self, broker: KafkaBroker, topic: str) -> None:
        self.broker, self.topic, self.group = broker, topic, f"g-{topic}"
        self.intake = MemoryIntake()

    def offset(self, partition: int = 0) -> int:
        return self.broker.committed(self.group, self.topic, partition)

    @asynccontextmanager
    async def source(
        self, intake: MemoryIntake | None = None, *, is_ending: bool = False, **options: Any
    ) -> AsyncIterator[KafkaSource]:
        """A run of the source; ``is_ending``: it will end by itself."""
        chosen = {"topics": (self.topic,), "servers": (self.broker.address,), "group": self.group, **options}
        context = SourceContext("queue", self.broker.directory, self.broker.directory / "state", IngestLimits())
        source, stop = KafkaSource(KafkaSettings(**chosen), context), asyncio.Event()
        task = asyncio.create_task(source.run(intake or self.intake, stop))
        try:
            yield source
            if is_ending:
                await task
        finally:
            self.intake.is_open.set()  # so that a test that failed ends
            stop.set()
            await task

    async def until(self, condition: Callable[[], Any], seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(0.02)


@pytest.fixture
def rig(kafka_broker: KafkaBroker) -> Rig:
    return Rig(kafka_broker, kafka_broker.new_topic())


def bodies(count: int, first: int = 0) -> list[bytes | None]:
    return [b'{"n":%d}' % n for n in range(first, first + count)]


async def test_offsets_are_committed_after_the_commit(rig: Rig) -> None:
    """While the intake waits the group's offset stays; then it is behind the last record. Records have topic and place."""
    rig.broker.send(rig.topic, bodies(5))
    rig.intake.is_open.clear()
    async with rig.source() as source:
        await rig.until(lambda: source.status()["in_hand"] == 5)
        assert rig.offset() == 0
        rig.intake.is_open.set()
        await rig.until(lambda: rig.offset() == 5)
        await rig.until(lambda: source.status()["last_success"])
        await rig.until(lambda: source.status()["lag"] == 0)
        assert source.status()["partitions"] == {f"{rig.topic}:0": {"next": 5, "lag": 0}}
    assert [record.data for record in rig.intake.records] == bodies(5)
    assert rig.intake.records[3].peer == rig.topic
    assert re.fullmatch(rf"{rig.topic}:0:3\.[0-9a-f]{{12}}", rig.intake.records[3].id)


async def test_what_was_not_committed_is_read_again_with_the_same_id(rig: Rig) -> None:
    """A run is cancelled with records in hand: the next reads them again, under the ids they had."""
    rig.broker.send(rig.topic, bodies(3))
    stuck, names = MemoryIntake(), []
    stuck.is_open.clear()
    stuck.is_stopping = False
    settings = KafkaSettings(topics=(rig.topic,), servers=(rig.broker.address,), group=rig.group)
    source = KafkaSource(settings, SourceContext("queue", Path(), Path(), IngestLimits()))
    task = asyncio.create_task(source.run(stuck, asyncio.Event()))
    await rig.until(lambda: source.status()["in_hand"] == 3)
    task.cancel()
    await asyncio.wait([task])
    for _ in range(2):
        async with rig.source():
            await rig.until(lambda: rig.offset() == 3)
    names = [record.id for record in rig.intake.records]
    assert len(names) == len(set(names)) == 3


async def test_partitions_that_move_lose_nothing(rig: Rig) -> None:
    """A second member joins while the first waits for its journal: what becomes durable is committed, the rest read by its owner."""
    rig.broker.grow(rig.topic, 4)
    for partition in range(4):
        rig.broker.send(rig.topic, bodies(50, 1000 * partition), partition)
    other = MemoryIntake()
    rig.intake.is_open.clear()
    async with rig.source(batch_records=60) as first:
        await rig.until(lambda: first.status()["in_hand"] > 0)
        async with rig.source(other, batch_records=60) as second:
            await rig.until(lambda: len(second.status()["partitions"]) == 2, 60)
            rig.intake.is_open.set()
            await rig.until(lambda: all(rig.offset(partition) == 50 for partition in range(4)), 60)
            assert len(first.status()["partitions"]) == 2
    found = [record.id for record in [*rig.intake.records, *other.records]]
    assert len(set(found)) == 200
    assert len(found) <= 260  # the batch in hand may have been read by its new owner too, under the same ids


async def test_a_slow_journal_costs_no_membership(rig: Rig) -> None:
    """A commit takes longer than the group waits for a sign of life, and nothing is read twice."""
    rig.broker.send(rig.topic, bodies(4))
    rig.intake.delay_s = 4.0
    async with rig.source(session_timeout=Duration("2s")):
        await rig.until(lambda: rig.offset() == 4)
    assert rig.intake.commits == [4]


async def test_memory_is_bounded_while_the_intake_waits(rig: Rig) -> None:
    """60 MB wait in Kafka and nothing can be committed: the process holds one batch and the queue, and not more."""
    rig.broker.send(rig.topic, [bytes(60_000)] * 1_000)
    rig.intake.is_open.clear()
    before = resident_bytes()
    async with rig.source(batch=Size("1MiB"), queue=Size("2MiB")) as source:
        await rig.until(lambda: source.status()["in_hand"])
        await asyncio.sleep(2.0)
        assert source.status()["in_hand"] <= 40
        assert resident_bytes() - before < 32 * 2**20
        rig.intake.is_open.set()
        await rig.until(lambda: rig.offset() == 1_000, 60)
    assert len(rig.intake.records) == 1_000


async def test_the_end_may_be_the_beginning(rig: Rig) -> None:
    """`start = "latest"`: what is there stays unread, and the place is kept from then on, though nothing was read yet."""
    rig.broker.send(rig.topic, bodies(3))
    async with rig.source(start="latest"):
        await rig.until(lambda: rig.offset() == 3)
    rig.broker.send(rig.topic, bodies(1, 77))
    async with rig.source(start="latest"):
        await rig.until(lambda: rig.intake.records)
    assert [record.data for record in rig.intake.records] == [b'{"n":77}']


async def test_records_that_aged_out_unread_are_a_gap(rig: Rig) -> None:
    """The account gets the range; reading goes on at the oldest record. A topic made anew is a gap too, and is read from its start."""
    rig.broker.send(rig.topic, bodies(2))
    async with rig.source():
        await rig.until(lambda: rig.offset() == 2)
    rig.broker.send(rig.topic, bodies(5, 2))
    rig.broker.delete_before(rig.topic, 6)
    async with rig.source() as source:
        await rig.until(lambda: rig.offset() == 7)
        assert source.status()["missing"] == 4
    (gap,) = rig.intake.gaps.values()
    assert (gap["topic"], gap["partition"], gap["first"], gap["last"], gap["count"]) == (rig.topic, 0, 2, 5, 4)
    assert rig.intake.records[-1].data == b'{"n":6}'


async def test_offsets_of_transactions_are_no_gap(rig: Rig) -> None:
    """Each transaction ends with a mark that takes an offset: counted, and no gap."""
    for number in range(3):
        rig.broker.send(rig.topic, bodies(2, 10 * number), transaction="t")
    async with rig.source() as source:
        await rig.until(lambda: len(rig.intake.records) == 6)
        await rig.until(lambda: source.status()["skipped_offsets"] == 2)
    assert rig.intake.gaps == {}


async def test_a_tombstone_is_an_empty_record(rig: Rig) -> None:
    """It reaches the intake as it is, and its offset is committed."""
    rig.broker.send(rig.topic, [b"x", None])
    async with rig.source():
        await rig.until(lambda: rig.offset() == 2)
    assert [record.data for record in rig.intake.records] == [b"x", b""]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_login_over_tls(rig: Rig, mechanism: Any) -> None:
    """With the right password and CA it reads; with a wrong password, or a CA that is not the broker's, status says why it does not."""
    rig.broker.send(rig.topic, bodies(1))
    secure = {"servers": (rig.broker.secure_address,), "tls": RemoteTlsSettings(ca="ca.pem", cert="client.pem", key="client.key")}
    login = SaslSettings(mechanism=mechanism, user=USER, password=PASSWORD)
    async with rig.source(sasl=login, **secure):
        await rig.until(lambda: rig.offset() == 1)
    with pytest.raises(TallystickError, match=r"(?i)authentication"):
        async with rig.source(is_ending=True, sasl=SaslSettings(mechanism=mechanism, user=USER, password="wrong"), **secure):
            pass
    foreign = {**secure, "tls": RemoteTlsSettings(ca="client.pem")}
    async with rig.source(sasl=login, **foreign) as source:
        await rig.until(lambda: source.status()["reason"])


async def test_a_topic_that_is_not_there_ends_the_run(rig: Rig) -> None:
    """With Kafka's words for it."""
    with pytest.raises(TallystickError, match=r"(?i)unknown topic"):
        async with rig.source(is_ending=True, topics=("nowhere",)):
            pass


def test_the_pages_configurations_read_topics(make_server: Callable[..., Server], kafka_broker: KafkaBroker) -> None:
    """Both tables at once: in the clear, and over TLS with a login; the broken record is in the quarantine."""
    topics = [kafka_broker.new_topic(), kafka_broker.new_topic()]
    good = b'{"action":"invoice.approve","actor":"u_1"}'
    kafka_broker.send(topics[0], [good, b"{broken", None, good])
    kafka_broker.send(topics[1], [good])
    text = (
        (TOML[0] + TOML[1]).replace("127.0.0.1:9092", kafka_broker.address).replace("127.0.0.1:9093", kafka_broker.secure_address)
    )
    text = text.replace('"orders"]', f'"{topics[0]}"]').replace('"payments"]', f'"{topics[1]}"]')
    server = make_server(text)
    (server.directory / "ca.pem").write_bytes((kafka_broker.directory / "ca.pem").read_bytes())
    server.environment["KAFKA_PASSWORD"] = PASSWORD
    server.start()
    wait_for(lambda: server.status()["sources"]["orders"]["accepted"] == 2, f"the events: {server.status()['sources']}", 60)
    wait_for(lambda: server.status()["sources"]["payments"]["accepted"] == 1, "the event over TLS", 60)
    assert server.status()["sources"]["orders"]["quarantined"] == 2
    wait_for(lambda: kafka_broker.committed("tallystick", topics[0]) == 4, "the offset")
    server.drain(2, "acme")
    ids = [str(one["id"]) for one in exported(server) if one["tenant"] == "acme"]
    assert [name.rpartition(".")[0] for name in ids] == [f"{topics[0]}:0:0", f"{topics[0]}:0:3"]


@pytest.mark.timeout(240)
def test_kills_while_reading_lose_and_repeat_nothing(make_server: Callable[..., Server], kafka_broker: KafkaBroker) -> None:
    """kill -9 four times while 10,000 events are read: each is there once, in order, and verify passes."""
    topic = kafka_broker.new_topic()
    table = TOML[0].replace("127.0.0.1:9092", kafka_broker.address).replace('"orders"]', f'"{topic}"]')
    table = table.replace('tenant = "acme"', 'batch_records = 100\nsession_timeout = "2s"').replace('"tallystick"', f'"g-{topic}"')
    server = make_server(CONFIGURATION + table)
    kill_while_reading(server, Ledger(), lambda found: kafka_broker.send(topic, found), "orders", 11)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
