"""Numbers that producers put on their records, and what is missing among them. Pure; time is given.

1. The first number of a producer is where its numbers begin; nothing is missing before it.
2. A number above the expected one makes the numbers between them missing. They are told of after ``patience_s``: until then a
   late one takes itself off the list, since datagrams overtake each other.
3. A number that was seen lately is a repeat. A number far below the last one (`_LATE_MAX`) is a new beginning: the producer started
   anew, or its counter came to its end.
4. At most ``producers_max`` are known; of the one that was silent longest nothing is remembered, not even its number.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

_LATE_MAX = 1_000
_RANGES_MAX = 100


@dataclass(frozen=True, slots=True)
class SequenceGap:
    """Numbers of one producer that did not come. ``ranges`` are ``[first, last]``, the first hundred of them; ``count`` is of all."""

    producer: str
    ranges: list[list[int]]
    count: int
    since: float


@dataclass(slots=True)
class _Stream:
    last: int
    missing: list[list[int]] = field(default_factory=list)
    more: int = 0  # numbers missing beyond the ranges kept
    since: float = 0.0


class SequenceTracker:
    """All producers of one source."""

    def __init__(self, patience_s: float = 5.0, producers_max: int = 10_000) -> None:
        self.repeats = 0
        self.restarts = 0
        self._patience_s = patience_s
        self._producers_max = producers_max
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._incomplete: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def note(self, producer: str, number: int, now: float) -> None:
        """``producer`` sent ``number`` at ``now`` (seconds of any clock)."""
        stream = self._streams.get(producer)
        if stream is None:
            self._streams[producer] = _Stream(number)
            if len(self._streams) > self._producers_max:
                self._streams.popitem(last=False)
            return
        self._streams.move_to_end(producer)
        if number == stream.last + 1:
            stream.last = number
        elif number > stream.last:
            self._miss(producer, stream, stream.last + 1, number - 1, now)
            stream.last = number
        elif stream.last - number < _LATE_MAX and number != 1:
            self._late(stream, number)
        else:
            self.restarts += 1
            stream.last = number

    def due(self, now: float) -> list[SequenceGap]:
        """What is missing for longer than the patience; told once. ``now`` infinite: all of it."""
        found = []
        for producer in list(self._incomplete):
            stream = self._streams.get(producer)
            if stream is not None and now - stream.since < self._patience_s:
                continue
            del self._incomplete[producer]
            if stream is None or not (stream.missing or stream.more):
                continue
            count = stream.more + sum(last - first + 1 for first, last in stream.missing)
            found.append(SequenceGap(producer, stream.missing, count, stream.since))
            stream.missing, stream.more = [], 0
        return found

    def _miss(self, producer: str, stream: _Stream, first: int, last: int, now: float) -> None:
        if not stream.missing and not stream.more:
            stream.since = now
        if len(stream.missing) < _RANGES_MAX:
            stream.missing.append([first, last])
        else:
            stream.more += last - first + 1
        self._incomplete[producer] = None

    def _late(self, stream: _Stream, number: int) -> None:
        for place, (first, last) in enumerate(stream.missing):
            if first <= number <= last:
                parts = [[first, number - 1], [number + 1, last]]
                stream.missing[place : place + 1] = [part for part in parts if part[0] <= part[1]]
                return
        self.repeats += 1
