"""A sorted table of digests in a file: a filter and a fence in memory, keys and rows read as needed.

Layout, from ``at`` on, little endian:

    fence u64 x ceil(count / 256)   every 256th key
    filter u64 x words              see `dedupe_bloom`
    keys u64 x count                first halves of the digests (big-endian number), ascending
    rows row_size x count           parallel to the keys; the first 8 bytes of a row are the digest's second half

A look-up that passes the filter costs one read of 4 KiB of keys and, when the key is there, one of a row. Tables are
written once, front to back in key order, and never changed.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator

import google_crc32c
import msgspec
import numpy as np

from tallystick.durable import write_all
from tallystick.errors import IntegrityError
from tallystick.journal.dedupe_bloom import Bloom, Words, mapped_words, words_for

_FENCE = 256


class TableInfo(msgspec.Struct, frozen=True):
    """Where a table lies in its file, and its checksums (CRC32C): of fence and filter, of the keys, of the rows."""

    at: int
    count: int
    row_size: int
    index_crc: int
    keys_crc: int
    rows_crc: int

    @property
    def fence_size(self) -> int:
        return 8 * -(-self.count // _FENCE)

    @property
    def filter_at(self) -> int:
        return self.at + self.fence_size

    @property
    def keys_at(self) -> int:
        return self.filter_at + 8 * words_for(self.count)

    @property
    def rows_at(self) -> int:
        return self.keys_at + 8 * self.count

    @property
    def end(self) -> int:
        return self.rows_at + self.row_size * self.count


class Table:
    """Reads one table through a descriptor that its owner keeps open. All reads may raise OSError or IntegrityError."""

    def __init__(self, fd: int, info: TableInfo) -> None:
        self.info = info
        self._fd = fd
        index = self._read_index()
        fences = info.fence_size // 8
        if google_crc32c.value(index) == info.index_crc:
            self._fence = index[:fences]
            self.bloom = Bloom(index[fences:])
        else:
            # Only an index over the keys: it can be made again from them.
            keys = self.keys(0, info.count)
            self._fence = keys[::_FENCE].copy()
            self.bloom = Bloom.for_keys(info.count)
            self.bloom.add(keys)
        self._fence_view = memoryview(self._fence.data)

    def find(self, high: int, low: int) -> tuple[int, bytes] | None:
        """Number and bytes of the row with the digest ``high ‖ low``."""
        first, keys = self._around(high)
        place = bisect_left(keys, high)
        while place < len(keys) and keys[place] == high:
            row = self.rows(first + place, first + place + 1)
            if int.from_bytes(row[:8], "little") == low:
                return first + place, row
            place += 1
        return None

    def position(self, high: int) -> int:
        """How many keys are lower than ``high``."""
        first, keys = self._around(high)
        return first + bisect_left(keys, high)

    def keys(self, start: int, stop: int) -> Words:
        """Keys of the rows [start, stop)."""
        return np.frombuffer(self._read(self.info.keys_at + 8 * start, 8 * (stop - start)), np.uint64)

    def rows(self, start: int, stop: int) -> bytes:
        """Bytes of the rows [start, stop)."""
        size = self.info.row_size
        return self._read(self.info.rows_at + size * start, size * (stop - start))

    def slices(self, bounds: list[int]) -> Iterator[tuple[int, Words, bytes]]:
        """The whole table in as many pieces as there are ``bounds`` (their upper ends): first row number, keys, rows.

        Raises IntegrityError after the last piece when the bytes read do not have the table's checksums.
        """
        start, keys_crc, rows_crc = 0, 0, 0
        for bound in bounds:
            stop = self.info.count if bound == bounds[-1] else max(start, self.position(bound))
            keys, rows = self.keys(start, stop), self.rows(start, stop)
            keys_crc, rows_crc = google_crc32c.extend(keys_crc, keys.tobytes()), google_crc32c.extend(rows_crc, rows)
            yield start, keys, rows
            start = stop
        if (keys_crc, rows_crc) != (self.info.keys_crc, self.info.rows_crc):
            raise IntegrityError("the checksum of a dedupe table does not hold")

    def _around(self, high: int) -> tuple[int, memoryview]:
        """Number of a row at or before the first key not lower than ``high``, and two blocks of keys from there."""
        first = max(bisect_left(self._fence_view, high) - 1, 0) * _FENCE
        stop = min(first + 2 * _FENCE, self.info.count)
        return first, memoryview(self._read(self.info.keys_at + 8 * first, 8 * (stop - first))).cast("Q")

    def _read_index(self) -> Words:
        """Fence and filter, in memory of their own."""
        index = mapped_words((self.info.keys_at - self.info.at) // 8)
        left, at = index.data.cast("B"), self.info.at
        while left:
            count = os.preadv(self._fd, [left], at)
            if not count:
                raise IntegrityError("a dedupe file ends too early")
            left, at = left[count:], at + count
        return index

    def _read(self, at: int, size: int) -> bytes:
        data = os.pread(self._fd, size, at)
        while len(data) < size:
            more = os.pread(self._fd, size - len(data), at + len(data))
            if not more:
                raise IntegrityError("a dedupe file ends too early")
            data += more
        return data


class TableWriter:
    """Writes one table of ``count`` rows at ``at``; the caller syncs the file."""

    def __init__(self, fd: int, at: int, count: int, row_size: int) -> None:
        self._fd = fd
        self._info = TableInfo(at, count, row_size, 0, 0, 0)
        self._fence = np.zeros(self._info.fence_size // 8, np.uint64)
        self._bloom = Bloom.for_keys(count)
        self._keys_crc = 0
        self._rows_crc = 0
        self.written = 0

    @property
    def end(self) -> int:
        """Offset after the whole table."""
        return self._info.end

    def add(self, keys: Words, rows: bytes) -> None:
        """The next keys, ascending, and their rows."""
        info, data = self._info, keys.tobytes()
        write_all(self._fd, data, info.keys_at + 8 * self.written)
        write_all(self._fd, rows, info.rows_at + info.row_size * self.written)
        self._keys_crc = google_crc32c.extend(self._keys_crc, data)
        self._rows_crc = google_crc32c.extend(self._rows_crc, rows)
        skip = -self.written % _FENCE
        fenced = keys[skip::_FENCE]
        start = (self.written + skip) // _FENCE
        self._fence[start : start + len(fenced)] = fenced
        self._bloom.add(keys)
        self.written += len(keys)

    def finish(self) -> TableInfo:
        """Write fence and filter. Raises IntegrityError when another number of rows came than was announced."""
        if self.written != self._info.count:
            raise IntegrityError(f"a dedupe table of {self._info.count} rows was given {self.written}")
        index_crc = 0
        for at, words in ((self._info.at, self._fence), (self._info.filter_at, self._bloom.words)):
            write_all(self._fd, words.data.cast("B"), at)
            index_crc = google_crc32c.extend(index_crc, words)
        return msgspec.structs.replace(self._info, index_crc=index_crc, keys_crc=self._keys_crc, rows_crc=self._rows_crc)
