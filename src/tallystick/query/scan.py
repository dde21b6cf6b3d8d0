"""One scan: which rows of a slice match, in exact terms, within a deadline.

For a query that SQL expresses exactly, DuckDB's answer is the answer. For any other, in this order, and only as far as
needed:

1. ``coarse``: the condition over columns without lines. No candidate left: done.
2. Few candidates: fetch their lines and ask the evaluator.
3. Many: ``fine``, the condition that also looks into lines (8 GB/s, where decoding does 0.1), then the evaluator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tallystick.archive.columns import CHUNK_SCHEMA
from tallystick.query.database import TABLE, Database
from tallystick.query.evaluate import Matcher
from tallystick.query.nodes import Node
from tallystick.query.slices import Slice
from tallystick.query.sql import Where, to_where

_FEW = 256
_LINES_PER_CHECK = 512


class TimeUpError(Exception):
    """The scan's deadline has passed; what was found before stands. Never leaves the engine."""


class Deadline:
    """A moment on the monotonic clock, ``seconds`` from now; None for never."""

    def __init__(self, seconds: float | None) -> None:
        self._at = None if seconds is None else time.monotonic() + seconds

    def check(self) -> None:
        """Raises TimeUpError when it has passed."""
        if self._at is not None and time.monotonic() >= self._at:
            raise TimeUpError


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked of one tenant's events. Times are microseconds, ``end`` and ``index_end`` exclusive."""

    handle: str
    tenant: str
    node: Node
    coarse: Where
    fine: Where
    matcher: Matcher
    time: str
    start: int | None
    end: int | None
    index_end: int

    @classmethod
    def make(
        cls, handle: str, tenant: str, node: Node, *, time: str, start: int | None, end: int | None, index_end: int
    ) -> Selection:
        coarse = to_where(node, into_lines=False)
        fine = coarse if coarse.is_exact else to_where(node)
        return cls(handle, tenant, node, coarse, fine, Matcher(node), time, start, end, index_end)

    @property
    def columns(self) -> set[str]:
        """The columns that deciding about a row may read."""
        return {"index", self.time} | (self.coarse.columns if self.coarse.is_exact else self.fine.columns | {"line"})

    def first_columns(self, outputs: Sequence[str] = ()) -> list[str]:
        """The columns that the first look at a slice reads: ``outputs`` among them where every row is wanted."""
        if self.coarse.is_exact:
            return sorted({*self.coarse.columns, "index", self.time, *(() if self.coarse.columns else outputs)})
        where = self.coarse if self.coarse.columns else self.fine
        return sorted({*where.columns, "index", self.time, *(() if self.coarse.columns else ("line",))})


Key = tuple[int, int, str]  # time in microseconds, index, handle: what pages are sorted by


class Scanner:
    """Runs selections over slices with one database."""

    def __init__(self, database: Database, deadline: Deadline) -> None:
        self._database = database
        self._deadline = deadline

    def matches(self, source: Slice, selection: Selection, outputs: Sequence[str]) -> pa.Table:
        """All matching rows, with the columns ``outputs``. Raises TimeUpError."""
        if selection.coarse.is_exact:
            table = source.read(selection.first_columns(outputs))
            kept = self._ask(table, selection, selection.coarse, ["index"])["index"]
        else:
            candidates = self._candidates(source, selection, [])
            table, kept = None, pa.array(list(self._judge(selection, candidates())), pa.int64())
        if table is None or not set(outputs).issubset(table.column_names):
            if not len(kept):
                return CHUNK_SCHEMA.empty_table().select(list(outputs))
            table = source.read(sorted({*outputs, "index"}))
        if len(kept) < table.num_rows:
            table = table.filter(pc.is_in(table["index"], value_set=kept))
        return table.select(list(outputs))

    def best(self, source: Slice, selection: Selection, limit: int, after: Key | None, *, newest_first: bool) -> list[Key]:
        """The first ``limit`` matches in the order of keys (descending when ``newest_first``), all beyond ``after``."""
        direction = "DESC" if newest_first else "ASC"
        tail = f'ORDER BY "at" {direction}, "index" {direction}'
        beyond = _beyond(source.handle, after, newest_first=newest_first)
        if selection.coarse.is_exact:
            rows = self._ask_slice(source, selection, selection.coarse, ["index", "at"], beyond, f"{tail} LIMIT {int(limit)}")
            return [(at, index, source.handle) for index, at in zip(*_lists(rows, "index", "at"), strict=True)]
        found: list[Key] = []
        times: dict[int, int] = {}
        candidates = self._candidates(source, selection, ["at"], beyond, tail, times)
        for index in self._judge(selection, candidates()):
            found.append((times[index], index, source.handle))
            if len(found) == limit:
                break
        return found

    def _candidates(
        self,
        source: Slice,
        selection: Selection,
        outputs: Sequence[str],
        beyond: str = "TRUE",
        tail: str = "",
        times: dict[int, int] | None = None,
    ) -> Callable[[], Iterator[tuple[int, bytes]]]:
        """Index and line of every row that may match, in the order of ``tail``; their times go to ``times``."""
        if selection.coarse.columns:
            rows = self._ask_slice(source, selection, selection.coarse, ["index", *outputs], beyond, tail)
        else:
            rows = None
        if rows is not None and rows.num_rows <= _FEW:
            indexes = rows["index"].to_pylist()
            lines = source.lines(indexes) if indexes else []
        else:
            rows = self._ask_slice(source, selection, selection.fine, ["index", "line", *outputs], beyond, tail)
            indexes, lines = rows["index"].to_pylist(), None
        if times is not None:
            times.update(zip(indexes, rows["at"].to_pylist(), strict=True))
        return lambda: iter(zip(indexes, _bytes(rows["line"]) if lines is None else lines, strict=True))

    def _judge(self, selection: Selection, candidates: Iterator[tuple[int, bytes]]) -> Iterator[int]:
        """The indexes of the candidates that the evaluator takes, decoded some at a time."""
        while batch := list(islice(candidates, _LINES_PER_CHECK)):
            self._deadline.check()
            for place in selection.matcher.matching([line for _, line in batch]):
                yield batch[place][0]

    def _ask_slice(
        self, source: Slice, selection: Selection, where: Where, outputs: Sequence[str], beyond: str, tail: str
    ) -> pa.Table:
        columns = {*outputs, *where.columns, "index", selection.time} - {"at"}
        return self._ask(source.read(sorted(columns)), selection, where, outputs, beyond, tail)

    def _ask(
        self, table: pa.Table, selection: Selection, where: Where, outputs: Sequence[str], beyond: str = "TRUE", tail: str = ""
    ) -> pa.Table:
        """Rows under a condition, the time range, the snapshot's end and ``beyond``. ``at`` is the time in microseconds."""
        self._deadline.check()
        conditions = [f'"index" < {int(selection.index_end)}', where.text, beyond]
        if selection.start is not None:
            conditions.append(f'"at" >= {int(selection.start)}')
        if selection.end is not None:
            conditions.append(f'"at" < {int(selection.end)}')
        names = ", ".join(f'"{name}"' for name in outputs)
        sql = (
            f'SELECT {names} FROM (SELECT *, epoch_us("{selection.time}") AS "at" FROM {TABLE})'  # noqa: S608
            f' WHERE "at" IS NOT NULL AND {" AND ".join(conditions)} {tail}'
        )
        return self._database.ask(where.prepare(table), sql, where.parameters)


def _beyond(handle: str, after: Key | None, *, newest_first: bool) -> str:
    """The rows of a tenant that come after a key. Numbers of ours only, so they may stand in the text."""
    if after is None:
        return "TRUE"
    at, index, last_handle = after
    sign = "<" if newest_first else ">"
    is_beyond = handle < last_handle if newest_first else handle > last_handle
    return f'("at" {sign} {int(at)} OR ("at" = {int(at)} AND "index" {sign}{"=" if is_beyond else ""} {int(index)}))'


def _lists(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


def _bytes(column: pa.ChunkedArray) -> Iterator[bytes]:
    """Lines as bytes, a batch at a time: a scan that stops early has not made objects of the rest."""
    for chunk in column.chunks:
        for start in range(0, len(chunk), _LINES_PER_CHECK):
            yield from chunk.slice(start, _LINES_PER_CHECK).cast(pa.binary()).to_pylist()
