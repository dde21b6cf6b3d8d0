"""Which cuts lie at the end of a topic: read back after an outcome that nobody knows.

Transactions are all or nothing, so one record of a cut that can be read says that the whole cut is there. To be sure that it is *not*
there, every partition is read up to its end as it is now. A reader of committed records stops before the oldest transaction
that is still open, anybody's; so it is waited for until that is behind this end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import admin as kafka_admin
from confluent_kafka.admin import AdminClient

from tallystick.destinations.kafka_records import CUT, LOG
from tallystick.errors import DestinationUnavailableError

_WAIT_S = 0.05
_SPEC: Any = vars(kafka_admin)["OffsetSpec"]  # public, but the package does not say so to type checkers
_QUEUE_KIB = 16 << 10

CutKey = tuple[str, str]
"""Origin of the log, and `<destination>:<name of the cut>`."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known to be settled: records up to this time (milliseconds, where it is the producer's) or offset, by partition."""

    at: int = -1
    offsets: Mapping[int, int] = field(default_factory=dict)

    def covers(self, message: Message) -> bool:
        kind, at = message.timestamp()
        partition, offset = message.partition(), message.offset()
        if partition is not None and offset is not None and offset <= self.offsets.get(partition, -1):
            return True
        return kind == TIMESTAMP_CREATE_TIME and at <= self.at


@dataclass(slots=True)
class FoundCut:
    """``at``: its records' highest time, milliseconds; ``ranges``: partition → first and last offset."""

    at: int = 0
    ranges: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, partition: int, offset: int, at: int) -> None:
        first, last = self.ranges.get(partition, (offset, offset))
        self.ranges[partition] = min(first, offset), max(last, offset)
        self.at = max(self.at, at)


def find_cuts(login: Mapping[str, Any], topic: str, since_ms: int, settled: Mark, timeout_s: float) -> dict[CutKey, FoundCut]:
    """Our cuts among the records from that time (Unix milliseconds) on, less those that are settled: a replay may send these again.

    Raises KafkaException, DestinationUnavailableError.
    """
    deadline = time.monotonic() + timeout_s
    admin = AdminClient(dict(login))
    partitions = _partitions(admin, topic, timeout_s)
    ends = _offsets(admin, topic, partitions, _SPEC.latest(), IsolationLevel.READ_UNCOMMITTED, timeout_s)
    while True:
        stable = _offsets(admin, topic, partitions, _SPEC.latest(), IsolationLevel.READ_COMMITTED, timeout_s)
        if all(stable[one] >= ends[one] for one in partitions):
            break
        if time.monotonic() > deadline:
            raise DestinationUnavailableError(f"a transaction of another producer is open on {topic}: its end cannot be read")
        time.sleep(_WAIT_S)
    starts = _offsets(admin, topic, partitions, _SPEC.for_timestamp(since_ms), IsolationLevel.READ_UNCOMMITTED, timeout_s)
    spans = {one: (starts[one], ends[one]) for one in partitions if 0 <= starts[one] < ends[one]}
    return _read(login, topic, spans, settled, deadline) if spans else {}


def _partitions(admin: AdminClient, topic: str, timeout_s: float) -> list[int]:
    found = admin.list_topics(topic, timeout=timeout_s).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    return sorted(found.partitions)


def _offsets(
    admin: AdminClient, topic: str, partitions: list[int], spec: Any, level: IsolationLevel, timeout_s: float
) -> dict[int, int]:
    asked = {TopicPartition(topic, one): spec for one in partitions}
    found: dict[TopicPartition, Future[Any]] = admin.list_offsets(asked, isolation_level=level, request_timeout=timeout_s)
    return {place.partition: result.result(timeout_s + 1).offset for place, result in found.items()}


def _read(
    login: Mapping[str, Any], topic: str, spans: Mapping[int, tuple[int, int]], settled: Mark, deadline: float
) -> dict[CutKey, FoundCut]:
    options = {
        "group.id": "tallystick-read-back",  # is never joined: partitions are assigned, and no offset is committed
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "queued.max.messages.kbytes": _QUEUE_KIB,
    }
    consumer = Consumer({**login, **options})
    found: dict[CutKey, FoundCut] = {}
    left = {partition: end for partition, (_, end) in spans.items()}
    try:
        consumer.assign([TopicPartition(topic, partition, start) for partition, (start, _) in spans.items()])
        while left:
            if time.monotonic() > deadline:
                raise DestinationUnavailableError(f"the end of {topic} could not be read in time")
            for message in consumer.consume(500, _WAIT_S):
                _look(message, left, found, settled)
    finally:
        consumer.close()
    return found


def _look(message: Message, left: dict[int, int], found: dict[CutKey, FoundCut], settled: Mark) -> None:
    partition, offset = message.partition(), message.offset()
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        if not error.retriable():
            raise KafkaException(error)
        return
    if partition is None or offset is None:
        return
    if error is None and not settled.covers(message):
        headers = dict(message.headers() or ())
        log, cut = headers.get(LOG), headers.get(CUT)
        if isinstance(log, bytes) and isinstance(cut, bytes):
            found.setdefault((log.decode("utf-8", "replace"), cut.decode("utf-8", "replace")), FoundCut()).add(
                partition, offset, message.timestamp()[1]
            )
    if offset + (error is None) >= left.get(partition, 1 << 63):
        del left[partition]
