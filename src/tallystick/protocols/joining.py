"""Lines in, records out: lines that belong together become one record. Pure; the caller brings the time (seconds, monotonic).

- `EachLine`: every line is a record.
- `FromStart`: a line that the pattern finds begins a record; those behind it that it does not find belong to it. A record is whole
  when the next begins, or when nothing came for ``wait_s``.
- `ByKey`: lines with the same key (the pattern's first group) are one record, though other records' lines stand between them: the
  lines of one serial of the Linux audit system, say. A record is whole with a line that ``end`` finds, or ``wait_s`` after its
  first line. A line without a key is a record by itself.

A record that would pass ``record_max`` bytes is given out as it is, and its further lines begin another. ``held_from`` is the place of
the first line that is still held: what a reader may commit as read ends there, and ``given`` are the lines behind that place which
were given out already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from tallystick.protocols.lines import Line

HELD_MAX = 1000
"""Records that `ByKey` holds at once; past that the oldest is given out."""
HELD_BYTES_MAX = 8 << 20
"""The same in bytes of lines."""


class Joined(NamedTuple):
    """One record: ``start`` is where its first line stands. A line that was cut is never joined (``size`` tells)."""

    start: int
    data: bytes
    size: int


class Joiner(Protocol):
    """What the three have in common."""

    given: set[int]

    @property
    def held_from(self) -> int | None: ...

    @property
    def is_holding(self) -> bool: ...

    def add(self, lines: Iterable[Line], now: float) -> list[Joined]:
        """The records that these lines make whole."""

    def expire(self, now: float) -> list[Joined]:
        """The records that have waited long enough."""

    def flush(self) -> list[Joined]:
        """All that is held: nothing more will come."""


class EachLine:
    """See above."""

    def __init__(self) -> None:
        self.held_from: int | None = None
        self.given: set[int] = set()
        self.is_holding = False

    def add(self, lines: Iterable[Line], now: float) -> list[Joined]:
        return [Joined(line.start, line.data, line.size) for line in lines]

    def expire(self, now: float) -> list[Joined]:
        return []

    def flush(self) -> list[Joined]:
        return []


@dataclass(slots=True)
class _Held:
    """Lines of one record so far. ``since``: its first line's time for `ByKey`, its last one's for `FromStart`."""

    since: float
    lines: list[Line] = field(default_factory=list)
    size: int = 0

    def take(self, line: Line) -> None:
        self.lines.append(line)
        self.size += line.size + 1

    def joined(self) -> Joined:
        data = b"\n".join(line.data for line in self.lines)
        return Joined(self.lines[0].start, data, len(data))


class FromStart:
    """See above. ``start`` is a compiled pattern with ``search``."""

    def __init__(self, start: Any, wait_s: float, record_max: int) -> None:
        self.given: set[int] = set()
        self._search = start.search
        self._wait_s = wait_s
        self._record_max = record_max
        self._held: _Held | None = None

    @property
    def held_from(self) -> int | None:
        return self._held.lines[0].start if self._held else None

    @property
    def is_holding(self) -> bool:
        return self._held is not None

    def add(self, lines: Iterable[Line], now: float) -> list[Joined]:
        out: list[Joined] = []
        for line in lines:
            held = self._held
            if held and (line.is_cut or held.size + line.size > self._record_max or self._search(line.data)):
                out.append(held.joined())
                held = None
            if line.is_cut:
                out.append(Joined(line.start, line.data, line.size))
                self._held = None
                continue
            self._held = held = held or _Held(now)
            held.since = now
            held.take(line)
        return out

    def expire(self, now: float) -> list[Joined]:
        return self.flush() if self._held and now - self._held.since >= self._wait_s else []

    def flush(self) -> list[Joined]:
        held, self._held = self._held, None
        return [held.joined()] if held else []


class ByKey:
    """See above. ``key`` and ``end`` are compiled patterns with ``search``; ``given`` is what an earlier reader gave out."""

    def __init__(self, key: Any, end: Any, wait_s: float, record_max: int, given: Iterable[int] = ()) -> None:
        self.given = set(given)
        self._key = key.search
        self._end = end.search if end is not None else None
        self._wait_s = wait_s
        self._record_max = record_max
        self._held: dict[bytes, _Held] = {}  # in the order of their first lines
        self._held_bytes = 0

    @property
    def held_from(self) -> int | None:
        return next(iter(self._held.values())).lines[0].start if self._held else None

    @property
    def is_holding(self) -> bool:
        return bool(self._held)

    def add(self, lines: Iterable[Line], now: float) -> list[Joined]:
        out: list[Joined] = []
        for line in lines:
            if line.start in self.given:
                continue
            found = None if line.is_cut else self._key(line.data)
            if found is None:
                self.given.add(line.start)
                out.append(Joined(line.start, line.data, line.size))
                continue
            self._hold(found[1], line, now, out)
        self._forget()
        return out

    def expire(self, now: float) -> list[Joined]:
        out: list[Joined] = []
        for key, held in list(self._held.items()):
            if now - held.since < self._wait_s:
                break
            self._give(key, out)
        self._forget()
        return out

    def flush(self) -> list[Joined]:
        out: list[Joined] = []
        for key in list(self._held):
            self._give(key, out)
        self._forget()
        return out

    def _hold(self, key: bytes, line: Line, now: float, out: list[Joined]) -> None:
        held = self._held.get(key)
        if held is not None and held.size + line.size > self._record_max:
            self._give(key, out)
            held = None
        if held is None:
            held = self._held[key] = _Held(now)
        held.take(line)
        self._held_bytes += line.size
        while len(self._held) > HELD_MAX or self._held_bytes > max(HELD_BYTES_MAX, self._record_max):
            self._give(next(iter(self._held)), out)
        if key in self._held and self._end is not None and self._end(line.data):
            self._give(key, out)

    def _give(self, key: bytes, out: list[Joined]) -> None:
        held = self._held.pop(key)
        self._held_bytes -= sum(line.size for line in held.lines)
        self.given.update(line.start for line in held.lines)
        out.append(held.joined())

    def _forget(self) -> None:
        """Places before the first held line are no longer of interest: nobody reads them again."""
        held_from = self.held_from
        self.given = {place for place in self.given if place > held_from} if held_from is not None else set()
