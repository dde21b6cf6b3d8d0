"""From the rows that a transaction changed to events with before and after.

The write-ahead log does not know who changed a row, only what the database did. An application says who by writing a message into
the same transaction, before its changes:

    SELECT pg_logical_emit_message(true, 'tallystick', '{"actor": {"type": "user", "id": "u_17"}, "reason": "ticket 4711"}');

It may have `actor`, `on_behalf_of`, `context` and `reason`, as in an event, and counts until the transaction's end or the next one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from tallystick.errors import EventInvalidError
from tallystick.event import Actor, Change, Context, Delegate, Event, Ingest, Target, strict
from tallystick.event.times import format_utc
from tallystick.plugin import Decoded
from tallystick.protocols import pgoutput
from tallystick.sources.naming import place_id

PREFIX = "tallystick"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_ODD = re.compile(r"[^A-Za-z0-9_.:-]")
_TARGET_MAX = 1_024
_CHANGE_COST = 512
_WHOLE = {20, 21, 23, 26}  # int8, int2, int4, oid
_JSON = {114, 3802}  # json, jsonb
_BOOL = 16
_JSON_DEPTH = 28
_OPS: dict[str, Literal["add", "replace", "remove"]] = {"insert": "add", "update": "replace", "delete": "remove"}
_encode = msgspec.json.Encoder().encode


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """What an application says of its transaction."""

    actor: Actor | UnsetType = UNSET
    on_behalf_of: list[Delegate] | UnsetType = UNSET
    context: Context | UnsetType = UNSET
    reason: Annotated[str, Meta(max_length=2048)] | UnsetType = UNSET


@dataclass(slots=True)
class Entry:
    """One change on its way: its transaction, its number in it from 1, who did it, and flags."""

    begin: pgoutput.Begin
    number: int
    change: pgoutput.Change | pgoutput.Truncate
    said: Said | None
    flags: list[str]


class Transactions:
    """What the stream brought and is not committed yet: transactions that ended, and behind them one that has not."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._size = 0
        self._whole, self._whole_size = 0, 0
        self._confirm = 0
        self._begin: pgoutput.Begin | None = None
        self._number = 0
        self._said: Said | None = None
        self._flags: list[str] = []

    @property
    def size(self) -> int:
        """Bytes that all of it takes, about."""
        return self._size

    @property
    def has_whole(self) -> bool:
        """True when a transaction has ended, be it an empty one."""
        return self._confirm > 0

    @property
    def is_empty(self) -> bool:
        """True when nothing is under way."""
        return self._begin is None and not self._confirm

    def add(self, item: pgoutput.Item, size: int) -> None:
        """Take one message of ``size`` bytes."""
        if isinstance(item, pgoutput.Begin):
            self._begin, self._number, self._said, self._flags = item, 0, None, []
        elif isinstance(item, pgoutput.Commit):
            self._confirm, self._begin = item.end_lsn, None
            self._whole, self._whole_size = len(self._entries), self._size
        elif isinstance(item, pgoutput.Message):
            if item.prefix == PREFIX and item.is_transactional:
                self._hear(item.content)
        elif isinstance(item, pgoutput.Change | pgoutput.Truncate) and self._begin is not None:
            self._number += 1
            self._entries.append(Entry(self._begin, self._number, item, self._said, self._flags))
            self._size += size + _CHANGE_COST

    def take(self) -> tuple[list[Entry], int, int]:
        """The transactions that ended, their size, and what may be confirmed when they are durable.

        When none has, what there is of one that is too large for one commit; then nothing may be confirmed (0).
        """
        if not self._confirm:
            self._whole, self._whole_size = len(self._entries), self._size
        found = self._entries[: self._whole], self._whole_size, self._confirm
        self._entries = self._entries[self._whole :]
        self._size -= self._whole_size
        self._whole = self._whole_size = self._confirm = 0
        return found

    def _hear(self, content: bytes) -> None:
        try:
            text = strict.compact(content)
            strict.require_strict(text, _JSON_DEPTH)
            self._said, self._flags = msgspec.json.decode(text, type=Said), []
        except (EventInvalidError, msgspec.MsgspecError, UnicodeDecodeError):
            self._said, self._flags = None, ["actor_message_invalid"]


@dataclass(frozen=True, slots=True)
class Database:
    """Where the changes come from. ``keys``: a table's oid → the columns of its primary key, none when it has none."""

    name: str
    system: str
    keys: dict[int, list[str]]


def decode_entries(entries: Sequence[Entry], database: Database) -> Decoded:
    """One event a row, one for each truncated table."""
    decoded = Decoded()
    for entry in entries:
        change = entry.change
        relations = change.relations if isinstance(change, pgoutput.Truncate) else (change.relation,)
        for place, relation in enumerate(relations):
            event, content = _event(entry, relation, database)
            if place:
                event.id = f"{event.id}.{place + 1}"
            decoded.events.append(event)
            decoded.contents.append(content)
            decoded.lines.append(len(decoded.lines) + 1)
    return decoded


def lsn_text(lsn: int) -> str:
    """As PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def _event(entry: Entry, relation: pgoutput.Relation, database: Database) -> tuple[Event, bytes]:
    begin, change, said = entry.begin, entry.change, entry.said
    kind = "truncate" if isinstance(change, pgoutput.Truncate) else change.kind
    before, after = (None, None) if isinstance(change, pgoutput.Truncate) else (change.before, change.after)
    table = f"{relation.schema}.{relation.name}"
    facts: dict[str, Any] = {
        "database": database.name,
        "schema": relation.schema,
        "table": relation.name,
        "xid": begin.xid & 0xFFFFFFFF,
        "lsn": lsn_text(begin.lsn),
        "number": entry.number,
    }
    content = _encode({**facts, "kind": kind, "before": before, "after": after, "at": begin.committed_at})
    flags = list(entry.flags)
    if kind == "update" and relation.identity != "f":
        flags.append("before_unknown")
    changes = [] if isinstance(change, pgoutput.Truncate) else _changes(change.kind, relation, before, after)
    keys = database.keys.get(relation.oid) or []
    if not keys and relation.identity != "f":  # of a full identity every column is part
        keys = [column.name for column in relation.columns if column.is_key]
    event = Event(
        id=place_id(f"pg{database.system}", f"{lsn_text(begin.lsn).replace('/', '-')}:{entry.number}", begin.xid, content),
        occurred_at=format_utc(_EPOCH + timedelta(microseconds=begin.committed_at)),
        action=_action(table, kind),
        category="data",
        actor=said.actor
        if said is not None and said.actor is not UNSET
        else Actor(type="system", id=f"postgresql:{database.name}"),
        on_behalf_of=said.on_behalf_of if said is not None else UNSET,
        targets=[Target(type=table, id=_target(kind, before, after, keys) or table)],
        outcome="success",
        reason=said.reason if said is not None else UNSET,
        context=said.context if said is not None else UNSET,
        changes=changes or UNSET,
        metadata=Raw(_encode(facts)),
    )
    if flags:
        event.ingest = Ingest(flags=flags)
    return event, content


def _action(table: str, kind: str) -> str:
    name = _ODD.sub("_", table)[: 127 - len(kind)]
    return f"{name if name[:1].isalnum() else 't' + name}.{kind}"[:128]


def _target(kind: str, before: pgoutput.Row | None, after: pgoutput.Row | None, keys: Sequence[str]) -> str:
    """The row's key: as it was, for it is that row which was changed."""
    row = {**(after or {}), **(before or {})} if kind != "insert" else after or {}
    return ":".join(str(row[name]) for name in keys if name in row)[:_TARGET_MAX]


def _changes(
    kind: Literal["insert", "update", "delete"],
    relation: pgoutput.Relation,
    before: pgoutput.Row | None,
    after: pgoutput.Row | None,
) -> list[Change]:
    """Column by column what is different; of an update without a known before, all that is there."""
    found = []
    for column in relation.columns:
        name = column.name
        was = UNSET if before is None or name not in before else _value(column.kind, before[name])
        now = UNSET if after is None or name not in after else _value(column.kind, after[name])
        if after is not None and now is UNSET:
            continue  # a large value that did not change
        if was is UNSET and now is UNSET:
            continue
        if was is not UNSET and now is not UNSET and bytes(was) == bytes(now):
            continue
        found.append(Change(path="/" + strict.escape(name), op=_OPS[kind], before=was, after=now))
    return found


def _value(kind: int, text: str | None) -> Raw:
    """Integers and booleans as JSON's own, JSON as it is when it is strict, everything else as the text that PostgreSQL prints."""
    if text is None:
        return Raw(b"null")
    if kind in _WHOLE:
        return Raw(text.encode())
    if kind == _BOOL:
        return Raw(b"true" if text == "t" else b"false")
    if kind in _JSON:
        try:
            content = strict.compact(text.encode())
            strict.require_strict(content, _JSON_DEPTH)
        except (EventInvalidError, msgspec.MsgspecError):
            return Raw(_encode(text))  # PostgreSQL's json takes more than an event does: repeated keys, long numbers
        return Raw(content)
    return Raw(_encode(text.replace("\0", "\ufffd")))
