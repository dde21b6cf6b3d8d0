"""What every producer's numbers say: which events did not come, which came twice, when it began anew. No IO; time is given.

An event may carry `producer {id, epoch, seq}`. A producer is known by (tenant, credential, id); each of its epochs is one run of numbers
(`protocols.numbers`). There is no window of time: the state of a producer ends only when ``producers_max`` others were heard of since.

1. A higher epoch is a restart. When the epoch before was seen from its beginning (0 or 1), the new one should begin there too, or go
   on counting; what lies below its first number is missing otherwise.
2. Findings wait for the patience, so that requests that overtake each other make none, and are gathered meanwhile: one entry for each
   producer, epoch and reason. A producer that is forgotten is told of at once.
3. A decided finding is *owed*: it stays in the state until the account has it. Its id comes from the place in the journal at which it was
   found, so it is stored once, whatever is done again after a crash.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec

from tallystick.event.times import format_utc
from tallystick.protocols.numbers import RANGES_MAX, Came, Numbers

ID_MAX: Final = 256
RECENT_MAX: Final = 20
_REASON_OF: Final = {Came.LATE: "late", Came.REPEAT: "repeat"}


class ProducerKey(NamedTuple):
    """Whose numbers: ``handle`` is the tenant's, ``credential`` empty for a source that has none."""

    handle: str
    credential: str
    id: str


class Seen(NamedTuple):
    """Where and when a number was found: entry ``seq`` of the journal, received at ``at`` (Unix seconds) by ``source``."""

    seq: int
    at: float
    source: str


class OwedEntry(msgspec.Struct, array_like=True):
    """An entry for the account of the tenant ``handle`` that is decided and not yet known to be stored."""

    handle: str
    id: str
    entry: dict[str, Any]


class _Stream(msgspec.Struct, array_like=True):
    numbers: Numbers
    source: str
    noticed: int = 0  # seq of the journal at which the oldest missing number was noticed


class _Finding(msgspec.Struct, array_like=True):
    source: str
    seq: int
    since: float
    count: int = 0
    ranges: list[list[int]] = []
    last: int = 0
    first: int = 0


class LedgerState(msgspec.Struct):
    """All that is remembered, as it is stored beside the cursor."""

    streams: list[tuple[str, str, str, int, _Stream]] = []
    findings: list[tuple[str, str, str, int, str, _Finding]] = []
    owed: list[OwedEntry] = []
    totals: dict[str, dict[str, int]] = {}
    recent: list[OwedEntry] = []
    forgotten: int = 0


@dataclass
class ProducerLedger:
    """The numbers of all producers. ``owed`` are decided findings, oldest first; ``totals`` counts by tenant and reason."""

    producers_max: int
    patience_s: float
    owed: list[OwedEntry] = field(default_factory=list)
    totals: dict[str, dict[str, int]] = field(default_factory=dict)
    recent: list[OwedEntry] = field(default_factory=list)
    forgotten: int = 0
    _streams: OrderedDict[tuple[ProducerKey, int], _Stream] = field(default_factory=OrderedDict)
    _epochs: dict[ProducerKey, list[int]] = field(default_factory=dict)
    _incomplete: dict[tuple[ProducerKey, int], None] = field(default_factory=dict)
    _findings: dict[tuple[ProducerKey, int, str], _Finding] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._streams)

    def note(self, key: ProducerKey, epoch: int, number: int, seen: Seen) -> None:
        """The event ``number`` of the producer's ``epoch`` is in the journal."""
        if len(key.id) > ID_MAX:
            key = key._replace(id="sha256:" + sha256(key.id.encode()).hexdigest())
        stream = self._streams.get((key, epoch))
        if stream is None:
            self._begin(key, epoch, number, seen)
            return
        self._streams.move_to_end((key, epoch))
        numbers = stream.numbers
        if number == numbers.last + 1:  # as nearly always
            numbers.last = number
            return
        before = numbers.missing_count
        came = numbers.note(number, seen.at, self.patience_s)
        if numbers.missing_count > before:
            self._miss(key, epoch, stream, seen, is_first=not before)
        if came is Came.UNPLACED:
            self._count(key.handle, "unplaced", 1)
        elif came is not Came.NEW:
            self._find(key, epoch, _REASON_OF[came], seen, number)

    def due(self, now: float) -> bool:
        """Decide what has waited for the patience at ``now``; True when ``owed`` has grown."""
        owed = len(self.owed)
        for place in [place for place in self._incomplete if now - self._streams[place].numbers.since >= self.patience_s]:
            self._tell_missing(place, now)
        for finding in [at for at, found in self._findings.items() if now - found.since >= self.patience_s]:
            self._tell_finding(finding, now)
        return len(self.owed) > owed

    def settled(self, count: int) -> None:
        """The oldest ``count`` owed entries are stored."""
        del self.owed[:count]

    def state(self) -> LedgerState:
        """For `restore`."""
        return LedgerState(
            [(*key, epoch, stream) for (key, epoch), stream in self._streams.items()],
            [(*key, epoch, reason, found) for (key, epoch, reason), found in self._findings.items()],
            self.owed,
            self.totals,
            self.recent,
            self.forgotten,
        )

    def restore(self, state: LedgerState) -> None:
        """Go on where `state` was taken. More producers than may be known now: the longest silent are forgotten with the next new one."""
        self.owed, self.totals, self.recent, self.forgotten = state.owed, state.totals, state.recent, state.forgotten
        for handle, credential, name, epoch, stream in state.streams:
            key = ProducerKey(handle, credential, name)
            self._streams[key, epoch] = stream
            self._epochs.setdefault(key, []).append(epoch)
            if stream.numbers.missing_count:
                self._incomplete[key, epoch] = None
        for handle, credential, name, epoch, reason, found in state.findings:
            self._findings[ProducerKey(handle, credential, name), epoch, reason] = found

    def _begin(self, key: ProducerKey, epoch: int, number: int, seen: Seen) -> None:
        numbers = Numbers(number, number, seen.at)
        stream = self._streams[key, epoch] = _Stream(numbers, seen.source)
        epochs = self._epochs.setdefault(key, [])
        earlier = max(epochs, default=epoch)
        epochs.append(epoch)
        if epoch > earlier:
            before = self._streams[key, earlier].numbers
            found = self._find(key, epoch, "restart", seen, None)
            found.last, found.first = before.last, number
            if before.floor <= 1 < number != before.last + 1:
                numbers.floor = 1
                numbers.miss(1, number - 1, seen.at)
                self._miss(key, epoch, stream, seen, is_first=True)
        while len(self._streams) > self.producers_max:
            self._forget(next(iter(self._streams)), seen.at)

    def _forget(self, place: tuple[ProducerKey, int], now: float) -> None:
        if place in self._incomplete:
            self._tell_missing(place, now)
        key, epoch = place
        for finding in [at for at in self._findings if at[:2] == place] if self._findings else ():
            self._tell_finding(finding, now)
        del self._streams[place]
        self._epochs[key].remove(epoch)
        if not self._epochs[key]:
            del self._epochs[key]
        self.forgotten += 1

    def _miss(self, key: ProducerKey, epoch: int, stream: _Stream, seen: Seen, *, is_first: bool) -> None:
        if is_first:
            stream.noticed, stream.source = seen.seq, seen.source
        self._incomplete[key, epoch] = None

    def _find(self, key: ProducerKey, epoch: int, reason: str, seen: Seen, number: int | None) -> _Finding:
        found = self._findings.get((key, epoch, reason))
        if found is None:
            found = self._findings[key, epoch, reason] = _Finding(seen.source, seen.seq, seen.at)
        found.count += 1
        if number is not None:
            _add(found.ranges, number)
        return found

    def _tell_missing(self, place: tuple[ProducerKey, int], now: float) -> None:
        del self._incomplete[place]
        stream = self._streams[place]
        since = stream.numbers.since
        ranges, count = stream.numbers.tell()
        if count:
            self._owe(*place, "sequence", stream.source, stream.noticed, since, now, {"count": count, "ranges": ranges})

    def _tell_finding(self, place: tuple[ProducerKey, int, str], now: float) -> None:
        key, epoch, reason = place
        found = self._findings.pop(place)
        facts: dict[str, Any] = {"count": found.count, "ranges": found.ranges}
        if reason == "restart":
            facts = {"count": 1, "last": found.last, "first": found.first}
        self._owe(key, epoch, reason, found.source, found.seq, found.since, now, facts)

    def _owe(
        self, key: ProducerKey, epoch: int, reason: str, source: str, seq: int, since: float, now: float, facts: dict[str, Any]
    ) -> None:
        whose = sha256("\0".join((key.credential, key.id, str(epoch))).encode()).hexdigest()[:16]
        entry = {"type": "gap", "source": source, "reason": reason, "producer": key.id, "epoch": epoch}
        if key.credential:
            entry["credential"] = key.credential
        entry |= {**facts, "since": _text(since), "until": _text(max(since, now))}
        owed = OwedEntry(key.handle, f"gap:producer:{reason}:{seq}:{whose}", entry)
        self.owed.append(owed)
        self.recent = [*self.recent[1 - RECENT_MAX :], owed]
        self._count(key.handle, reason, facts["count"])

    def _count(self, handle: str, reason: str, count: int) -> None:
        counts = self.totals.setdefault(handle, {})
        counts[reason] = counts.get(reason, 0) + count


def _add(ranges: list[list[int]], number: int) -> None:
    """Numbers in the order in which they came; the first hundred ranges."""
    if ranges and number == ranges[-1][1] + 1:
        ranges[-1][1] = number
    elif len(ranges) < RANGES_MAX:
        ranges.append([number, number])


def _text(seconds: float) -> str:
    return format_utc(datetime.fromtimestamp(seconds, UTC))
