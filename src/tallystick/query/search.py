"""One page, best first: what can hold the newest events is looked at first, and the scan stops when nothing can be better.

Everything that may hold a match (chunks, slices of chunks, hot batches) waits in a heap under the bound of its times. The
top is taken: a chunk is replaced by its slices, a slice gives its best keys. Once a page is full and its worst key is
better than the bound on top of the heap, no event anywhere can displace one of the page. Equal times go on: ties are
settled by index, which bounds do not know.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import count

import pyarrow as pa

from tallystick.archive.catalog import ChunkRow
from tallystick.query.inorder import Run
from tallystick.query.scan import Key, Scanner, Selection, TimeUpError
from tallystick.query.slices import ChunkFiles, ErasedError, Slice, chunk_pieces, chunk_slices, read_ahead

_FIRST = float("-inf")


class Sources:
    """What a scan has to look at: chunks of the catalog's view, and the hot batches beside them."""

    def __init__(self, files: ChunkFiles, chunks: Sequence[ChunkRow], hot: Sequence[Slice], time: str, pool: Executor) -> None:
        self._files = files
        self._pool = pool
        self._chunks = chunks
        self._hot = hot
        self._time = time

    def ordered(
        self, selections: Mapping[str, Selection], outputs: Sequence[str] = (), *, newest_first: bool = True
    ) -> Iterator[tuple[float, Slice]]:
        """(urgency, slice), most urgent first; no row of it or of any later slice has an urgency below that.

        Urgency is the bound of time, negated when newest first: a number that only grows. ``outputs`` are columns that the
        scan will want beside those that it decides by.
        """
        slices = self._in_order(selections, newest_first=newest_first)
        return read_ahead(slices, lambda source: selections[source.handle].first_columns(outputs), self._pool)

    def _in_order(self, selections: Mapping[str, Selection], *, newest_first: bool) -> Iterator[tuple[float, Slice]]:
        ties = count()
        heap: list[tuple[float, int, ChunkRow | Slice]] = []
        for row in self._chunks:
            low, high = _chunk_bounds(row, self._time)
            heapq.heappush(heap, (_urgency(low, high, newest_first=newest_first), next(ties), row))
        for hot in self._hot:
            heapq.heappush(heap, (_urgency(hot.low, hot.high, newest_first=newest_first), next(ties), hot))
        while heap:
            urgency, _, item = heapq.heappop(heap)
            if not isinstance(item, ChunkRow):
                yield urgency, item
                continue
            for part in self._open(item, selections[item.handle], newest_first=newest_first):
                heapq.heappush(heap, (_urgency(part.low, part.high, newest_first=newest_first), next(ties), part))

    def bounds(self) -> tuple[int, int] | None:
        """Lowest and highest time of everything here; None when there is nothing, or only batches not yet read."""
        pairs = [_chunk_bounds(row, self._time) for row in self._chunks] + [(hot.low, hot.high) for hot in self._hot]
        known = [(low, high) for low, high in pairs if low is not None and high is not None]
        return (min(low for low, _ in known), max(high for _, high in known)) if known else None

    def runs(self, matches: Callable[[Slice], pa.Table]) -> list[Run]:
        """All of it as runs in index order; for one tenant."""
        runs = [Run(row.first, partial(self._pieces, row), matches) for row in self._chunks]
        return runs + [Run(0, partial(_whole, hot), matches) for hot in self._hot]

    def _pieces(self, row: ChunkRow) -> Iterator[tuple[int, Slice]]:
        try:
            yield from chunk_pieces(self._files, row)
        except ErasedError:
            return

    def _open(self, row: ChunkRow, selection: Selection, *, newest_first: bool) -> Sequence[Slice]:
        try:
            slices = chunk_slices(self._files, row, self._time, sorted(selection.columns), newest_first=newest_first)
        except ErasedError:
            return []
        return [part for part in slices if _may_match(part, selection)]


def find_page(
    scanner: Scanner,
    sources: Sources,
    selections: Mapping[str, Selection],
    *,
    limit: int,
    after: Key | None,
    newest_first: bool,
) -> tuple[list[tuple[Key, Slice]], bool]:
    """The first ``limit`` matches beyond ``after`` with their slices, in order; and whether time ran out before all was seen."""
    best: list[tuple[Key, Slice]] = []
    sign = -1 if newest_first else 1
    try:
        for urgency, source in sources.ordered(selections, newest_first=newest_first):
            if len(best) == limit and urgency > sign * best[-1][0][0]:
                break
            keys = scanner.best(source, selections[source.handle], limit, after, newest_first=newest_first)
            best += [(key, source) for key in keys]
            best.sort(key=lambda item: item[0], reverse=newest_first)
            del best[limit:]
    except TimeUpError:
        return best, True
    return best, False


def _whole(hot: Slice) -> Iterator[tuple[int, Slice]]:
    """A hot batch in one piece: its last index is its highest."""
    index = hot.read(["index"])["index"]
    if len(index):
        yield index[-1].as_py(), hot


def _urgency(low: int | None, high: int | None, *, newest_first: bool) -> float:
    if low is None or high is None:
        return _FIRST
    return -high if newest_first else low


def _chunk_bounds(row: ChunkRow, time: str) -> tuple[int | None, int | None]:
    return (row.received_min, row.received_max) if time == "received_at" else (row.occurred_min, row.occurred_max)


def _may_match(part: Slice, selection: Selection) -> bool:
    """Whether the bounds of a slice of a chunk leave room within the time range."""
    if part.low is None or part.high is None:
        return True
    return (selection.start is None or part.high >= selection.start) and (selection.end is None or part.low < selection.end)
