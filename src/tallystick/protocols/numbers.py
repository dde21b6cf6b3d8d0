"""One run of numbers that should have no holes: what came, what is missing, what came again. Pure; time is given.

Known are the numbers from ``floor`` to ``last``; each of them came, unless it stands in ``missing`` (nobody was told yet) or in ``told``.

1. The first number is where the run begins. For ``patience_s`` lower ones move the beginning down, since requests overtake each other;
   after that nothing is said of numbers below the floor.
2. A number above ``last`` + 1 makes those between missing. `tell` names them once they were missing for the patience; until then a
   late one takes itself off.
3. A number that came before is a repeat; one that was told to be missing is late.
4. Both lists are bounded (`RANGES_MAX`). What is missing beyond the bound is counted, and the floor rises above what is not listed any more.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

RANGES_MAX: Final = 100
TOLD_MAX: Final = 16


class Came(enum.Enum):
    """What a number turned out to be."""

    NEW = "new"
    LATE = "late"
    REPEAT = "repeat"
    UNPLACED = "unplaced"


class Numbers(msgspec.Struct, array_like=True):
    """``since``: when the oldest of ``missing`` was noticed; ``more``: how many are missing beyond the list. Times in seconds of any clock."""

    floor: int
    last: int
    opened: float
    missing: list[list[int]] = []
    more: int = 0
    since: float = 0.0
    told: list[list[int]] = []

    @property
    def missing_count(self) -> int:
        """How many numbers nobody was told of yet."""
        return self.more + sum(last - first + 1 for first, last in self.missing)

    def note(self, number: int, now: float, patience_s: float) -> Came:
        """``number`` came at ``now``."""
        if number > self.last:
            if number > self.last + 1:
                self.miss(self.last + 1, number - 1, now)
            self.last = number
            return Came.NEW
        if _take_out(self.missing, number):
            self._bound()
            return Came.NEW
        if _take_out(self.told, number):
            self._bound()
            return Came.LATE
        if number >= self.floor:
            return Came.REPEAT
        if now - self.opened > patience_s:
            return Came.UNPLACED
        if number < self.floor - 1:
            self.miss(number + 1, self.floor - 1, now)
        self.floor = number
        return Came.NEW

    def miss(self, first: int, last: int, now: float) -> None:
        """The numbers from ``first`` to ``last`` did not come."""
        if not self.missing and not self.more:
            self.since = now
        self.missing.append([first, last])
        self.missing.sort()
        self._bound()

    def tell(self) -> tuple[list[list[int]], int]:
        """The ranges that are missing and how many numbers in all; from now on they are told."""
        ranges, count = self.missing, self.missing_count
        self.told = sorted(self.told + ranges)
        self.missing, self.more = [], 0
        self._bound()
        return ranges, count

    def _bound(self) -> None:
        while len(self.missing) > RANGES_MAX:
            first, last = self.missing.pop(0)
            self.more += last - first + 1
            self.floor = max(self.floor, last + 1)
        while len(self.told) > TOLD_MAX:
            self.floor = max(self.floor, self.told.pop(0)[1] + 1)


def _take_out(ranges: list[list[int]], number: int) -> bool:
    for place, (first, last) in enumerate(ranges):
        if first <= number <= last:
            parts = [[first, number - 1], [number + 1, last]]
            ranges[place : place + 1] = [part for part in parts if part[0] <= part[1]]
            return True
    return False
