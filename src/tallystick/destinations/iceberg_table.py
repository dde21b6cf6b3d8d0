"""The table of a destination `iceberg`: its schema, events as its rows, and the cursor among its properties.

A table that exists is used as it is: of `COLUMNS` those are filled that it has, in the types that it has; other columns stay empty. `tenant`, `index`
and `id` must be among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import IcebergType, IntegerType, LongType, NestedField, StringType, TimestamptzType

from tallystick.destinations.row import values_of
from tallystick.errors import TallystickError

COLUMNS: dict[str, IcebergType] = {
    "tenant": StringType(),
    "index": LongType(),
    "id": StringType(),
    "occurred_at": TimestamptzType(),
    "received_at": TimestamptzType(),
    "action": StringType(),
    "category": StringType(),
    "severity": IntegerType(),
    "outcome": StringType(),
    "actor_type": StringType(),
    "actor_id": StringType(),
    "target_type": StringType(),
    "target_id": StringType(),
    "ip": StringType(),
    "source": StringType(),
    "line": StringType(),
}
"""Column → type in a table that we make. ``line``: the canonical line, a leaf of the log."""

SCHEMA = Schema(*(NestedField(number, name, kind, required=False) for number, (name, kind) in enumerate(COLUMNS.items(), 1)))
RECENT_MAX = 8
"""Cuts that a cursor remembers by name; more than can be open at once with a window of one."""

_NEEDED = ("tenant", "index", "id")
_TIMES = ("occurred_at", "received_at")
_NUMBERS = ("index", "severity")


class TableUnfitError(TallystickError):
    """A table is missing, or is there in a form that cannot be used."""

    code = "table_unfit"


class Cursor(msgspec.Struct, frozen=True):
    """How far a tenant's log is in the table, and the names of the cuts that came last. Written by the commit that adds their rows."""

    next: int = 0
    recent: tuple[str, ...] = ()
    checkpoint: str = ""

    def after(self, last_index: int, name: str, checkpoint: str) -> Cursor:
        return Cursor(max(self.next, last_index + 1), (name, *self.recent)[:RECENT_MAX], checkpoint)

    def text(self) -> str:
        return msgspec.json.encode(self).decode()


def read_cursor(properties: Mapping[str, str], key: str) -> Cursor:
    """The cursor under ``key``; a new one where there is none. Raises TableUnfitError for one that somebody changed."""
    if key not in properties:
        return Cursor()
    try:
        return msgspec.json.decode(properties[key], type=Cursor)
    except msgspec.MsgspecError as error:
        raise TableUnfitError(f"the table's property {key} is no cursor: {error}") from error


def arrow_rows(table: Table, indexes: Sequence[int], lines: Sequence[bytes]) -> pa.Table:
    """Events as rows of ``table``. Raises TableUnfitError when a column that is needed is missing or a type cannot hold its values."""
    fields = {field.name: field for field in table.schema().as_arrow()}
    for name in _NEEDED:
        if name not in fields:
            raise TableUnfitError(f"the table has no column {name}", hint="docs/destinations/iceberg.md")
    chosen = [fields[name] for name in COLUMNS if name in fields]
    rows = [values_of(index, line) for index, line in zip(indexes, lines, strict=True)]
    try:
        arrays = [pa.array([_native(field.name, row[field.name]) for row in rows], type=field.type) for field in chosen]
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise TableUnfitError(f"a column cannot hold its values: {error}", hint="docs/destinations/iceberg.md") from error
    return pa.Table.from_arrays(arrays, schema=pa.schema(chosen))


def _native(name: str, value: str | None) -> Any:
    if value is None:
        return None
    if name in _TIMES:
        return datetime.fromisoformat(value)
    return int(value) if name in _NUMBERS else value
