"""The metric files of one process, of which every byte is allocated before it is mapped.

prometheus_client keeps its values in mapped files that it makes sparse. The first touch of a page that has no block yet,
on a disk that is full by then, is no error that a program can catch: the kernel ends the process with SIGBUS. So the
intake died of a counter for refusals, just when the disk was full. Here blocks are taken with ``posix_fallocate`` first,
and where that fails the value is counted in memory alone until there is room again: metrics are the first thing to do without.
"""

from __future__ import annotations

import os
import time
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

_FIRST_BYTES = 1 << 16
_OVERHEAD = 4 + 8 + 16  # length, padding, value and time stamp of an entry
_TRY_AGAIN_S = 5.0


class AllocatedDict:
    """In the place of the library's `MmapedDict`. Not thread-safe: the library calls it under its own lock."""

    def __init__(self, filename: str) -> None:
        self._filename = filename
        self._dict: Any = None
        self._placed: set[str] = set()
        self._next_try = 0.0

    def read_value(self, key: str) -> tuple[float, float]:
        """Value and time stamp, zeros for one that is new."""
        found: tuple[float, float] = self._dict.read_value(key) if self._has_place(key) else (0.0, 0.0)
        return found

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Store the value, or let it be while there is no room for its key."""
        if key in self._placed or self._has_place(key):
            self._dict.write_value(key, value, timestamp)

    def close(self) -> None:
        """Let go of the file."""
        if self._dict is not None:
            self._dict.close()

    def _has_place(self, key: str) -> bool:
        if time.monotonic() < self._next_try:
            return False
        try:
            self._make_place(key)
        except OSError:  # no room, no descriptor: said by those who have more to lose
            self._next_try = time.monotonic() + _TRY_AGAIN_S
            return False
        return True

    def _make_place(self, key: str) -> None:
        if self._dict is None:
            _allocate(self._filename, _FIRST_BYTES)
            self._dict = MmapedDict(self._filename)  # type: ignore[no-untyped-call]
        needed, capacity = self._dict._used + len(key.encode()) + _OVERHEAD, self._dict._capacity
        if needed > capacity:
            _allocate(self._filename, capacity << (needed // capacity).bit_length())  # the library doubles until it fits
        self._placed.add(key)


def use_allocated_files() -> None:
    """Make the library keep its values in such files. Call before a metric is made."""
    values.MmapedDict = AllocatedDict  # type: ignore[attr-defined, assignment]


def _allocate(filename: str, size: int) -> None:
    """Give every byte up to ``size``, or up to the file's end, a block. Raises OSError."""
    fd = os.open(filename, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, max(size, os.fstat(fd).st_size))
    finally:
        os.close(fd)
