"""Buckets by name, for quotas and limits, kept by one process or by several.

A bucket that fills at a steady rate is known by one number: the clock time at which it is as good as new (the theoretical arrival
time of the generic cell rate algorithm, ITU-T I.371). Who takes from it moves that time on; one whose time has passed need not be kept.

`SharedBuckets` is a table in a mapped file under a file lock, which the kernel takes back from a process that dies. A name's row is one
of the eight in the set that a keyed hash chooses. Where all are taken, here and in `OwnBuckets`, the one that is soonest as good as new goes:
what is owed longest is remembered longest.

    row: digest of the name 16 (zeros: free) | time f64, native byte order
"""

from __future__ import annotations

import fcntl
import heapq
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

_ROW = struct.Struct("=16sd")
_WAYS: Final = 8
_SETS: Final = 2_048
_FREE = bytes(16)
NAMES_MAX: Final = 20_000


class Buckets(Protocol):
    """Times are those of one clock, in seconds, the same for all processes."""

    def locked(self) -> AbstractContextManager[None]:
        """Inside, no other process reads or writes: what is read stays true until it is written. Not to be nested."""
        ...

    def get(self, name: str) -> float:
        """When it is as good as new; minus infinity where nothing is known against it."""
        ...

    def put(self, name: str, new_at: float) -> None:
        """Remember when it will be as good as new."""
        ...


class OwnBuckets:
    """Those of this process, ``names_max`` at most."""

    def __init__(self, names_max: int = NAMES_MAX) -> None:
        self._names_max = names_max
        self._times: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._times)

    def locked(self) -> AbstractContextManager[None]:
        return nullcontext()

    def get(self, name: str) -> float:
        return self._times.get(name, float("-inf"))

    def put(self, name: str, new_at: float) -> None:
        if len(self._times) >= self._names_max and name not in self._times:
            # Half of them at once, so that it costs little each time.
            self._times = dict(heapq.nlargest(self._names_max // 2, self._times.items(), key=lambda item: item[1]))
        self._times[name] = new_at


class SharedBuckets:
    """Those of all processes that opened the file at ``path`` with the same ``key``. Used from one thread of each."""

    def __init__(self, path: Path, key: bytes) -> None:
        size = _SETS * _WAYS * _ROW.size
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, size)  # zeros where nothing was; nothing happens to a file that has its size
        self._map = mmap.mmap(self._fd, size)
        self._key = key[:64]

    @contextmanager
    def locked(self) -> Iterator[None]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def get(self, name: str) -> float:
        digest, start = self._set_of(name)
        for row in range(start, start + _WAYS * _ROW.size, _ROW.size):
            found, new_at = _ROW.unpack_from(self._map, row)
            if found == digest:
                return float(new_at)
        return float("-inf")

    def put(self, name: str, new_at: float) -> None:
        digest, start = self._set_of(name)
        chosen, soonest = start, float("inf")
        for row in range(start, start + _WAYS * _ROW.size, _ROW.size):
            found, row_new_at = _ROW.unpack_from(self._map, row)
            if found in (digest, _FREE):
                chosen = row
                break
            if row_new_at < soonest:
                chosen, soonest = row, row_new_at
        # A process that is killed in the middle leaves at worst one time that never was; it passes like any other.
        _ROW.pack_into(self._map, chosen, digest, new_at)

    def _set_of(self, name: str) -> tuple[bytes, int]:
        """The name's digest, and the offset of its set."""
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16, key=self._key).digest()
        return digest, int.from_bytes(digest[:4], "big") % _SETS * _WAYS * _ROW.size
