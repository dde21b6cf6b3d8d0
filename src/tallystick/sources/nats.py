"""Source type `nats`: a JetStream pull consumer whose messages are acknowledged after the journal has them.

    pull a batch ──► commit (append, fdatasync) ──► acknowledge each, wait for the server's word on the last ──► pull …

- While a commit waits, every message of the batch is marked in progress, so that the server does not give it to anybody else.
- A crash between commit and acknowledgement makes the server deliver the messages again. A message is named by its place in the
  stream, or by its own id, so the repeat is stored once.
- What can never be an event is in the quarantine when the commit returns, and is acknowledged like the rest: it comes once.
- One batch is in memory: what one pull brings, bounded in bytes.
- The consumer numbers its deliveries. When the next delivery is the next number but skips places in the stream, those messages were
  gone before they could be read (aged out, purged, deleted): a `gap` entry. A consumer with a filter skips others' messages, and
  tells nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import nats.errors
import nats.js.errors
from msgspec import Meta, field
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

from tallystick.config.units import Duration, Size
from tallystick.errors import ConfigError, TallystickError
from tallystick.plugin import Intake, Record, SourceContext
from tallystick.sources.kind import NATIVE, MappedSettings, SourceKind
from tallystick.sources.naming import place_id
from tallystick.sources.nats_login import check_login, connect
from tallystick.sources.nats_pull import Puller
from tallystick.sources.plan import SourcePlan
from tallystick.sources.progress import Progress
from tallystick.sources.remote import RemoteTlsSettings
from tallystick.telemetry import log

_WAIT_S = 1.0
_ACK_S = 5.0
_MARKS_PER_WAIT = 3


class NatsSettings(MappedSettings, frozen=True, kw_only=True):
    """`[sources.NAME]` with `type = "nats"`."""

    stream: Annotated[str, Meta(description="JetStream stream to read.", pattern=r"\A[^\s.*>/\\]+\Z")]
    servers: Annotated[tuple[str, ...], Meta(description="URLs, `nats://` or `tls://`, without credentials.", min_length=1)] = (
        "nats://127.0.0.1:4222",
    )
    consumer: Annotated[str, Meta(description="Durable pull consumer; made when it is not there.", pattern=r"\A[^\s.*>/\\]+\Z")] = (
        "tallystick"
    )
    subjects: Annotated[tuple[str, ...], Meta(description="Subjects a new consumer is limited to; absent: all of the stream.")] = ()
    start: Annotated[Literal["earliest", "latest"], Meta(description="Where a new consumer begins.")] = "earliest"
    domain: Annotated[str | None, Meta(description="JetStream domain.")] = None
    user: Annotated[str | None, Meta(description="User name.")] = None
    password: Annotated[str | None, Meta(description="Password of `user`.")] = None
    token: Annotated[str | None, Meta(description="Token, instead of a user.")] = None
    nkey: Annotated[str | None, Meta(description="NKey seed, instead of a user.")] = None
    credentials: Annotated[str | None, Meta(description="Path of a `.creds` file (JWT and seed), instead of a user.")] = None
    tls: Annotated[RemoteTlsSettings | None, Meta(description="TLS; `{}` with the system's CA certificates.")] = None
    insecure: Annotated[bool, Meta(description="Allow a connection in the clear to another machine.")] = False
    batch: Annotated[Size, Meta(description="Bytes of messages in one commit, at most.")] = field(
        default_factory=lambda: Size("4MiB")
    )
    batch_records: Annotated[int, Meta(description="Messages in one commit, at most.", ge=1, le=5_000)] = 1_000
    ack_wait: Annotated[
        Duration, Meta(description="A new consumer delivers again what is neither acknowledged nor marked so long.")
    ] = field(default_factory=lambda: Duration("30s"))

    def check(self, base_dir: Path) -> None:
        """See `SourceSettings`."""
        check_login(self, base_dir)
        if self.ack_wait.seconds < 1:
            raise ConfigError("below one second messages would be delivered again all the time", place="ack_wait")


class ConsumerUnfitError(TallystickError):
    """The stream or the consumer that is there cannot be read without loss."""

    code = "consumer_unfit"


class NatsSource:
    """One run: one connection, one consumer."""

    guarantee: ClassVar[str] = "at least once"
    acknowledges: ClassVar[str] = "each message is acknowledged to JetStream"

    def __init__(self, settings: NatsSettings, context: SourceContext) -> None:
        self._settings = settings
        self._context = context
        self._progress = Progress(context.name)
        self._consumer_seq = 0
        self._stream_seq = 0
        self._is_filtered = False
        self._waiting = 0

    @property
    def _prefix(self) -> str:
        """Where the JetStream API answers."""
        return f"$JS.{self._settings.domain}.API" if self._settings.domain else "$JS.API"

    def status(self) -> Mapping[str, Any]:
        """See `plugin.Source`."""
        facts = {"stream": self._settings.stream, "consumer": self._settings.consumer, "in_hand": self._waiting}
        return {**facts, **self._progress.status()}

    async def run(self, intake: Intake, stop: asyncio.Event) -> None:
        """See `plugin.Source`."""
        client = await connect(self._settings, self._context.name, self._context.base_dir, self._on_error)
        try:
            await self._read(client, intake, stop)
        except (nats.errors.Error, nats.js.errors.Error) as error:
            raise TallystickError(f"the connection to NATS ended: {error or type(error).__name__}") from error
        finally:
            await client.close()

    async def _read(self, client: Client, intake: Intake, stop: asyncio.Event) -> None:
        info = await self._find_consumer(client)
        self._read_info(info)
        puller = Puller(client, self._prefix, self._settings.stream, self._settings.consumer)
        await puller.open()
        mark_every_s = (info.config.ack_wait or 30.0) / _MARKS_PER_WAIT
        while not stop.is_set():
            messages = await puller.pull(self._settings.batch_records, self._settings.batch.bytes, _WAIT_S)
            if messages:
                await self._take(intake, client, messages, mark_every_s)
            else:
                await self._look(client)

    async def _find_consumer(self, client: Client) -> ConsumerInfo:
        """The consumer as it is, made when it is missing. Raises ConsumerUnfitError."""
        one = self._settings
        manager = client.jsm(prefix=self._prefix)
        try:
            info: ConsumerInfo = await manager.consumer_info(one.stream, one.consumer)
        except nats.js.errors.NotFoundError:
            info = await self._add_consumer(manager)
        config = info.config
        if config.deliver_subject is not None or config.ack_policy != AckPolicy.EXPLICIT:
            raise ConsumerUnfitError(f"the consumer {one.consumer!r} must be a pull consumer with explicit acknowledgement")
        if config.max_deliver is not None and config.max_deliver > 0:
            self._progress.reason = f"the consumer {one.consumer!r} gives up a message after {config.max_deliver} deliveries"
        return info

    async def _add_consumer(self, manager: Any) -> ConsumerInfo:
        one = self._settings
        policy = DeliverPolicy.ALL if one.start == "earliest" else DeliverPolicy.NEW
        config = ConsumerConfig(
            durable_name=one.consumer,
            description="Tallystick",
            deliver_policy=policy,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=one.ack_wait.seconds,
            max_deliver=-1,
            max_ack_pending=2 * one.batch_records,
            filter_subjects=list(one.subjects) or None,
        )
        try:
            info: ConsumerInfo = await manager.add_consumer(one.stream, config)
        except nats.js.errors.NotFoundError as error:
            raise ConsumerUnfitError(f"there is no stream {one.stream!r}") from error
        return info

    def _read_info(self, info: ConsumerInfo) -> None:
        self._is_filtered = bool(info.config.filter_subject or info.config.filter_subjects)
        if info.delivered is not None:
            self._consumer_seq, self._stream_seq = info.delivered.consumer_seq, info.delivered.stream_seq
        self._progress.set_lag((info.num_pending or 0) + (info.num_ack_pending or 0))

    async def _look(self, client: Client) -> None:
        """Nothing came: what the server counts, so that status is right in a quiet stream too."""
        try:
            info = await client.jsm(prefix=self._prefix).consumer_info(self._settings.stream, self._settings.consumer)
        except nats.js.errors.NotFoundError as error:
            raise ConsumerUnfitError(f"the consumer {self._settings.consumer!r} was deleted") from error
        except TimeoutError:
            return  # the server is busy; the next look is a second away
        self._progress.set_lag((info.num_pending or 0) + (info.num_ack_pending or 0))

    async def _take(self, intake: Intake, client: Client, messages: Sequence[Msg], mark_every_s: float) -> None:
        """One batch. A crash before the acknowledgement arrives only makes the server deliver again."""
        self._waiting = len(messages)
        try:
            async with self._marked(messages, mark_every_s):
                await self._note_gaps(intake, messages)
                await intake.commit_records([_record(message, line) for line, message in enumerate(messages, 1)])
            await self._acknowledge(client, messages)
        finally:
            self._waiting = 0
        self._progress.set_lag(messages[-1].metadata.num_pending)

    async def _acknowledge(self, client: Client, messages: Sequence[Msg]) -> None:
        """All of them; the server's word on the last says that those before it arrived too."""
        try:
            for message in messages[:-1]:
                await client.publish(message.reply)
            await client.request(messages[-1].reply, timeout=_ACK_S)
        except (nats.errors.Error, TimeoutError) as error:
            log.warning("messages may come again", source=self._context.name, messages=len(messages), error=str(error))
            return
        self._progress.took()

    @asynccontextmanager
    async def _marked(self, messages: Sequence[Msg], every_s: float) -> AsyncIterator[None]:
        """While this is open the server is told that the messages are in work."""
        task = asyncio.create_task(self._mark(messages, every_s))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _mark(self, messages: Sequence[Msg], every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                for message in messages:
                    await message.in_progress()
            except nats.errors.Error as error:  # they may come again, and are stored once all the same
                log.warning("messages could not be marked", source=self._context.name, error=str(error))

    async def _note_gaps(self, intake: Intake, messages: Sequence[Msg]) -> None:
        """See the last point above."""
        repeats = 0
        for message in messages:
            place = message.metadata.sequence
            is_first = message.metadata.num_delivered == 1
            repeats += not is_first
            skipped = place.stream - self._stream_seq - 1
            if is_first and skipped > 0 and place.consumer == self._consumer_seq + 1 and not self._is_filtered and self._stream_seq:
                await self._record_gap(intake, self._stream_seq + 1, place.stream - 1)
            self._consumer_seq = max(self._consumer_seq, place.consumer)
            if is_first:
                self._stream_seq = place.stream
        self._progress.add_repeats(repeats)

    async def _record_gap(self, intake: Intake, first: int, last: int) -> None:
        stream = self._settings.stream
        facts = {"stream": stream, "first": first, "last": last, "count": last - first + 1}
        log.warning("messages were gone before they could be read", source=self._context.name, **facts)
        await intake.record_gap(f"{hashlib.sha256(stream.encode()).hexdigest()[:16]}:{first}-{last}", facts)
        self._progress.add_missing(last - first + 1)

    async def _on_error(self, error: Exception) -> None:
        log.warning("nats", source=self._context.name, error=str(error) or type(error).__name__)


def _record(message: Msg, line: int) -> Record:
    place = message.metadata
    name = place_id(place.stream, str(place.sequence.stream), place.timestamp, message.data)
    return Record(message.data, line, message.subject, name)


def _way(plan: SourcePlan) -> str:
    one = plan.settings
    assert isinstance(one, NatsSettings)
    return f"reads the stream {one.stream} of {', '.join(one.servers)} as consumer {one.consumer}"


KIND = SourceKind(NatsSettings, _way, source=NatsSource, mappings=(NATIVE,))
