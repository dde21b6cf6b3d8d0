"""One event as a row: the columns that destinations in SQL fill, their values as texts, and many rows as one text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


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


def values_of(index: int, line: bytes) -> dict[str, str | None]:
    """Column → value of the event of a canonical line; ``line`` itself is the last."""
    event = _decode(line)
    target = event.targets[0] if event.targets else _NOBODY
    return {
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
        "line": line.decode(),
    }


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def tab_separated(rows: Sequence[Sequence[str | None]]) -> bytes:
    """Rows in the text format of PostgreSQL's COPY, which is ClickHouse's TabSeparated. No event has a NUL, so nothing else needs an escape."""
    lines = ("\t".join("\\N" if value is None else value.translate(_ESCAPES) for value in row) for row in rows)
    return ("\n".join(lines) + "\n").encode()
