"""Who holds how much of something bounded: in this process, or in several that share one bound.

`SharedHoldings` is a table in a mapped file. Each process writes only the region with its number and reads the sum over all regions, so
there is no lock: what a reader sees may be a moment old, and two processes that look at the same moment can together pass a bound by
what each of them takes then. A process that was killed gives nothing back: `forget` empties its region, and so does its successor's start.

A region is an array of 64-bit counts, native byte order. Count 0 is the sum, count 1 what is only on its way (`expect`); a holder's is chosen
by a keyed hash of its name, so two holders can share one (a chance of 1 in 16,382 for any two), and then each seems to hold what both do.
"""

from __future__ import annotations

import mmap
import os
from collections import defaultdict
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

_COUNTS: Final = 16_384
_COUNT_BYTES: Final = 8
_PLACES_MAX = 10_000


class Holdings(Protocol):
    """What `SharedBytes` and the caps of connections are kept in."""

    @property
    def total(self) -> int:
        """Held by all."""
        ...

    def held(self, holder: str) -> int:
        """Held by one."""
        ...

    def add(self, holder: str, size: int) -> None:
        """Hold ``size`` more, or less when it is negative."""
        ...


class OwnHoldings:
    """Those of this process alone."""

    __slots__ = ("_held", "total")

    def __init__(self) -> None:
        self.total = 0
        self._held: defaultdict[str, int] = defaultdict(int)

    def held(self, holder: str) -> int:
        return self._held.get(holder, 0)

    def add(self, holder: str, size: int) -> None:
        self.total += size
        left = self._held[holder] + size
        if left:
            self._held[holder] = left
        else:
            del self._held[holder]


class SharedHoldings:
    """Those of all processes that opened the file at ``path``. Used from one thread.

    ``process`` counts from 0 and is this one's alone; ``processes`` and the ``key`` of the hash are the same everywhere.
    """

    def __init__(self, path: Path, process: int, processes: int, key: bytes) -> None:
        size = processes * _COUNTS * _COUNT_BYTES
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size)  # zeros where nothing was; nothing happens to a file that has its size
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        counts = memoryview(self._map).cast("Q")
        self._regions = [counts[number * _COUNTS : (number + 1) * _COUNTS] for number in range(processes)]
        self._own = self._regions[process]
        self._own[:] = memoryview(bytes(_COUNTS * _COUNT_BYTES)).cast("Q")
        self._key = key[:64]
        self._places: dict[str, int] = {}

    @property
    def total(self) -> int:
        return sum([region[0] for region in self._regions])

    def expect(self, size: int) -> None:
        """So much is on its way to this process and not held yet; it counts in `loads` alone."""
        self._own[1] = size

    def loads(self) -> list[int]:
        """What each process holds or expects, by its number."""
        return [region[0] + region[1] for region in self._regions]

    @property
    def own_load(self) -> int:
        """What this process holds or expects."""
        return self._own[0] + self._own[1]

    def held(self, holder: str) -> int:
        place = self._place(holder)
        return sum([region[place] for region in self._regions])

    def add(self, holder: str, size: int) -> None:
        self._own[0] += size
        self._own[self._place(holder)] += size

    def _place(self, holder: str) -> int:
        place = self._places.get(holder)
        if place is None:
            digest = blake2b(holder.encode("utf-8", "surrogatepass"), digest_size=8, key=self._key).digest()
            place = 2 + int.from_bytes(digest, "big") % (_COUNTS - 2)
            if len(self._places) >= _PLACES_MAX:
                self._places.clear()
            self._places[holder] = place
        return place


def forget(path: Path, process: int) -> None:
    """Empty the region of a process that has ended. Nothing happens where there is no file yet."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.pwrite(fd, bytes(_COUNTS * _COUNT_BYTES), process * _COUNTS * _COUNT_BYTES)
    finally:
        os.close(fd)
