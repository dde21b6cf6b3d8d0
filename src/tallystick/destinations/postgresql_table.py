"""The two tables of a destination `postgresql`: their columns, how they are made, and what is asked of ones that are there.

An events table that exists is used as it is: of `COLUMNS` those are filled that it has. `tenant`, `index` and `id` must be among them,
and a unique key over exactly (tenant, index), since that key is what keeps a repeat out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg2 import sql

from tallystick.destinations.row import values_of
from tallystick.errors import TallystickError

COLUMNS: dict[str, str] = {
    "tenant": "text NOT NULL",
    "index": "bigint NOT NULL",
    "id": "text NOT NULL",
    "occurred_at": "timestamptz NOT NULL",
    "received_at": "timestamptz NOT NULL",
    "action": "text NOT NULL",
    "category": "text",
    "severity": "smallint",
    "outcome": "text",
    "actor_type": "text",
    "actor_id": "text",
    "target_type": "text",
    "target_id": "text",
    "ip": "text",
    "source": "text",
    "event": "jsonb NOT NULL",
    "line": "text NOT NULL",
}
"""Column → type. ``event`` and ``line`` are the same line: one to be searched, one byte for byte, a leaf of the log."""

_NEEDED = ("tenant", "index", "id")
RECENT_MAX = 64
"""Cuts that a cursor row remembers by name; more than can be open at once (`delivery.lane`)."""

_CURSOR_DDL = """
CREATE TABLE IF NOT EXISTS {} (
  log text NOT NULL,
  destination text NOT NULL,
  tenant text NOT NULL,
  next bigint NOT NULL DEFAULT 0,
  recent text[] NOT NULL DEFAULT '{{}}',
  checkpoint text NOT NULL DEFAULT '',
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (log, destination, tenant)
)
"""
_COLUMNS_OF = "SELECT attname::text FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
_KEYS_OF = """
SELECT (SELECT array_agg(a.attname::text ORDER BY a.attname::text)
        FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number WHERE k.place <= i.indnkeyatts)
FROM pg_index i
WHERE i.indrelid = %s::regclass AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
"""


class TableUnfitError(TallystickError):
    """A table is missing, or is there in a form that cannot be used."""

    code = "table_unfit"


def identifier(name: str) -> sql.Identifier:
    """``schema.table`` or ``table``, quoted."""
    return sql.Identifier(*name.split("."))


def prepare_tables(cursor: Any, table: str, cursor_table: str, *, create: bool) -> list[str]:
    """Make what is missing, when that is allowed; the columns of the events table to be filled. Raises TableUnfitError, psycopg2.Error."""
    _ensure(cursor, cursor_table, sql.SQL(_CURSOR_DDL).format(identifier(cursor_table)), create=create)
    columns = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in COLUMNS.items())
    words = 'CREATE TABLE IF NOT EXISTS {} ({}, PRIMARY KEY (tenant, "index"), UNIQUE (tenant, id))'
    _ensure(cursor, table, sql.SQL(words).format(identifier(table), columns), create=create)
    quoted = identifier(table).as_string(cursor)
    cursor.execute(_COLUMNS_OF, (quoted,))
    there = {name for (name,) in cursor.fetchall()}
    if missing := [name for name in _NEEDED if name not in there]:
        raise TableUnfitError(f"the table {table} has no column {missing[0]}", hint="docs/destinations/postgresql.md")
    cursor.execute(_KEYS_OF, (quoted,))
    if ["index", "tenant"] not in [found for (found,) in cursor.fetchall()]:
        hint = f'CREATE UNIQUE INDEX ON {table} (tenant, "index")'
        raise TableUnfitError(f"the table {table} has no unique key over tenant and index", hint=hint)
    return [name for name in COLUMNS if name in there]


def _ensure(cursor: Any, table: str, ddl: sql.Composable, *, create: bool) -> None:
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (identifier(table).as_string(cursor),))
    if cursor.fetchone()[0]:
        return
    if not create:
        raise TableUnfitError(f"there is no table {table}", hint="Make it, or say `create = true`")
    cursor.execute(ddl)


def make_row(index: int, line: bytes, columns: Sequence[str]) -> list[str | None]:
    """One event's values for ``columns``, as the texts that PostgreSQL reads."""
    values = values_of(index, line)
    values["event"] = values["line"]
    return [values[name] for name in columns]
