"""The newest ids in memory: one dictionary from digest to row number, and the rows as columns (about 210 bytes an id)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from tallystick.journal.dedupe_run import Entry
from tallystick.journal.pieces import joined


class MemoryTable:
    """Filled by the journal's thread; once frozen it is only read. Seqs are added in ascending order."""

    def __init__(self) -> None:
        self.rows: dict[bytes, int] = {}
        self.contents = bytearray()
        self.seqs = array("Q")
        self.indexes = array("Q")
        self.leaf_hashes = bytearray()
        self.made: set[bytes] = set()
        self.events = 0
        self.first_seq = 0
        self.last_seq = 0

    @property
    def entries(self) -> int:
        """Ids and prefixes held."""
        return len(self.rows) + len(self.made)

    def add(
        self,
        ids: Sequence[bytes],
        contents: Iterable[bytes],
        seqs: Iterable[int],
        indexes: Iterable[int],
        leaf_hashes: Iterable[bytes],
    ) -> None:
        """Put in ids that are not there yet, with their columns in the same order."""
        start = len(self.rows)
        self.rows.update(zip(ids, range(start, start + len(ids)), strict=True))
        self.contents += joined(contents)
        _extend(self.seqs, seqs)
        _extend(self.indexes, indexes)
        self.leaf_hashes += joined(leaf_hashes)

    def count(self, first_seq: int, events: int) -> None:
        """Take note that ``events`` events from ``first_seq`` on are represented here."""
        self.first_seq = self.first_seq or first_seq
        self.last_seq = first_seq + events - 1
        self.events += events

    def get(self, digest: bytes) -> Entry | None:
        """The entry of an id digest."""
        row = self.rows.get(digest)
        if row is None:
            return None
        content = bytes(self.contents[16 * row : 16 * row + 16])
        return Entry(content, self.seqs[row], self.indexes[row], bytes(self.leaf_hashes[32 * row : 32 * row + 32]))


def _extend(column: array[int], numbers: Iterable[int]) -> None:
    """Consecutive numbers, which is what a batch has, without an object for each."""
    if isinstance(numbers, range):
        column.frombytes(np.arange(numbers.start, numbers.stop, dtype=np.uint64).tobytes())
    else:
        column.extend(numbers)
