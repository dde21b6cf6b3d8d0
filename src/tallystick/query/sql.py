"""The SQL form of a query: a WHERE clause over the columns of a chunk (`archive.columns`), for DuckDB.

Leaves over columns are exact. The others (``metadata``, user agent, free text …) can only be *narrowed* here: a text that
the line of every match contains. So a tree has an upper form, true for every match and perhaps for more, and a lower
form, true only for matches; under NOT they change places. The engine runs the upper form and, when `Where.is_exact` is
false, shows the lines of what remains to the streaming evaluator. What comes out is exact either way.

Two kinds of test run outside DuckDB because they have to be the evaluator's own code: networks, and anything over a
list column but equality. Such a leaf becomes a derived boolean column, made by applying the evaluator's predicate to the
distinct values of its column.

SQL has three truth values and we have two: every leaf is wrapped so that a null is false.

Values never become part of the SQL text; they are bound parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tallystick.query.fields import DEFAULTS, Leaf, Path, shape_of
from tallystick.query.nodes import And, Cidr, Equal, Field, Gap, Node, Not, Or, Present, Range, Test, Text, Wildcard
from tallystick.query.values import Predicate, literal_run, predicate, to_micros, to_number, to_regex

TEXT_COLUMNS: Mapping[Path, str] = {
    ("id",): "id",
    ("action",): "action",
    ("category",): "category",
    ("outcome",): "outcome",
    ("actor", "type"): "actor_type",
    ("actor", "id"): "actor_id",
    ("context", "ip"): "ip",
    ("context", "session_id"): "session_id",
    ("context", "request_id"): "request_id",
    ("source", "name"): "source",
}
LIST_COLUMNS: Mapping[Path, str] = {
    ("targets", "type"): "target_type",
    ("targets", "id"): "target_id",
    ("sealed", "subject"): "subjects",
}
TIME_COLUMNS: Mapping[Path, str] = {("occurred_at",): "occurred_at", ("received_at",): "received_at"}


@dataclass(frozen=True, slots=True)
class Derived:
    """A boolean column to add: where any value of ``column`` passes ``holds``."""

    name: str
    column: str
    holds: Predicate

    def add_to(self, table: pa.Table) -> pa.Table:
        """The table with this column. Each distinct value is judged once."""
        values = table[self.column].combine_chunks()
        is_list = pa.types.is_list(values.type)
        coded = (values.flatten() if is_list else values).dictionary_encode()
        verdicts = pa.array([value is not None and self.holds(value) for value in coded.dictionary.to_pylist()], pa.bool_())
        marks = pc.fill_null(verdicts.take(coded.indices), fill_value=False)
        if is_list:
            rows = np.zeros(len(values), dtype=bool)
            rows[pc.list_parent_indices(values).filter(marks).to_numpy()] = True
            marks = pa.array(rows)
        return table.append_column(self.name, marks)


@dataclass(slots=True)
class Where:
    """A condition for DuckDB. ``columns`` are the columns it reads, ``line`` among them if it looks into lines."""

    text: str = "TRUE"
    parameters: dict[str, Any] = field(default_factory=dict)
    columns: set[str] = field(default_factory=set)
    derived: list[Derived] = field(default_factory=list)
    is_exact: bool = True

    def prepare(self, table: pa.Table) -> pa.Table:
        """A table with at least ``columns``, made ready for DuckDB: derived columns added, lines as text."""
        for column in self.derived:
            table = column.add_to(table)
        if "line" in table.column_names:
            lines = pa.chunked_array([chunk.view(pa.string()) for chunk in table["line"].chunks], pa.string())
            table = table.set_column(table.column_names.index("line"), "line", lines)
        return table


def to_where(node: Node, *, into_lines: bool = True) -> Where:
    """The upper form of a query, exact when all its leaves are. It looks into lines only where columns do not tell."""
    builder = _Builder(into_lines=into_lines)
    builder.where.text = builder.build(node, is_upper=True)
    return builder.where


class _Builder:
    def __init__(self, *, into_lines: bool) -> None:
        self.where = Where()
        self._into_lines = into_lines

    def build(self, node: Node, *, is_upper: bool) -> str:
        match node:
            case And(items):
                return self.joined(items, " AND ", "TRUE", is_upper=is_upper)
            case Or(items):
                return self.joined(items, " OR ", "FALSE", is_upper=is_upper)
            case Not(item):
                return f"(NOT {self.build(item, is_upper=not is_upper)})"
            case Field(path, test):
                exact = self.exact(path, test)
                if exact is not None:
                    return f"coalesce({exact}, FALSE)"
        self.where.is_exact = False
        if not is_upper:
            return "FALSE"
        return self.narrow(node) if self._into_lines else "TRUE"

    def joined(self, items: tuple[Node, ...], operator: str, empty: str, *, is_upper: bool) -> str:
        parts = [self.build(item, is_upper=is_upper) for item in items]
        return f"({operator.join(parts)})" if parts else empty

    def exact(self, path: Path, test: Test) -> str | None:
        """The SQL of a leaf over columns alone, or None."""
        if path in TEXT_COLUMNS:
            return self.text(TEXT_COLUMNS[path], test, DEFAULTS.get(path))
        if path in LIST_COLUMNS:
            return self.list(LIST_COLUMNS[path], test)
        if path in TIME_COLUMNS:
            return self.time(TIME_COLUMNS[path], test)
        if path == ("severity",):
            return self.severity(test)
        if path == ("targets",) and isinstance(test, Present):
            return self.list("target_id", test)
        return None

    def text(self, column: str, test: Test, default: str | None) -> str:
        value = self.column(column) if default is None else f"coalesce({self.column(column)}, '{default}')"
        match test:
            case Present():
                return f"{value} IS NOT NULL"
            case Equal(text):
                return f"{value} = {self.bind(text)}"
            case Wildcard((str() as prefix, Gap.MANY)):
                return f"starts_with({value}, {self.bind(prefix)})"
            case Wildcard(pieces):
                return f"regexp_full_match({value}, {self.bind(to_regex(pieces))}, 's')"
            case Range(kind="text"):
                return self.between(value, test, str)
            case Range():
                return "FALSE"
            case Cidr():
                return self.derived(column, test)

    def list(self, column: str, test: Test) -> str:
        match test:
            case Present():
                return f"len({self.column(column)}) > 0"
            case Equal(text):
                return f"list_contains({self.column(column)}, {self.bind(text)})"
        return self.derived(column, test)

    def time(self, column: str, test: Test) -> str | None:
        match test:
            case Present():
                return f"{self.column(column)} IS NOT NULL"
            case Range():
                return self.between(f"epoch_us({self.column(column)})", test, to_micros)
        return None

    def severity(self, test: Test) -> str:
        match test:
            case Present():
                return f"{self.column('severity')} IS NOT NULL"
            case Equal(text):
                return "FALSE" if to_number(text) is None else f"{self.column('severity')} = {self.bind(_small(text))}"
            case Range(kind="number"):
                return self.between(self.column("severity"), test, _small)
        return "FALSE"

    def between(self, sql: str, test: Range, convert: Any) -> str:
        parts = []
        if test.low is not None:
            parts.append(f"{sql} {'>=' if test.low_inclusive else '>'} {self.bind(convert(test.low))}")
        if test.high is not None:
            parts.append(f"{sql} {'<=' if test.high_inclusive else '<'} {self.bind(convert(test.high))}")
        return f"({' AND '.join(parts)})"

    def derived(self, column: str, test: Test) -> str:
        name = f"derived_{len(self.where.derived)}"
        self.where.derived.append(Derived(name, column, predicate(test)))
        self.column(column)
        return name

    def narrow(self, node: Node) -> str:
        """What the line of every match contains, as a condition; TRUE when nothing is known."""
        match node:
            case Text(pieces):
                text, sure = literal_run(pieces), False
                check = "regexp_matches({line}, {text}, 'i')"
                text = to_regex((text,)) if text else ""
            case Field(path, test):
                text, sure = _line_text(path, test)
                check = "contains({line}, {text})"
            case _:
                return "TRUE"
        if not text:
            return "TRUE"
        line = self.column("line")
        found = check.format(line=line, text=self.bind(text))
        return found if sure else f"({found} OR contains({line}, {self.bind(_UNICODE_ESCAPE)}))"

    def column(self, name: str) -> str:
        self.where.columns.add(name)
        return f'"{name}"'

    def bind(self, value: Any) -> str:
        name = f"p{len(self.where.parameters)}"
        self.where.parameters[name] = value
        return f"${name}"


_UNICODE_ESCAPE = "\\u"  # a sender's own JSON may spell any character so, in any value that we keep as it came


def _line_text(path: Path, test: Test) -> tuple[str, bool]:
    """A text in every matching line; and whether it is there for sure, or may be spelled with escapes."""
    sure = shape_of(path) is not Leaf.FREE
    match test:
        case Equal(text) if to_number(text) is None and text not in {"true", "false"}:
            run = literal_run((text,))
        case Wildcard(pieces):
            run = literal_run(pieces)
        case _:
            run = ""
    name = literal_run((path[-1],))
    key = f'{name}":' if name == path[-1] else name
    return max(run, key, key=len), sure


def _small(text: str) -> float:
    """A number to compare with small integers; what no double can hold is beyond all of them anyway."""
    number = to_number(text)
    if number is None:
        raise ValueError(f"{text!r} is no number")
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
