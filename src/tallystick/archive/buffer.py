"""One tenant's events on their way from the journal to a chunk: what is read and not yet archived.

Lines wait compressed, in blocks of about 64 KiB, so that ``hot_bytes`` of lines take a seventh of that memory. Everything
here is also in the journal: a crash loses nothing, the cursor brings it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import zstandard

from tallystick.journal.cursor import Position

_BLOCK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Taken:
    """A tenant's window ``start`` to ``end`` (exclusive): parallel lists of its events, and the spans that are lost."""

    handle: str
    start: int
    end: int
    lines: list[bytes]
    indexes: list[int]
    seqs: list[int]
    lost: list[tuple[int, int]]


class TenantBuffer:
    """Events from index ``start`` to ``end`` (exclusive). ``since`` is the Unix time of receipt of the oldest; ``read_at`` and
    ``position`` say with which read of the journal its first frame came. ``size`` is in bytes of lines."""

    def __init__(self, handle: str, start: int, since: float, read_at: int, position: Position) -> None:
        self.handle = handle
        self.start = self.end = start
        self.since = since
        self.read_at = read_at
        self.position = position
        self.size = 0
        self._runs: list[list[int]] = []  # [first index, first seq, count]
        self._lost: list[tuple[int, int]] = []
        self._blocks: list[bytes] = []
        self._open: list[bytes] = []
        self._open_bytes = 0

    def add(self, first_index: int, first_seq: int, lines: Sequence[bytes]) -> None:
        """Append lines with consecutive indexes and seqs; ``first_index`` is not below ``end``, a gap before it is lost."""
        self.add_lost(self.end, first_index - self.end)
        run = self._runs[-1] if self._runs else None
        if run and run[0] + run[2] == first_index and run[1] + run[2] == first_seq:
            run[2] += len(lines)
        else:
            self._runs.append([first_index, first_seq, len(lines)])
        self.end = first_index + len(lines)
        added = sum(map(len, lines))
        self.size += added
        self._open.extend(lines)
        self._open_bytes += added
        if self._open_bytes >= _BLOCK_BYTES:
            self._blocks.append(zstandard.ZstdCompressor(level=1).compress(b"\n".join(self._open)))
            self._open, self._open_bytes = [], 0

    def add_lost(self, first_index: int, count: int) -> None:
        """Note that events are gone; what lies below ``end`` is passed over."""
        count -= max(0, self.end - first_index)
        if count > 0:
            self._lost.append((max(first_index, self.end), count))
            self.end = self._lost[-1][0] + count

    def take(self) -> Taken:
        """All of it, decompressed. The buffer stays as it is until its owner drops it."""
        decompress = zstandard.ZstdDecompressor().decompress
        lines = [line for block in self._blocks for line in decompress(block).split(b"\n")]
        lines += self._open
        indexes = [first + place for first, _seq, count in self._runs for place in range(count)]
        seqs = [seq + place for _first, seq, count in self._runs for place in range(count)]
        return Taken(self.handle, self.start, self.end, lines, indexes, seqs, list(self._lost))
