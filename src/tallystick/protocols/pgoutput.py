"""PostgreSQL's logical replication messages, as the output plugin `pgoutput` writes them in protocol version 1.

A transaction arrives when it has committed, as Begin, its messages in order, Commit. Before the first row of a table, and again
after the table changed, a Relation message describes its columns. A row is sent as it is after the change, and as it was before:
whole with ``REPLICA IDENTITY FULL``, only its key otherwise, and only when the key changed. Values are PostgreSQL's own text.
A large value that is stored apart and did not change is left out (`u`). All integers are big-endian, all texts end with NUL.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Literal, NamedTuple

Row = Mapping[str, str | None]
"""Column → its text, None for NULL; columns that were not sent are absent."""

_BEGIN = struct.Struct(">qqi")
_COMMIT = struct.Struct(">Bqqq")
_TUPLE_MAX = 1_600


class PgOutputError(ValueError):
    """Bytes that are no such message."""


class Column(NamedTuple):
    """One column; ``kind`` is its type's oid."""

    name: str
    kind: int
    is_key: bool


class Relation(NamedTuple):
    """One table as it is now. ``identity``: `d` default, `n` nothing, `f` full, `i` an index."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


class Begin(NamedTuple):
    """``lsn`` is that of the commit; ``committed_at`` microseconds since 2000-01-01 UTC."""

    lsn: int
    committed_at: int
    xid: int


class Commit(NamedTuple):
    """``end_lsn`` is behind the transaction: what may be confirmed when all of it is durable."""

    lsn: int
    end_lsn: int
    committed_at: int


class Change(NamedTuple):
    """One row. ``before`` is None when nothing of it was sent, and so is ``after`` of a deleted one."""

    kind: Literal["insert", "update", "delete"]
    relation: Relation
    before: Row | None
    after: Row | None


class Truncate(NamedTuple):
    """Tables that were emptied together."""

    relations: tuple[Relation, ...]


class Message(NamedTuple):
    """What somebody wrote with `pg_logical_emit_message`."""

    is_transactional: bool
    prefix: str
    content: bytes


Item = Begin | Commit | Relation | Change | Truncate | Message


class Decoder:
    """One stream; remembers the tables that it was told about."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}

    def read(self, data: bytes) -> Item | None:
        """One message; None for those that carry nothing for us (types, origins). Raises PgOutputError."""
        try:
            return self._read(_Cursor(data))
        except (struct.error, IndexError, UnicodeDecodeError, KeyError) as error:
            raise PgOutputError(f"a message of {len(data)} bytes that begins with {data[:1]!r} is not whole: {error!r}") from error

    def _read(self, at: _Cursor) -> Item | None:
        kind = at.take(1)
        if kind == b"B":
            return Begin(*_BEGIN.unpack(at.take(_BEGIN.size)))
        if kind == b"C":
            _, lsn, end_lsn, committed_at = _COMMIT.unpack(at.take(_COMMIT.size))
            return Commit(lsn, end_lsn, committed_at)
        if kind in (b"I", b"U", b"D"):
            return self._change(kind, at)
        if kind == b"T":
            count, _ = at.int32(), at.take(1)
            return Truncate(tuple(self._relations[at.int32()] for _ in range(min(count, 1_000_000))))
        if kind == b"M":
            flags, _, prefix = at.take(1)[0], at.take(8), at.text()
            return Message(bool(flags & 1), prefix, at.take(at.int32()))
        if kind == b"R":
            return self._learn(at)
        if kind not in (b"Y", b"O"):
            raise PgOutputError(f"unknown message {kind!r}")
        return None

    def _learn(self, at: _Cursor) -> Relation:
        oid, schema, name, identity = at.int32(), at.text(), at.text(), at.take(1).decode("ascii")
        columns = []
        for _ in range(at.int16()):
            flags, column, kind, _modifier = at.take(1)[0], at.text(), at.int32(), at.int32()
            columns.append(Column(column, kind, bool(flags & 1)))
        found = self._relations[oid] = Relation(oid, schema or "pg_catalog", name, identity, tuple(columns))
        return found

    def _change(self, kind: bytes, at: _Cursor) -> Change:
        relation = self._relations[at.int32()]
        before = after = None
        mark = at.take(1)
        if mark in (b"K", b"O"):
            before = _row(relation, at, only_key=mark == b"K")
            mark = at.take(1) if kind == b"U" else b""
        if mark == b"N":
            after = _row(relation, at)
        elif mark:
            raise PgOutputError(f"unknown row {mark!r}")
        names: dict[bytes, Literal["insert", "update", "delete"]] = {b"I": "insert", b"U": "update", b"D": "delete"}
        return Change(names[kind], relation, before, after)


class _Cursor:
    """A place in one message."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise IndexError(f"{size} bytes at {self._at}")
        found, self._at = self._data[self._at : end], end
        return found

    def int32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def int16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def text(self) -> str:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise IndexError("a text without its end")
        found = self._data[self._at : end].decode()
        self._at = end + 1
        return found


def _row(relation: Relation, at: _Cursor, *, only_key: bool = False) -> Row:
    """One row; of a key-only row just the key's columns (the others are sent as NULL, which they need not be)."""
    count = at.int16()
    if count > min(len(relation.columns), _TUPLE_MAX):
        raise PgOutputError(f"{count} values for {len(relation.columns)} columns of {relation.name}")
    row: dict[str, str | None] = {}
    for column in relation.columns[:count]:
        kind = at.take(1)
        value: str | None = None
        if kind == b"t":
            value = at.take(at.int32()).decode("utf-8", "replace")
        elif kind not in (b"n", b"u"):
            raise PgOutputError(f"unknown value {kind!r}")
        if kind != b"u" and (column.is_key or not only_key):
            row[column.name] = value
    return row
