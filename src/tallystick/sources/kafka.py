"""Source type `kafka`: topics read as a member of a consumer group, offsets committed after the journal has the records.

    read a batch ──► commit it (append, fdatasync) ──► commit its offsets to Kafka ──► read …

A record is named by topic, partition and offset, or by its own id, so one that is read again (a crash before its offset was
committed, a partition that moved) is stored once. What can never be an event is in the quarantine when the commit returns. While
the journal is slow nothing is fetched, and the member stays in its group.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from confluent_kafka import KafkaException
from msgspec import Meta, field

from tallystick.config.units import Duration, Size
from tallystick.errors import ConfigError
from tallystick.plugin import Intake, Record, SourceContext
from tallystick.sources.kafka_login import SaslSettings, check_servers, login_of
from tallystick.sources.kafka_reader import Held, KafkaReader, KafkaUnavailableError
from tallystick.sources.kind import NATIVE, MappedSettings, SourceKind
from tallystick.sources.naming import place_id
from tallystick.sources.plan import SourcePlan
from tallystick.sources.progress import Progress
from tallystick.sources.remote import RemoteTlsSettings, check_tls
from tallystick.telemetry import log

T = TypeVar("T")

_WAIT_S = 0.5
_KEEP_ALIVE_S = 1.0
_CHECK_S = 5.0


class KafkaSettings(MappedSettings, frozen=True, kw_only=True):
    """`[sources.NAME]` with `type = "kafka"`."""

    topics: Annotated[tuple[str, ...], Meta(description="Topics; one that begins with `^` is a pattern.", min_length=1)]
    servers: Annotated[tuple[str, ...], Meta(description="Brokers to begin with, `host:port`.", min_length=1)] = ("127.0.0.1:9092",)
    group: Annotated[str, Meta(description="Consumer group; its offsets say how far it is.", min_length=1)] = "tallystick"
    start: Annotated[
        Literal["earliest", "latest"], Meta(description="Where a partition begins for which the group has no offset.")
    ] = "earliest"
    sasl: Annotated[SaslSettings | None, Meta(description="Login; absent: none.")] = None
    tls: Annotated[RemoteTlsSettings | None, Meta(description="TLS; `{}` with the system's CA certificates.")] = None
    insecure: Annotated[bool, Meta(description="Allow a connection in the clear to another machine.")] = False
    batch: Annotated[Size, Meta(description="Bytes of records in one commit, at most.")] = field(
        default_factory=lambda: Size("4MiB")
    )
    batch_records: Annotated[int, Meta(description="Records in one commit, at most.", ge=1, le=10_000)] = 2_000
    queue: Annotated[Size, Meta(description="Bytes of records fetched ahead.")] = field(default_factory=lambda: Size("16MiB"))
    session_timeout: Annotated[
        Duration, Meta(description="After so long without a sign of life the group gives our partitions to others.")
    ] = field(default_factory=lambda: Duration("45s"))

    def check(self, base_dir: Path) -> None:
        """See `SourceSettings`."""
        check_servers(self.servers, is_encrypted=self.tls is not None, insecure=self.insecure)
        if self.queue.bytes < 2**20:
            raise ConfigError("one record alone may be a megabyte", place="queue", hint="1MiB or more")
        if self.session_timeout.seconds < 1:
            raise ConfigError("below one second a group never comes to rest", place="session_timeout")
        check_tls(self.tls, base_dir)


def configuration_of(settings: KafkaSettings, name: str, base_dir: Path) -> dict[str, Any]:
    """What librdkafka is told."""
    return {
        **login_of(settings, base_dir),
        "group.id": settings.group,
        "client.id": f"tallystick-{name}",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "session.timeout.ms": int(settings.session_timeout.seconds * 1000),
        "heartbeat.interval.ms": min(3_000, int(settings.session_timeout.seconds * 250)),
        "queued.max.messages.kbytes": settings.queue.bytes // 1024,
        "fetch.queue.backoff.ms": 20,
        "fetch.max.bytes": settings.queue.bytes,
        "log.connection.close": False,
    }


class KafkaSource:
    """One run: one member of the group. librdkafka's calls all happen in one thread of its own."""

    guarantee: ClassVar[str] = "at least once"
    acknowledges: ClassVar[str] = "the group's offsets are committed to Kafka"

    def __init__(self, settings: KafkaSettings, context: SourceContext) -> None:
        self._settings = settings
        self._context = context
        self._progress = Progress(context.name)
        self._reader: KafkaReader | None = None
        self._partitions: dict[str, dict[str, int]] = {}
        self._in_hand = 0
        self._skipped = 0

    def status(self) -> Mapping[str, Any]:
        """See `plugin.Source`."""
        return {
            "group": self._settings.group,
            "partitions": self._partitions,
            "in_hand": self._in_hand,
            "skipped_offsets": self._skipped,
            **self._progress.status(),
        }

    async def run(self, intake: Intake, stop: asyncio.Event) -> None:
        """See `plugin.Source`."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, f"kafka-{self._context.name}") as thread:

            async def call(work: Callable[..., T], *arguments: Any) -> T:
                return await loop.run_in_executor(thread, partial(work, *arguments))

            reader = await call(self._open)
            try:
                await self._read(intake, stop, reader, call)
            finally:
                await asyncio.shield(call(reader.close))

    def _open(self) -> KafkaReader:
        settings = self._settings
        try:
            return KafkaReader(
                self._context.name,
                configuration_of(settings, self._context.name, self._context.base_dir),
                settings.topics,
                start=settings.start,
                batch_bytes=settings.batch.bytes,
                batch_records=settings.batch_records,
            )
        except KafkaException as error:
            raise KafkaUnavailableError(f"the settings are refused: {error.args[0].str()}") from error

    async def _read(self, intake: Intake, stop: asyncio.Event, reader: KafkaReader, call: Callable[..., Any]) -> None:
        loop = asyncio.get_running_loop()
        checked_at = loop.time()
        while not stop.is_set():
            count = await call(reader.read, _WAIT_S)
            await self._note_missing(intake, reader)
            if count:
                await self._take(intake, reader, call)
            elif loop.time() - checked_at > _CHECK_S:
                checked_at = loop.time()
                await call(reader.check)
            self._partitions = await call(reader.positions)
            self._skipped = reader.skipped
            self._progress.reason = reader.problem
            self._progress.set_lag(sum(one["lag"] for one in self._partitions.values()))

    async def _take(self, intake: Intake, reader: KafkaReader, call: Callable[..., Any]) -> None:
        """One batch. While it waits for the journal the group is told every second that we live."""
        records = [_record(held, line) for line, held in enumerate(reader.held, 1)]
        self._in_hand = len(records)
        append = asyncio.ensure_future(intake.commit_records(records))
        append.add_done_callback(lambda done: reader.is_durable.set() if not done.cancelled() and not done.exception() else None)
        try:
            while not append.done():
                await asyncio.wait([append], timeout=_KEEP_ALIVE_S)
                if not append.done():
                    await call(reader.keep_alive)
            await append
        finally:
            append.cancel()
            self._in_hand = 0
        if await call(reader.commit):
            self._progress.took()

    async def _note_missing(self, intake: Intake, reader: KafkaReader) -> None:
        """`gap` entries for what was gone before we could read it; the id makes each one entry, however often it is found."""
        while reader.missing:
            gap = reader.missing[0]
            facts = {**gap._asdict(), "count": gap.last - gap.first + 1}
            log.warning("records were gone before they could be read", source=self._context.name, **facts)
            topic = hashlib.sha256(gap.topic.encode()).hexdigest()[:16]
            await intake.record_gap(f"{topic}:{gap.partition}:{gap.first}-{gap.last}", facts)
            self._progress.add_missing(gap.last - gap.first + 1)
            reader.missing.pop(0)


def _record(held: Held, line: int) -> Record:
    name = place_id(held.topic, f"{held.partition}:{held.offset}", held.moment, held.data)
    return Record(held.data, line, held.topic, name)


def _way(plan: SourcePlan) -> str:
    one = plan.settings
    assert isinstance(one, KafkaSettings)
    return f"reads {', '.join(one.topics)} of {', '.join(one.servers)} as group {one.group}"


KIND = SourceKind(KafkaSettings, _way, source=KafkaSource, mappings=(NATIVE,))
