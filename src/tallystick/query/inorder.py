"""Matches of one tenant in tree order, for exports: a merge over chunks and hot batches.

Chunks of different retention classes interleave in index, so this is a merge of runs. A run is one chunk, or one hot batch,
given piece by piece (row group by row group). A step finds the highest index up to which every run that is under way has
been read, and gives out everything up to it. No piece is read twice, and one piece a run is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tallystick.query.slices import Slice

Pieces = Callable[[], Iterator[tuple[int, Slice]]]  # (highest index, slice), in index order


class Run:
    """Pieces from index ``first`` on; ``matches`` gives the matching rows of a slice."""

    def __init__(self, first: int, pieces: Pieces, matches: Callable[[Slice], pa.Table]) -> None:
        self.first = first
        self.high = -1
        self._pieces = pieces
        self._matches = matches
        self._iterator: Iterator[tuple[int, Slice]] | None = None
        self._table: pa.Table | None = None

    def advance(self) -> bool:
        """Read the next piece; False when there is none."""
        if self._iterator is None:
            self._iterator = self._pieces()
        step = next(self._iterator, None)
        if step is None:
            return False
        self.high, self._table = step[0], self._matches(step[1])
        return True

    def take(self, high: int) -> pa.Table:
        """The rows up to an index, which are then gone from the run."""
        table = self._table
        if table is None:
            raise ValueError("take before advance")
        if self.high <= high:
            self._table = table.slice(0, 0)
            return table
        is_inside = pc.less_equal(table["index"], high)
        self._table = table.filter(pc.invert(is_inside))
        return table.filter(is_inside)


def merge_runs(runs: Sequence[Run]) -> Iterator[tuple[int, pa.Table]]:
    """(next index, rows): all rows of the runs in index order; everything below the next index has been given."""
    waiting = sorted(runs, key=lambda run: run.first, reverse=True)
    active: list[Run] = []
    while waiting or active:
        while waiting and (not active or waiting[-1].first <= min(run.high for run in active)):
            run = waiting.pop()
            if run.advance():
                active.append(run)
        if not active:
            continue
        high = min(run.high for run in active)
        rows = pa.concat_tables([run.take(high) for run in active])
        yield high + 1, rows.sort_by("index") if len(active) > 1 else rows
        active = [run for run in active if run.high > high or run.advance()]
