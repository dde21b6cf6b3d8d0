"""Source type `s3`: objects of buckets, which an SQS queue tells of; a message is deleted after the journal has its objects.

    receive one message ──► for each object: read a piece ──► commit (append, fdatasync) ──► next piece … ──► delete the message

- While objects are read, the message is hidden anew three times in every `visibility`.
- A crash before the deletion makes the queue give the message again when its time is over. A record is named by its place in its
  object, or by its own id, so what had been stored is stored once.
- An object that cannot be had for now (no permission, no answer) leaves its message to the queue, and so to its redrive policy.
- What can never be read is in the quarantine when the message is deleted; an object that is gone is a `gap` entry.
- `workers` messages are in work at once, each with one piece in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, field
from obstore.store import S3Store
from prometheus_client import Counter

from tallystick.config.units import Duration, Size
from tallystick.errors import ConfigError
from tallystick.plugin import Decoded, Fault, Intake, Record, SourceContext
from tallystick.protocols.s3_notice import ObjectName, UnreadableNoticeError, read_notice
from tallystick.sources.kind import NATIVE, MappedSettings, SourceKind
from tallystick.sources.naming import place_id
from tallystick.sources.plan import SourcePlan
from tallystick.sources.progress import Progress
from tallystick.sources.remote import require_safe
from tallystick.sources.s3_object import (
    Format,
    ObjectGoneError,
    ObjectLimits,
    ObjectUnavailableError,
    Piece,
    RangeFile,
    read_pieces,
)
from tallystick.sources.s3_queue import AwsCredentials, Message, Queue, QueueError, region_of
from tallystick.telemetry import log

_WAIT_S = 20
_LOOK_S = 15.0
_HOLDS_PER_VISIBILITY = 3
_VISIBILITY_MAX_S = 43_200
_STORE_S = "30s"

_OBJECTS = Counter("tallystick_s3_objects", "Objects that were read to their end.", ["source"])
_BYTES = Counter("tallystick_s3_bytes", "Bytes of records read from objects.", ["source"])
_LEFT = Counter("tallystick_s3_messages_left", "Messages left to the queue because an object could not be had.", ["source"])


class S3Settings(MappedSettings, frozen=True, kw_only=True):
    """`[sources.NAME]` with `type = "s3"`."""

    queue: Annotated[str, Meta(description="URL of the SQS queue that gets the notifications.")]
    region: Annotated[str | None, Meta(description="AWS region; absent: the one in the queue's URL.")] = None
    buckets: Annotated[tuple[str, ...], Meta(description="Buckets that messages may name; absent: any.")] = ()
    exclude: Annotated[tuple[str, ...], Meta(description="Patterns (`*`, `?`) of keys to leave out.")] = ()
    format: Annotated[
        Format,
        Meta(description="What objects hold: `lines`, `records` (arrays, CloudTrail's files), `parquet`; `auto` looks at each."),
    ] = "auto"
    endpoint: Annotated[str | None, Meta(description="URL of an S3 that is not AWS's.")] = None
    access_key_id: Annotated[str | None, Meta(description="Access key; absent: what AWS's own chain finds.")] = None
    secret_access_key: Annotated[str | None, Meta(description="Secret of `access_key_id`.")] = None
    session_token: Annotated[str | None, Meta(description="Token of temporary keys.")] = None
    insecure: Annotated[bool, Meta(description="Allow connections in the clear to another machine.")] = False
    visibility: Annotated[Duration, Meta(description="A message in work is hidden so long, and anew while it is worked on.")] = (
        field(default_factory=lambda: Duration("5m"))
    )
    workers: Annotated[int, Meta(description="Messages in work at once.", ge=1, le=32)] = 4
    object_max: Annotated[Size, Meta(description="Largest content of an object, decompressed.")] = field(
        default_factory=lambda: Size("2GiB")
    )
    record_max: Annotated[Size, Meta(description="Longest record.")] = field(default_factory=lambda: Size("1MiB"))
    batch: Annotated[Size, Meta(description="Bytes of records in one commit.")] = field(default_factory=lambda: Size("4MiB"))
    batch_records: Annotated[int, Meta(description="Records in one commit, at most.", ge=1, le=5_000)] = 1_000

    def check(self, base_dir: Path) -> None:
        """See `SourceSettings`."""
        for name, url in (("queue", self.queue), ("endpoint", self.endpoint)):
            if url is None:
                continue
            parts = urlsplit(url)
            if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
                raise ConfigError(
                    f"{url} is no URL of it", place=name, hint="As in https://sqs.eu-central-1.amazonaws.com/1234/audit"
                )
            require_safe(parts.hostname, is_encrypted=parts.scheme == "https", insecure=self.insecure, place=name)
        if self.region is None and region_of(self.queue) is None:
            raise ConfigError("the queue's URL names no region", place="region", hint='As in region = "eu-central-1"')
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ConfigError("`access_key_id` and `secret_access_key` belong together", place="access_key_id")
        if not 1 <= self.visibility.seconds <= _VISIBILITY_MAX_S:
            raise ConfigError("it is between one second and twelve hours", place="visibility")

    @property
    def home(self) -> str:
        """The queue's region."""
        return self.region or region_of(self.queue) or ""


class S3Source:
    """One run: one queue, some workers."""

    guarantee: ClassVar[str] = "at least once"
    acknowledges: ClassVar[str] = "each message is deleted from the queue"

    def __init__(self, settings: S3Settings, context: SourceContext) -> None:
        self._settings = settings
        self._context = context
        self._progress = Progress(context.name)
        self._credentials = AwsCredentials(settings.access_key_id, settings.secret_access_key, settings.session_token)
        self._queue = Queue(settings.queue, settings.home, self._credentials)
        self._limits = ObjectLimits(
            settings.object_max.bytes, settings.record_max.bytes, settings.batch.bytes, settings.batch_records
        )
        self._stores: dict[tuple[str, str], Any] = {}
        self._in_hand = 0
        self._objects = 0

    def status(self) -> Mapping[str, Any]:
        """See `plugin.Source`."""
        facts = {"queue": self._settings.queue, "in_hand": self._in_hand, "objects": self._objects}
        return {**facts, **self._progress.status()}

    async def run(self, intake: Intake, stop: asyncio.Event) -> None:
        """See `plugin.Source`. Raises the first error of any worker."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(stop))
                for _ in range(self._settings.workers):
                    group.create_task(self._work(intake, stop))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await self._queue.close()

    async def _work(self, intake: Intake, stop: asyncio.Event) -> None:
        while (message := await self._receive(stop)) is not None:
            self._in_hand += 1
            try:
                async with self._held(message):
                    is_done = await self._take(intake, message, stop)
                if is_done:
                    await self._queue.delete(message)
                    self._progress.took()
                elif stop.is_set():
                    await self._queue.hold(message, 0)  # somebody else may go on at once
            finally:
                self._in_hand -= 1

    async def _receive(self, stop: asyncio.Event) -> Message | None:
        """The next message; None when it is time to stop."""
        while not stop.is_set():
            poll = asyncio.create_task(self._queue.receive(_WAIT_S, int(self._settings.visibility.seconds)))
            ending = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait([poll, ending], return_when=asyncio.FIRST_COMPLETED)
                if poll.done() and (message := poll.result()) is not None:
                    self._progress.add_repeats(message.deliveries > 1)
                    return message
            finally:
                poll.cancel()
                ending.cancel()
        return None

    async def _watch(self, stop: asyncio.Event) -> None:
        """What the queue counts, for status. A policy may forbid to ask: then it is not known."""
        while not stop.is_set():
            try:
                self._progress.set_lag(await self._queue.waiting())
            except QueueError as error:
                self._progress.lag = None
                log.warning("the queue does not say how much waits", source=self._context.name, error=error.message)
            try:
                async with asyncio.timeout(_LOOK_S):
                    await stop.wait()
            except TimeoutError:
                continue

    @asynccontextmanager
    async def _held(self, message: Message) -> AsyncIterator[None]:
        """While this is open, nobody else gets the message."""
        task = asyncio.create_task(self._hold(message))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _hold(self, message: Message) -> None:
        visibility_s = self._settings.visibility.seconds
        while True:
            await asyncio.sleep(visibility_s / _HOLDS_PER_VISIBILITY)
            try:
                await self._queue.hold(message, int(visibility_s))
            except QueueError as error:  # it may come again meanwhile, and is stored once all the same
                log.warning("a message could not be held", source=self._context.name, error=error.message)

    async def _take(self, intake: Intake, message: Message, stop: asyncio.Event) -> bool:
        """All objects of one message; True when everything is durable. A crash in here: the message comes again."""
        try:
            names = read_notice(message.body)
        except UnreadableNoticeError as error:
            await self._quarantine(intake, [Fault(1, "notification_unreadable", str(error), message.body)])
            return True
        for name in names:
            if any(fnmatchcase(name.key, pattern) for pattern in self._settings.exclude):
                continue
            if self._settings.buckets and name.bucket not in self._settings.buckets:
                fault = f"the bucket {name.bucket[:80]} is not among `buckets`"
                await self._quarantine(intake, [Fault(1, "bucket_not_allowed", fault, message.body)])
            elif not await self._take_object(intake, name, stop):
                return False
        return True

    async def _take_object(self, intake: Intake, name: ObjectName, stop: asyncio.Event) -> bool:
        """True when all of it is durable, in the journal or in the quarantine."""
        try:
            pieces = await asyncio.to_thread(self._open, name)
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                if stop.is_set():
                    return False
                await self._commit(intake, name, piece)
        except ObjectGoneError:
            await self._record_gap(intake, name)
        except ObjectUnavailableError as error:
            _LEFT.labels(self._context.name).inc()
            self._progress.reason = f"s3://{name.bucket}/{name.key}: {error.message}"
            log.warning("an object cannot be had", source=self._context.name, bucket=name.bucket, key=name.key, error=error.message)
            return False
        else:
            self._objects += 1
            _OBJECTS.labels(self._context.name).inc()
            self._progress.reason = ""
        return True

    def _open(self, name: ObjectName) -> Iterator[Piece]:
        """In a thread."""
        place = _place(name)
        try:
            file = RangeFile(self._store(name), name.key, name.version)
        except ValueError as error:
            fault = Fault(1, "object_unreadable", f"a key that cannot be asked for: {str(error)[:200]}", place)
            return iter([Piece(faults=[fault])])
        return read_pieces(file, self._settings.format, self._limits, place)

    def _store(self, name: ObjectName) -> Any:
        region = self._settings.home if self._settings.endpoint else name.region or self._settings.home
        if (name.bucket, region) not in self._stores:
            endpoint = self._settings.endpoint
            client: Any = {"timeout": _STORE_S, "connect_timeout": _STORE_S}
            given: Any = {"region": region, "credential_provider": self._credentials.for_store, "retry_config": {"max_retries": 2}}
            if endpoint is not None:
                given["endpoint"] = endpoint
                client["allow_http"] = endpoint.startswith("http:")
            self._stores[name.bucket, region] = S3Store(name.bucket, client_options=client, **given)
        return self._stores[name.bucket, region]

    async def _commit(self, intake: Intake, name: ObjectName, piece: Piece) -> None:
        """Returns when the piece is durable."""
        if piece.records:
            stream = _digest(f"{name.bucket}/{name.key}")
            more = {"s3": {"bucket": name.bucket, "key": name.key}}
            records = [
                Record(data, number, name.bucket, place_id(stream, str(number), "", data), more) for number, data in piece.records
            ]
            await intake.commit_records(records)
            _BYTES.labels(self._context.name).inc(piece.size)
        if piece.faults:
            await self._quarantine(intake, piece.faults)

    async def _quarantine(self, intake: Intake, faults: list[Fault]) -> None:
        await intake.commit_decoded(lambda: Decoded(faults=list(faults)), sum(len(fault.record) for fault in faults))

    async def _record_gap(self, intake: Intake, name: ObjectName) -> None:
        facts = {"bucket": name.bucket, "key": name.key, "count": 1}
        log.warning("an object was gone before it could be read", source=self._context.name, **facts)
        await intake.record_gap(_digest(f"{name.bucket}/{name.key}/{name.version}"), facts)
        self._progress.add_missing(1)


def _place(name: ObjectName) -> bytes:
    """What the quarantine keeps of an object that cannot be read."""
    return msgspec.json.encode(name._asdict())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _way(plan: SourcePlan) -> str:
    one = plan.settings
    assert isinstance(one, S3Settings)
    return f"reads the objects that {one.queue} tells of"


KIND = SourceKind(S3Settings, _way, source=S3Source, mappings=(NATIVE,))
