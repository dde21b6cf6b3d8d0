"""A member of a Kafka consumer group: what it may read, what it holds, where it stands.

librdkafka calls back about partitions from within `consume` and `poll`, so everything here runs in one thread, the caller's own for
this reader. Between two calls `held` is what was read and is not committed yet:

    consume ──► held ──► (the journal has it) ──► commit ──► held is empty ──► consume …
                  │
                  └── partitions revoked: wait a little for the journal, then commit; what is not durable by then is
                      forgotten here, and read again by whoever gets the partition

Offsets are kept in Kafka and nowhere else. Where a partition begins is decided here and not by librdkafka, so that an offset that
is not there any more is noticed: records that aged out before they were read are a gap.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tallystick.errors import TallystickError
from tallystick.sources.kafka_login import our_logger
from tallystick.telemetry import log

Place = tuple[str, int]
"""Topic and partition."""

_ASK_S = 10.0
_REVOKE_S = 5.0
_RECORD_COST = 512
"""What a record takes in memory besides its bytes, about."""
_PASSING = (KafkaError._PARTITION_EOF, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT)


class KafkaUnavailableError(TallystickError):
    """Kafka refuses, or cannot be reached; a new run tries again."""

    code = "kafka_unavailable"


class Held(NamedTuple):
    """One record with its place. ``moment``: its time in Kafka, milliseconds; ``data`` is empty for a tombstone."""

    topic: str
    partition: int
    offset: int
    moment: int
    data: bytes


class Missing(NamedTuple):
    """Offsets that were gone before they could be read, both inclusive."""

    topic: str
    partition: int
    first: int
    last: int
    why: str


class KafkaReader:
    """``configuration`` is librdkafka's. ``batch_bytes`` and ``batch_records`` bound what is held."""

    def __init__(
        self,
        name: str,
        configuration: Mapping[str, Any],
        topics: Sequence[str],
        *,
        start: str,
        batch_bytes: int,
        batch_records: int,
    ) -> None:
        self.held: list[Held] = []
        self.missing: list[Missing] = []
        self.problem = ""
        self.skipped = 0  # offsets without a record: compacted away, or marks of transactions
        self.is_durable = threading.Event()  # set by the owner when `held` is in the journal
        self._name = name
        self._start = start
        self._bytes_max, self._records_max = batch_bytes, batch_records
        self._next: dict[Place, int] = {}
        self._failure: KafkaError | None = None
        self._typical = 64 * 1024  # bytes of one record, as of late
        self._is_paused = False
        self._is_waiting = False
        self._early: list[Held] = []  # came though the partitions were paused: first in the next batch
        self._consumer = Consumer({**configuration, "error_cb": self._on_error}, logger=our_logger("source", name))
        self._consumer.subscribe(list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def read(self, wait_s: float) -> int:
        """Fill `held` with what is there, waiting ``wait_s`` for the first; how many it holds. Raises KafkaUnavailableError."""
        self.is_durable.clear()
        self._resume()
        self.held, self._early = self.held + self._early, []
        size = sum(map(_size, self.held))
        while size < self._bytes_max and len(self.held) < self._records_max:
            room = max(1, min(self._records_max - len(self.held), (self._bytes_max - size) // self._typical, 500))
            found = self._call(self._consumer.consume, room, 0.0 if self.held else wait_s)
            self._keep(found, self.held)
            if not found:
                break
            taken = sum(map(len, found)) + _RECORD_COST * len(found)
            size, self._typical = size + taken, taken // len(found)
        return len(self.held)

    def keep_alive(self) -> None:
        """Stay a member while the journal is slow: nothing is fetched, partitions may come and go."""
        partitions = self._consumer.assignment()
        if partitions:
            self._consumer.pause(partitions)
            self._is_paused = True
        self._is_waiting = True
        try:
            message = self._call(self._consumer.poll, 0)
        finally:
            self._is_waiting = False
        self._keep([] if message is None else [message], self._early)

    def commit(self) -> bool:
        """Tell Kafka that all of `held` is durable; False when it did not take that. ``held`` is empty afterwards.

        A crash before this: the records are read again, and are repeats by their ids.
        """
        offsets = {(one.topic, one.partition): one.offset + 1 for one in self.held}
        self.held = []
        if not offsets:
            return False
        places = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            log.warning("offsets were not committed; records may come again", source=self._name, error=str(error))
            return False
        return True

    def check(self) -> None:
        """Ask Kafka for something small, when it has been quiet: that it answers is what clears `problem`."""
        partitions = self._consumer.assignment()
        try:
            if partitions:
                self._consumer.committed(partitions, timeout=_ASK_S)
                self.problem = ""
        except KafkaException as error:
            self.problem = error.args[0].str()

    def positions(self) -> dict[str, dict[str, int]]:
        """By partition that is ours: the next offset, and how many records are behind it, as of the last fetch."""
        found = {}
        for (topic, partition), offset in sorted(self._next.items()):
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            found[f"{topic}:{partition}"] = {"next": offset, "lag": max(0, high - offset) if high >= 0 else 0}
        return found

    def close(self) -> None:
        """Leave the group, so that others get the partitions at once."""
        self._consumer.close()

    def _call(self, call: Any, *arguments: Any) -> Any:
        try:
            found = call(*arguments)
        except KafkaException as error:
            raise KafkaUnavailableError(str(error)) from error
        if self._failure is not None:
            raise KafkaUnavailableError(self._failure.str())
        return found

    def _keep(self, messages: list[Message], where: list[Held]) -> None:
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() not in _PASSING:
                    raise KafkaUnavailableError(error.str())
                continue
            one = _held(message)
            expected = self._next.get((one.topic, one.partition))
            if expected is None or one.offset < expected:
                continue  # revoked within this very call, or read again after a pause
            self.skipped += one.offset - expected
            self._next[one.topic, one.partition] = one.offset + 1
            where.append(one)
            self.problem = ""

    def _resume(self) -> None:
        """Fetch again, from where *we* are: the library's own idea is older when a partition left and came back while it was paused."""
        if self._is_paused:
            self._is_paused = False
            partitions = self._consumer.assignment()
            self._call(self._consumer.resume, partitions)
            for place in partitions:
                offset = self._next[place.topic, place.partition]
                self._call(self._consumer.seek, TopicPartition(place.topic, place.partition, offset))

    # What librdkafka calls, within `consume`, `poll` and `close`

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        fresh: list[TopicPartition] = []
        try:
            for committed in consumer.committed(partitions, timeout=_ASK_S):
                low, high = consumer.get_watermark_offsets(committed, timeout=_ASK_S)
                self._begin(committed, low, high)
                self._next[committed.topic, committed.partition] = committed.offset
                fresh.append(TopicPartition(committed.topic, committed.partition, committed.offset))
            consumer.assign(fresh)
            if fresh:  # a group that began at the end keeps its place from now on, though nothing was read yet
                consumer.commit(offsets=fresh, asynchronous=False)
        except KafkaException as error:
            self._failure = error.args[0]
            consumer.assign([])

    def _begin(self, place: TopicPartition, low: int, high: int) -> None:
        """Where reading begins: ``place.offset`` as committed becomes the offset to read next."""
        if place.error is not None:
            raise KafkaException(place.error)
        if place.offset < 0:
            place.offset = low if self._start == "earliest" else high
        elif place.offset < low:
            self.missing.append(Missing(place.topic, place.partition, place.offset, low - 1, "deleted before they were read"))
            place.offset = low
        elif place.offset > high:
            words = "the partition ends before what was read: cut, or made anew"
            self.missing.append(Missing(place.topic, place.partition, high, place.offset - 1, words))
            place.offset = low

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_waiting and self.is_durable.wait(_REVOKE_S):
            self.commit()
        self._forget(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget(consumer, partitions)

    def _forget(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_paused:
            consumer.resume(partitions)  # the library would keep them paused when they come back
        gone = {(place.topic, place.partition) for place in partitions}
        for place in gone:
            self._next.pop(place, None)
        for records in (self.held, self._early):
            records[:] = [one for one in records if (one.topic, one.partition) not in gone]

    def _on_error(self, error: KafkaError) -> None:
        self.problem = error.str()
        if error.fatal() or error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
            self._failure = error


def _held(message: Message) -> Held:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None:
        raise KafkaUnavailableError("a record without its place")
    return Held(topic, partition, offset, message.timestamp()[1], bytes(message.value() or b""))


def _size(one: Held) -> int:
    return len(one.data) + _RECORD_COST
