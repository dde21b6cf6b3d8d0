"""Destination `kafka`: one transaction per cut, read back when its outcome is not known; exactly once.

    new producer ──► init_transactions ──► read the end of the topic back ──► cut ──► cut ──► …
         ▲                                                                     │
         └──────────── any error: what became of the cut is not known ◄────────┘

How exactly-once works: `init_transactions` gives the producer a new epoch. It ends what an older one of the same
`transactional.id` left open (a commit that had begun is completed, everything else is undone) and shuts that one out. After it nothing can
change any more, and what the topic holds since the cut that was settled last (`Cut.after`) tells which cuts are there: each record
names its cut in its headers. A cut that is there is delivered; any other is sent, in one transaction. So a process that was killed and an answer that was
lost are the same thing: the next attempt begins with a new epoch and looks.

Times: a record's time is never before its event's receipt, and always after that of a cut sent earlier, whatever the clock does. So
the records of a cut are found from the time of the last settled one on, or where there is none, from the day before its first event came.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from msgspec import Meta, field

from tallystick.config import DestinationSettings, Duration
from tallystick.config.units import Size
from tallystick.destinations.encodings import EncodingSettings
from tallystick.destinations.kafka_end import CutKey, FoundCut, Mark, find_cuts
from tallystick.destinations.kafka_records import BY_TENANT, make_key, make_records
from tallystick.destinations.received import first_received
from tallystick.errors import ConfigError, DestinationUnavailableError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut
from tallystick.sources.kafka_login import SaslSettings, check_servers, login_of, our_logger
from tallystick.sources.remote import RemoteTlsSettings, check_tls, rooted_tls

T = TypeVar("T")

_DAY_MS = 86_400_000
_SKEW_MS = 60_000
"""Brokers that put their own clock's time on records may differ by this."""
_WHERE = re.compile(r"kafka:(?P<topic>[^#]*)#at=(?P<at>\d+)&(?P<ranges>.*)")
_PLACE = re.compile(r"kafka:(?P<topic>[^#]*)#(?P<origin>.*)#(?P<cut>[^#]*)#received=(?P<received>\d+)")
_QUEUE_KIB = 64 << 10
NOTHING_SETTLED = Mark()

_PARKING = {
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._AUTHENTICATION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.POLICY_VIOLATION,
}
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE}
_LOGIN = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}


class KafkaDestinationSettings(EncodingSettings, frozen=True, kw_only=True):
    """`type = "kafka"`"""

    topic: Annotated[str, Meta(description="Topic; it must be there.", pattern=r"\A[A-Za-z0-9._-]{1,249}\Z")]
    servers: Annotated[tuple[str, ...], Meta(description="Brokers to begin with, `host:port`.", min_length=1)] = ("127.0.0.1:9092",)
    key: Annotated[
        str,
        Meta(description="Key of the records: `tenant`, or a place in the event as in `actor.id`; without a value, the tenant."),
    ] = BY_TENANT
    compression: Annotated[Literal["none", "zstd", "lz4", "gzip", "snappy"], Meta(description="Of batches on the way.")] = "zstd"
    sasl: Annotated[SaslSettings | None, Meta(description="Login; absent: none.")] = None
    tls: Annotated[RemoteTlsSettings | None, Meta(description="TLS; `{}` with the system's CA certificates.")] = None
    insecure: Annotated[bool, Meta(description="Allow a connection in the clear to another machine.")] = False
    message_max: Annotated[Size, Meta(description="Largest record that the topic takes (its `max.message.bytes`).")] = field(
        default_factory=lambda: Size("1MiB")
    )
    timeout: Annotated[Duration, Meta(description="Longest time for one cut, and for reading the topic's end back.")] = field(
        default_factory=lambda: Duration("30s")
    )

    def rooted(self, base_dir: Path) -> KafkaDestinationSettings:
        return msgspec.structs.replace(self, tls=rooted_tls(self.tls, base_dir))

    def check(self) -> None:
        self.check_encoding()
        check_servers(self.servers, is_encrypted=self.tls is not None, insecure=self.insecure)
        check_tls(self.tls, Path())
        make_key(self.key)
        if not 1 <= self.timeout.seconds <= 600:
            raise ConfigError("a transaction takes between a second and ten minutes", hint='As in timeout = "30s"')
        if self.message_max.bytes < 1024:
            raise ConfigError("no event fits into so small a record", hint='As in message_max = "1MiB"')


class KafkaDestination:
    """One transactional producer, used by one thread; cuts one after the other."""

    settings: ClassVar[type[DestinationSettings]] = KafkaDestinationSettings
    guarantee: ClassVar[str] = "exactly once"
    window: ClassVar[int] = 1
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=5_000, max_bytes=8 << 20, max_age_s=0.25)
    answers: ClassVar[dict[str, str]] = {
        "transaction committed": "delivered",
        "the end of the topic has the cut": "delivered: an earlier attempt took effect",
        "MSG_SIZE_TOO_LARGE, INVALID_MSG_SIZE": "split the cut in halves; a single event is dead-lettered as too_large",
        "unknown topic or partition, not authorized, login refused, policy": "park",
        "any other error, time-out, no connection, fenced by another producer": "retry: new epoch, and the topic's end is read back",
        "a transaction of another producer stays open on the topic": "retry: until then its end cannot be read",
    }

    def __init__(self, name: str, settings: KafkaDestinationSettings) -> None:
        self.name = name
        self.encoder = settings.make_encoder()
        self._record_type = settings.make_events().record_type
        self._settings = settings
        self._key = make_key(settings.key)
        self._login = {**login_of(settings, Path()), "client.id": f"tallystick-{name}", "error_cb": self._on_error}
        self._producer: Producer | None = None
        self._server = ""
        self._found: dict[CutKey, FoundCut] = {}
        self._last_ms = 0
        self._refusal: KafkaError | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"kafka-{name}")

    def place(self, cut: Cut) -> str:
        return f"kafka:{self._settings.topic}#{cut.origin}#{self.name}:{cut.name}#received={_received_ms(cut)}"

    async def find(self, place: str, sha256: str) -> bool | None:
        """Raises DestinationUnavailableError when Kafka cannot be asked."""
        match = _PLACE.fullmatch(place)
        if match is None or match["topic"] != self._settings.topic:
            return None
        return await self._in_thread(lambda: self._find(match["origin"], match["cut"], int(match["received"])))

    async def send(self, cut: Cut) -> Answer:
        try:
            return await self._in_thread(lambda: self._answering(lambda: self._send(cut)))
        except asyncio.CancelledError:
            # The attempt goes on in its thread, and nobody hears how it ends: whoever sends next has to look.
            with contextlib.suppress(RuntimeError):
                self._thread.submit(self._drop)
            raise

    async def probe(self) -> Answer:
        return await self._in_thread(lambda: self._answering(self._probe))

    async def close(self) -> None:
        self._thread.submit(self._drop)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _answering(self, work: Callable[[], Answer]) -> Answer:
        """After an error the producer is given up: the next attempt gets a new epoch, and looks."""
        self._refusal = None
        try:
            return work()
        except (KafkaException, DestinationUnavailableError) as error:
            self._drop()
            return answer_error(error, self._refusal)

    def _send(self, cut: Cut) -> Answer:
        producer = self._producer or self._open(cut.origin, *self._since(cut))
        found = self._found.pop((cut.origin, f"{self.name}:{cut.name}"), None)
        if found is None:
            found = self._produce(producer, cut)
        self._last_ms = max(self._last_ms, found.at)
        return Answer(AnswerKind.DELIVERED, where=self._where(found))

    def _open(self, origin: str, since_ms: int, settled: Mark = NOTHING_SETTLED) -> Producer:
        """A producer of a new epoch, and what lies at the end of the topic."""
        timeout = self._settings.timeout.seconds
        self._server = origin.rsplit("/log/", 1)[0]
        options = {
            "transactional.id": f"tallystick/{self._server}/{self.name}",
            "transaction.timeout.ms": int(timeout * 1000) + 10_000,
            "message.timeout.ms": int(timeout * 1000),
            "message.max.bytes": self._settings.message_max.bytes,
            "compression.type": self._settings.compression,
            "partitioner": "murmur2_random",  # as Java's clients
            "queue.buffering.max.kbytes": _QUEUE_KIB,
        }
        producer = Producer({**self._login, **options}, logger=our_logger("destination", self.name))
        try:
            producer.init_transactions(timeout)
            login = {key: value for key, value in self._login.items() if key != "error_cb"}
            self._found = find_cuts(login, self._settings.topic, since_ms, settled, timeout)
        except BaseException:
            _let_go(producer)
            raise
        self._producer = producer  # only now: a producer that has not looked must not send
        return producer

    def _produce(self, producer: Producer, cut: Cut) -> FoundCut:
        """One transaction. Raises KafkaException; whether it was committed then is for the next epoch to see."""
        deadline = time.monotonic() + self._settings.timeout.seconds
        reports = _Reports()
        at = max(int(time.time() * 1000), _received_ms(cut), self._last_ms + 1)
        producer.begin_transaction()
        for key, value, headers in make_records(cut, self.name, self._record_type, self._key):
            while True:
                try:
                    producer.produce(
                        self._settings.topic, value, key, on_delivery=reports.take, timestamp=at, headers=list(headers)
                    )
                    break
                except BufferError as error:
                    if time.monotonic() > deadline:
                        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error
                    producer.poll(0.1)
            producer.poll(0)
        producer.flush(max(0.0, deadline - time.monotonic()))
        if reports.error is not None:
            raise KafkaException(reports.error)
        self._commit(producer)
        return reports.cut

    def _commit(self, producer: Producer) -> None:
        """A crash in here: the coordinator has the commit or not, and the next epoch completes or undoes it before it looks."""
        producer.commit_transaction(self._settings.timeout.seconds)

    def _drop(self) -> None:
        producer, self._producer, self._found = self._producer, None, {}
        if producer is not None:
            _let_go(producer)

    def _since(self, cut: Cut) -> tuple[int, Mark]:
        """From when on, in milliseconds, the topic may hold cuts that are not settled; and what there is settled for sure."""
        match = _WHERE.fullmatch(cut.after)
        if match is None or match["topic"] != self._settings.topic:
            return _received_ms(cut) - _DAY_MS, NOTHING_SETTLED
        at = int(match["at"])
        self._last_ms = max(self._last_ms, at)
        ranges = (one.partition("=") for one in match["ranges"].split(","))
        return at - _SKEW_MS, Mark(at, {int(partition): int(span.partition("-")[2]) for partition, _, span in ranges})

    def _where(self, found: FoundCut) -> str:
        ranges = ",".join(f"{partition}={first}-{last}" for partition, (first, last) in sorted(found.ranges.items()))
        return f"kafka:{self._settings.topic}#at={found.at}&{ranges}"

    def _find(self, origin: str, cut: str, received_ms: int) -> bool:
        self._drop()
        try:
            self._open(origin, received_ms - _DAY_MS)
        except KafkaException as error:
            self._drop()
            raise DestinationUnavailableError(_text(error)) from error
        return (origin, cut) in self._found

    def _probe(self) -> Answer:
        """The topic's description; and when it is known who we are, a new epoch, which needs the rights that a cut needs."""
        timeout = self._settings.timeout.seconds
        found = AdminClient(self._login).list_topics(self._settings.topic, timeout=timeout).topics[self._settings.topic]
        if found.error is not None:
            raise KafkaException(found.error)
        if self._server and self._producer is None:
            self._open(f"{self._server}/log/", int(time.time() * 1000))
            self._drop()
        return Answer(AnswerKind.DELIVERED, where=f"kafka:{self._settings.topic}")

    def _on_error(self, error: KafkaError) -> None:
        """What librdkafka meets on its own; a refused login is not told otherwise, calls only time out."""
        if error.code() in _LOGIN:
            self._refusal = error


def _let_go(producer: Producer) -> None:
    """Without waiting for what it still has to send. Not ``close()``: that aborts first, and with a dead broker for ever.
    An open transaction is undone by the next epoch, or by the broker when its time is over."""
    with contextlib.suppress(KafkaException):
        producer.purge()
        producer.poll(0)  # what was said meanwhile is heard, a refused login above all


class _Reports:
    """Delivery reports of one transaction: where the records are, and the first error."""

    def __init__(self) -> None:
        self.cut = FoundCut()
        self.error: KafkaError | None = None

    def take(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.error = self.error or error
            return
        partition, offset = message.partition(), message.offset()
        if partition is not None and offset is not None:
            self.cut.add(partition, offset, message.timestamp()[1])


def answer_error(error: KafkaException | DestinationUnavailableError, refusal: KafkaError | None) -> Answer:
    """Sort an error by the table above."""
    if refusal is not None:
        return Answer(AnswerKind.PARK, reason=f"{refusal.name()}: {refusal.str()}")
    if isinstance(error, DestinationUnavailableError):
        return Answer(AnswerKind.RETRY, reason=str(error))
    code = error.args[0].code()
    if code in _TOO_LARGE:
        return Answer(AnswerKind.SPLIT, reason="too_large", reply=_text(error))
    return Answer(AnswerKind.PARK if code in _PARKING else AnswerKind.RETRY, reason=_text(error))


def _text(error: KafkaException) -> str:
    found: KafkaError = error.args[0]
    return f"{found.name()}: {found.str()}"[:1000]


def _received_ms(cut: Cut) -> int:
    """When the cut's first event came, Unix milliseconds."""
    return int(first_received(cut).timestamp() * 1000)
