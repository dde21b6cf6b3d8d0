"""The two tables of a destination `postgresql`: their columns, how they are made, and what is asked of ones that are there.

An events table that exists is used as it is: of `COLUMNS` those are filled that it has. `tenant`, `index` and `id` must be among them,
and a unique key over exactly (tenant, index), since that key is what keeps a repeat out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from psycopg2 import sql

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


class _Named(msgspec.Struct, frozen=True):
    type: str | None = None
    id: str | None = None


class _Context(msgspec.Struct, frozen=True):
    ip: str | None = None


class _Source(msgspec.Struct, frozen=True):
    name: str | None = None


_NOBODY, _NOWHERE, _NONE = _Named(), _Context(), _Source()


class _Line(msgspec.Struct):
    id: str
    tenant: str
    occurred_at: str
    received_at: str
    action: str
    category: str | None = None
    severity: int | None = None
    outcome: str | None = None
    actor: _Named = _NOBODY
    targets: tuple[_Named, ...] = ()
    context: _Context = _NOWHERE
    source: _Source = _NONE


_decode = msgspec.json.Decoder(_Line).decode


def make_row(index: int, line: bytes, columns: Sequence[str]) -> list[str | None]:
    """One event's values for ``columns``, as the texts that PostgreSQL reads."""
    event = _decode(line)
    target = event.targets[0] if event.targets else _NOBODY
    text = line.decode()
    values = {
        "tenant": event.tenant,
        "index": str(index),
        "id": event.id,
        "occurred_at": event.occurred_at,
        "received_at": event.received_at,
        "action": event.action,
        "category": event.category,
        "severity": None if event.severity is None else str(event.severity),
        "outcome": event.outcome,
        "actor_type": event.actor.type,
        "actor_id": event.actor.id,
        "target_type": target.type,
        "target_id": target.id,
        "ip": event.context.ip,
        "source": event.source.name,
        "event": text,
        "line": text,
    }
    return [values[name] for name in columns]


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_text(rows: Sequence[Sequence[str | None]]) -> bytes:
    """Rows in COPY's text format. No event has a NUL, so nothing else needs an escape."""
    lines = ("\t".join("\\N" if value is None else value.translate(_ESCAPES) for value in row) for row in rows)
    return ("\n".join(lines) + "\n").encode()
