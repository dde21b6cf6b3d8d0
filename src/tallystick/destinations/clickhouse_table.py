"""The table of a destination `clickhouse`: its columns, how it is made, and how an event becomes a row of it. Pure.

A table that exists is used as it is: of `COLUMNS` those are filled that it has, each in the form that its type wants. `tenant`, `index`
and `id` must be among them. Times go into columns of type String, or of DateTime and DateTime64 that name 'UTC': without the zone, their texts would
be read in the server's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tallystick.destinations.row import values_of
from tallystick.errors import TallystickError

COLUMNS: dict[str, str] = {
    "tenant": "String",
    "index": "UInt64",
    "id": "String",
    "occurred_at": "DateTime64(6, 'UTC')",
    "received_at": "DateTime64(6, 'UTC')",
    "action": "String",
    "category": "String",
    "severity": "Nullable(UInt8)",
    "outcome": "String",
    "actor_type": "String",
    "actor_id": "String",
    "target_type": "String",
    "target_id": "String",
    "ip": "String",
    "source": "String",
    "line": "String",
}
"""Column → type in a table that we make; what an event does not have is empty. ``line``: the canonical line, a leaf of the log."""

_NEEDED = ("tenant", "index", "id")
_TIMES = ("occurred_at", "received_at")
_SECONDS = "1970-01-01 00:00:00", "2105-12-31 23:59:59"
_MICROSECONDS = "1900-01-01 00:00:00.000000", "2261-12-31 23:59:59.999999"
"""First and last time that columns of type DateTime, and of any DateTime64, can hold."""
_WINDOW = 10_000
"""Inserts whose tokens a table that we make remembers."""


class TableUnfitError(TallystickError):
    """A table is missing, or is there in a form that cannot be used."""

    code = "table_unfit"


def quoted(name: str) -> str:
    """An identifier, or ``database.table``. The settings' pattern lets no quote through."""
    return ".".join(f"`{part}`" for part in name.split("."))


def create_statement(table: str, *, has_micros: bool, table_settings: Sequence[str]) -> str:
    """The table as we make it, with what the server's version knows: times to the microsecond, tokens, and syncing before the answer."""
    types = COLUMNS if has_micros else COLUMNS | dict.fromkeys(_TIMES, "DateTime('UTC')")
    columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in types.items())
    wanted = {"non_replicated_deduplication_window": _WINDOW, "fsync_after_insert": 1, "fsync_part_directory": 1}
    known = ", ".join(f"{name} = {value}" for name, value in wanted.items() if name in table_settings)
    end = f" SETTINGS {known}" if known else ""
    return f"CREATE TABLE IF NOT EXISTS {quoted(table)} ({columns}) ENGINE = MergeTree ORDER BY (tenant, `index`){end}"


def columns_to_fill(table: str, types: Mapping[str, str]) -> dict[str, str]:
    """Column → type, of those that the table has and we fill. Raises TableUnfitError."""
    for name in _NEEDED:
        if name not in types:
            raise TableUnfitError(f"the table {table} has no column {name}", hint="docs/destinations/clickhouse.md")
    for name in _TIMES:
        if "DateTime" in types.get(name, "") and "'UTC'" not in types[name]:
            raise TableUnfitError(
                f"the column {name} of {table} is a {types[name]} without 'UTC': times would be read in the server's zone",
                hint=f"ALTER TABLE {table} MODIFY COLUMN {name} DateTime64(6, 'UTC')",
            )
    return {name: types[name] for name in COLUMNS if name in types}


def make_row(index: int, line: bytes, columns: Mapping[str, str]) -> list[str | None]:
    """One event's values for ``columns``, as texts of the format TabSeparated."""
    values = values_of(index, line)
    return [_fitting(values[name], name, kind) for name, kind in columns.items()]


def _fitting(value: str | None, name: str, kind: str) -> str | None:
    if value is None:
        return None if "Nullable(" in kind else "0" if "Int" in kind else ""
    if name in _TIMES and "DateTime" in kind:
        return _time(value, has_micros="DateTime64" in kind)
    return value


def _time(text: str, *, has_micros: bool) -> str:
    """RFC 3339 in UTC as ClickHouse's text; a time outside of what the column can hold becomes its border."""
    length, (first, last) = (26, _MICROSECONDS) if has_micros else (19, _SECONDS)
    return min(max(text.rstrip("Z").replace("T", " ")[:length], first), last)
