"""Counts over all matching events: in all, over time, and by value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tallystick.errors import QueryError
from tallystick.query.fields import Path, resolve_path
from tallystick.query.request import Bucket, Count, Facets, Histogram
from tallystick.query.scan import Scanner, Selection, TimeUpError
from tallystick.query.search import Sources
from tallystick.query.sql import LIST_COLUMNS, TEXT_COLUMNS
from tallystick.query.values import to_datetime

FACETS = ("outcome", "action", "category", "severity", "actor", "actor.type", "target", "target.type", "ip", "source.name")
"""The facets shown when none are named."""

_FACET_COLUMNS: Mapping[Path, str] = {**TEXT_COLUMNS, **LIST_COLUMNS, ("severity",): "severity"}
VALUES_MAX = 100_000  # distinct values counted per facet; past it the rarest are given up, so their counts may be low

_NO_OUTCOME = "unknown"
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_WIDTHS_S = (
    *(0.001, 0.01, 0.1, 1, 5, 10, 30),
    *(_MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR),
    *(_DAY, 7 * _DAY, 30 * _DAY, 90 * _DAY, 365 * _DAY, 3_650 * _DAY, 36_500 * _DAY),
)
_MICROS = 1_000_000
_EARLIEST = -62_135_596_800 * _MICROS  # 0001-01-01, where Python's calendar begins; a bucket may begin before


def count_matches(scanner: Scanner, sources: Sources, selections: Mapping[str, Selection]) -> Count:
    """The number of matches."""
    total = 0
    try:
        for _, source in sources.ordered(selections):
            total += scanner.matches(source, selections[source.handle], ["index"]).num_rows
    except TimeUpError:
        return Count(total, partial=True)
    return Count(total, partial=False)


def make_histogram(
    scanner: Scanner,
    sources: Sources,
    selections: Mapping[str, Selection],
    time: str,
    start: int | None,
    end: int | None,
    buckets_max: int,
) -> Histogram:
    """Matches by time and outcome. The buckets span the range asked for where it is given, else the events found."""
    known = sources.bounds()
    low = start if start is not None else known[0] if known else None
    high = end if end is not None else known[1] + 1 if known else None
    if low is None or high is None or high <= low:
        return Histogram([], 0.0, 0, partial=False)
    width = bucket_width(high - low, buckets_max)
    counts: dict[int, Counter[str]] = {}
    partial = False
    outputs = [time, "outcome"]
    try:
        for _, source in sources.ordered(selections, outputs):
            table = scanner.matches(source, selections[source.handle], outputs)
            _count_into(counts, table, time, width)
    except TimeUpError:
        partial = True
    if not counts:
        return Histogram([], width / _MICROS, 0, partial)
    first = low // width if start is not None else min(counts)
    last = (high - 1) // width if end is not None else max(counts)
    buckets = [
        Bucket(to_datetime(max(number * width, _EARLIEST)), dict(counts.get(number, {}))) for number in range(first, last + 1)
    ]
    return Histogram(buckets, width / _MICROS, sum(counter.total() for counter in counts.values()), partial)


def top_values(
    scanner: Scanner, sources: Sources, selections: Mapping[str, Selection], names: Sequence[str] | None, top: int
) -> Facets:
    """The most frequent values of each facet, named as fields in a query. Raises QueryError for what cannot be counted."""
    columns = {name: facet_column(name) for name in (FACETS if names is None else names)}
    tallies = {name: Tally() for name in columns}
    outputs = list(dict.fromkeys(columns.values()))
    total, partial = 0, False
    try:
        for _, source in sources.ordered(selections, outputs):
            table = scanner.matches(source, selections[source.handle], outputs)
            total += table.num_rows
            for name, column in columns.items():
                tallies[name].add(_values_of(table[column], column))
    except TimeUpError:
        partial = True
    return Facets({name: tally.top(top) for name, tally in tallies.items()}, total, partial)


class Tally:
    """Counts of one facet's values, kept as Arrow tables: there may be very many of them."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._rows = 0

    def add(self, values: Any) -> None:
        """Count the values of a column without nulls."""
        pairs = pc.value_counts(values)
        self._parts.append(pa.table({"value": pairs.field("values"), "n": pairs.field("counts")}))
        self._rows += len(pairs)
        if self._rows > 4 * VALUES_MAX:
            table = self._sorted().slice(0, VALUES_MAX)
            self._parts, self._rows = [table], len(table)

    def top(self, count: int) -> list[tuple[str, int]]:
        """The most frequent values, highest count first, equal ones in the order of their values."""
        if not self._parts:
            return []
        return [(str(row["value"]), row["n"]) for row in self._sorted().slice(0, count).to_pylist()]

    def _sorted(self) -> pa.Table:
        table = pa.concat_tables(self._parts).group_by("value").aggregate([("n", "sum")]).rename_columns({"n_sum": "n"})
        return table.sort_by([("n", "descending"), ("value", "ascending")])


def facet_column(name: str) -> str:
    """The column of a facet. Raises QueryError."""
    path = resolve_path(name, f"facet {name!r}", f'"{name}"')
    column = _FACET_COLUMNS.get(path)
    if column is None:
        countable = ", ".join(".".join(path) for path in _FACET_COLUMNS)
        raise QueryError(f"the values of {name} are not counted", place="facets", hint=f"Countable are: {countable}")
    return column


def bucket_width(span: int, buckets_max: int) -> int:
    """The narrowest round width, in microseconds, that cuts a span of microseconds into at most ``buckets_max`` pieces."""
    for width in _WIDTHS_S:
        # One bucket more than span/width is touched when the span starts inside one.
        if span <= round(width * _MICROS) * max(1, buckets_max - 1):
            return round(width * _MICROS)
    return -(-span // max(1, buckets_max - 1))


def _count_into(counts: dict[int, Counter[str]], table: pa.Table, time: str, width: int) -> None:
    # Arrow's integer division cuts towards zero; times before 1970 need the floor. (Floats do not hold the microseconds of every year.)
    micros = pc.cast(table[time], pa.int64())
    cut = pc.divide(micros, width)
    is_below = pc.less(pc.subtract(micros, pc.multiply(cut, width)), 0)
    number = pc.subtract(cut, pc.cast(is_below, pa.int64()))
    outcome = pc.fill_null(table["outcome"], _NO_OUTCOME)
    groups = pa.table({"number": number, "outcome": outcome}).group_by(["number", "outcome"]).aggregate([([], "count_all")])
    for row in groups.to_pylist():
        counts.setdefault(row["number"], Counter())[row["outcome"]] += row["count_all"]


def _values_of(column: Any, name: str) -> Any:
    if pa.types.is_list(column.type):
        column = pc.list_flatten(column)
    return pc.fill_null(column, _NO_OUTCOME) if name == "outcome" else column.drop_null()
