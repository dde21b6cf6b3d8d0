"""The hot part: events that are durable and not archived yet, read from the journal as the queries need them.

Rules

1. Events are kept by `Span`, one stretch of the journal each. `refresh` reads on to the durable mark and gives out what
   every tenant has; the caller takes the catalog's view *after* that, and leaves out what lies below the view's mark.
   The mark only ever rises, and a segment goes only after the mark has passed it, so what the view does not hold as
   chunks is in the spans: no holes. And nothing below the mark is taken from them: no repeats.
2. Spans whose events are all archived are dropped.
3. Lines held in memory stay within ``bytes_max``. Past it (the archive store is away, say) the oldest spans keep only
   their positions, and are read again for each query that reaches them: slow, but whole and bounded.
4. Columns are made when a query first asks for a tenant, not before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tallystick.archive.columns import columns_from_lines
from tallystick.journal.cursor import Position
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import JournalReader
from tallystick.query.slices import StaleSnapshotError

READ_BYTES = 8 * 2**20
_TABLES_MAX = 16

Loader = Callable[[], pa.Table]  # reads a span again


@dataclass(slots=True)
class _Rows:
    """One tenant's events in a span, first as lines, then as columns."""

    lines: list[bytes] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)

    def add(self, frame: Frame, first: int) -> int:
        """Take a frame's events with ``first`` and higher indexes; how many bytes of lines these are."""
        skip = max(0, first - frame.first_index)
        if skip >= frame.count:
            return 0
        lines = frame.lines()[skip:]
        self.lines += lines
        self.indexes += range(frame.first_index + skip, frame.first_index + frame.count)
        self.seqs += range(frame.first_seq + skip, frame.first_seq + frame.count)
        return sum(map(len, lines))

    def table(self) -> pa.Table:
        """All events so far; tables are immutable, so a query may keep it."""
        if self.lines:
            self.tables.append(columns_from_lines(self.lines, self.indexes, self.seqs))
            self.lines, self.indexes, self.seqs = [], [], []
            if len(self.tables) > _TABLES_MAX:
                self.tables = [pa.concat_tables(self.tables).combine_chunks()]
        return pa.concat_tables(self.tables)


@dataclass(slots=True)
class _Span:
    """From ``start`` to ``end`` in the journal. By tenant: ``skips``, below which index events were archived when the span
    was first read; ``firsts`` and ``counts``, the events taken; ``ends``, the index after the last, lost ones included.

    ``rows`` is None while the lines are not held.
    """

    start: Position
    end: Position
    skips: dict[str, int] = field(default_factory=dict)
    firsts: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    rows: dict[str, _Rows] | None = field(default_factory=dict)
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class HotTenant:
    """What the hot part knows of one tenant: the index after its last event, and its events, oldest first.

    A table where the events are held, a loader where they have to be read again.
    """

    end: int
    tables: list[pa.Table | Loader]


class HotPart:
    """Shared by all queries of a process; thread-safe."""

    def __init__(
        self,
        journal: JournalReader,
        bytes_max: int,
        marks: Callable[[], dict[str, int]],
        start: Callable[[], Position | None] = lambda: None,
    ) -> None:
        """``start`` gives a position before which all is archived (the archiver's cursor), or None for the oldest segment."""
        self._journal = journal
        self._bytes_max = bytes_max
        self._marks = marks
        self._start = start
        self._spans: list[_Span] = []
        self._position: Position | None = None
        self._ends: dict[str, int] = {}
        self._lock = threading.Lock()

    def refresh(self, handles: Iterable[str]) -> dict[str, HotTenant]:
        """Read on to the durable mark; then what these tenants have. Events that are archived may be among them."""
        with self._lock:
            marks = self._marks()
            self._spans = [span for span in self._spans if not _is_archived(span, marks)]
            self._read_on(marks)
            self._shed()
            return {handle: HotTenant(self._ends.get(handle, 0), self._tables(handle)) for handle in handles}

    @property
    def bytes_held(self) -> int:
        """Bytes of lines in memory."""
        return sum(span.bytes for span in self._spans if span.rows is not None)

    def _read_on(self, marks: dict[str, int]) -> None:
        if self._position is None:
            self._position = self._start() or self._journal.oldest()
        while True:
            start = self._position
            frames, self._position = self._journal.read(start, READ_BYTES)
            if not frames and self._position == start:
                return
            span = self._spans[-1] if self._spans else None
            if span is None or span.rows is None or span.bytes >= READ_BYTES or span.end != start:
                span = _Span(start, start)
                self._spans.append(span)
            _take(span, frames, marks)
            span.end = self._position
            self._ends.update(span.ends)
            if not span.counts:
                self._spans.pop()
            self._shed()

    def _shed(self) -> None:
        held = self.bytes_held
        for span in self._spans:
            if held <= self._bytes_max:
                return
            if span.rows is not None:
                span.rows = None
                held -= span.bytes

    def _tables(self, handle: str) -> list[pa.Table | Loader]:
        tables: list[pa.Table | Loader] = []
        for span in self._spans:
            if handle not in span.counts:
                continue
            if span.rows is not None:
                tables.append(span.rows[handle].table())
            else:
                tables.append(self._loader(handle, span))
        return tables

    def _loader(self, handle: str, span: _Span) -> Loader:
        """Reads the tenant's events of a span again. The span may grow meanwhile no more: it holds no lines."""
        first, count = span.firsts[handle], span.counts[handle]

        def load() -> pa.Table:
            rows, position = _Rows(), span.start
            with self._lock:
                while len(rows.lines) < count:
                    frames, following = self._journal.read(position, READ_BYTES)
                    if not frames and following == position:
                        break
                    position = following
                    for frame in frames:
                        if isinstance(frame, Frame) and frame.type == FrameType.EVENTS and frame.handle == handle:
                            rows.add(frame, span.skips[handle])
            if len(rows.lines) < count or rows.indexes[0] != first:
                raise StaleSnapshotError  # the segment has gone: what it held is in the archive
            return rows.table().slice(0, count)

        return load


def _take(span: _Span, frames: list[Any], marks: dict[str, int]) -> None:
    """Put the events of some frames into a span; those archived already are not even decrypted."""
    for frame in frames:
        if not isinstance(frame, Frame) or frame.type not in (FrameType.EVENTS, FrameType.LOST):
            continue
        handle, end = frame.handle, frame.first_index + frame.count
        span.ends[handle] = max(span.ends.get(handle, 0), end)
        skip = span.skips.setdefault(handle, marks.get(handle, 0))
        if frame.type != FrameType.EVENTS or end <= skip or span.rows is None:
            continue
        span.firsts.setdefault(handle, max(frame.first_index, skip))
        span.bytes += span.rows.setdefault(handle, _Rows()).add(frame, skip)
        span.counts[handle] = span.counts.get(handle, 0) + end - max(frame.first_index, skip)


def _is_archived(span: _Span, marks: dict[str, int]) -> bool:
    return all(span.ends[handle] <= marks.get(handle, 0) for handle in span.counts)
