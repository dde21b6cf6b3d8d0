"""Arrow columns of events: what a chunk stores, and what the hot part of a query builds from journal lines.

One row is one event. ``line`` is the canonical line, byte for byte; every other column is a copy of a value in it, there
to be searched without decoding lines. A value that the event has not is null.

    index, seq                  int64            number in the tenant's tree; number in the journal
    occurred_at, received_at    timestamp[us, UTC]
    severity                    int8
    target_type, target_id      list<string>     all targets, in order; the two lists are parallel; empty without targets
    subjects                    list<string>     ``sealed[].subject`` as in the line (base64url)
    tokens                      list<binary>     8-byte search tokens of sealed values; empty while no field is sealed
    source                      string           ``source.name``
    line                        binary
    all others                  string

Lines are decoded in slices of 512, which stay in the processor's cache: three times the speed of one large slice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import accumulate
from typing import Any

import msgspec
import pyarrow as pa

_SLICE = 512
_TIME = pa.timestamp("us", "UTC")
_TEXT = pa.string()
_TEXTS = pa.list_(pa.string())

CHUNK_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("seq", pa.int64()),
        ("id", _TEXT),
        ("occurred_at", _TIME),
        ("received_at", _TIME),
        ("action", _TEXT),
        ("category", _TEXT),
        ("severity", pa.int8()),
        ("outcome", _TEXT),
        ("actor_type", _TEXT),
        ("actor_id", _TEXT),
        ("target_type", _TEXTS),
        ("target_id", _TEXTS),
        ("ip", _TEXT),
        ("session_id", _TEXT),
        ("request_id", _TEXT),
        ("source", _TEXT),
        ("subjects", _TEXTS),
        ("tokens", pa.list_(pa.binary())),
        ("line", pa.binary()),
    ]
)

DEFAULT_CLASS = "standard"
_CLASS = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


class _Part(msgspec.Struct, gc=False, frozen=True):
    """The members of an event that have a column; all others are skipped while decoding."""


class _Named(_Part, frozen=True):
    type: str | None = None
    id: str | None = None


class _Context(_Part, frozen=True):
    ip: str | None = None
    session_id: str | None = None
    request_id: str | None = None


class _Source(_Part, frozen=True):
    name: str | None = None


class _Ingest(_Part, frozen=True):
    class_: str = msgspec.field(name="class", default=DEFAULT_CLASS)


class _Sealed(_Part, frozen=True):
    subject: str | None = None


class _Row(_Part, frozen=True):
    id: str | None = None
    occurred_at: str | None = None
    received_at: str | None = None
    action: str | None = None
    category: str | None = None
    severity: int | None = None
    actor: _Named = _Named()
    targets: tuple[_Named, ...] = ()
    outcome: str | None = None
    context: _Context = _Context()
    source: _Source = _Source()
    ingest: _Ingest = _Ingest()
    sealed: tuple[_Sealed, ...] = ()


_DECODE_ROWS = msgspec.json.Decoder(list[_Row]).decode
_DECODE_ROW = msgspec.json.Decoder(_Row).decode


def columns_from_lines(lines: Sequence[bytes], indexes: Sequence[int], seqs: Sequence[int]) -> pa.Table:
    """The table (`CHUNK_SCHEMA`) of canonical lines; ``indexes`` and ``seqs`` are parallel to ``lines`` (ranges will do).

    A line that is no event of ours keeps its line, index and seq, and has null elsewhere: nothing is lost by it.
    """
    batches = [batch for _, batch in _batches(lines, indexes, seqs)]
    return pa.Table.from_batches(batches, schema=CHUNK_SCHEMA)


def group_lines(lines: Sequence[bytes], indexes: Sequence[int], seqs: Sequence[int]) -> dict[tuple[str, str], list[pa.RecordBatch]]:
    """As `columns_from_lines`, parted by (retention class, month of ``received_at`` as "yyyy-mm"), in index order."""
    groups: dict[tuple[str, str], list[pa.RecordBatch]] = {}
    for rows, batch in _batches(lines, indexes, seqs):
        keys = [_group_key(row.ingest.class_, (row.received_at or "")[:7]) for row in rows]
        if keys.count(keys[0]) == len(keys):
            groups.setdefault(keys[0], []).append(batch)
            continue
        for key in dict.fromkeys(keys):
            places = [place for place, other in enumerate(keys) if other == key]
            groups.setdefault(key, []).append(batch.take(pa.array(places, pa.int64())))
    return groups


def _batches(lines: Sequence[bytes], indexes: Sequence[int], seqs: Sequence[int]) -> Iterator[tuple[list[_Row], pa.RecordBatch]]:
    for start in range(0, len(lines), _SLICE):
        part = lines[start : start + _SLICE]
        rows = _decode(part)
        yield rows, _batch(rows, part, indexes[start : start + _SLICE], seqs[start : start + _SLICE])


def _decode(lines: Sequence[bytes]) -> list[_Row]:
    try:
        rows = _DECODE_ROWS(b"[" + b",".join(lines) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError):
        rows = []
    return rows if len(rows) == len(lines) else [_decode_one(line) for line in lines]


def _decode_one(line: bytes) -> _Row:
    try:
        return _DECODE_ROW(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Row()


def _batch(rows: list[_Row], lines: Sequence[bytes], indexes: Sequence[int], seqs: Sequence[int]) -> pa.RecordBatch:
    contexts = [row.context for row in rows]
    actors = [row.actor for row in rows]
    targets = [target for row in rows for target in row.targets]
    target_ends = [len(row.targets) for row in rows]
    columns = [
        pa.array(indexes, pa.int64()),
        pa.array(seqs, pa.int64()),
        pa.array([row.id for row in rows], _TEXT),
        _times([row.occurred_at for row in rows]),
        _times([row.received_at for row in rows]),
        pa.array([row.action for row in rows], _TEXT),
        pa.array([row.category for row in rows], _TEXT),
        pa.array([row.severity for row in rows], pa.int8()),
        pa.array([row.outcome for row in rows], _TEXT),
        pa.array([actor.type for actor in actors], _TEXT),
        pa.array([actor.id for actor in actors], _TEXT),
        _lists(target_ends, [target.type for target in targets], _TEXT),
        _lists(target_ends, [target.id for target in targets], _TEXT),
        pa.array([context.ip for context in contexts], _TEXT),
        pa.array([context.session_id for context in contexts], _TEXT),
        pa.array([context.request_id for context in contexts], _TEXT),
        pa.array([row.source.name for row in rows], _TEXT),
        _lists([len(row.sealed) for row in rows], [group.subject for row in rows for group in row.sealed], _TEXT),
        _lists([0] * len(rows), [], pa.binary()),
        pa.array(lines, pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=CHUNK_SCHEMA)


def _lists(counts: list[int], values: list[Any], value_type: Any) -> Any:
    offsets = pa.array([0, *accumulate(counts)], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values, value_type))


def _times(texts: list[str | None]) -> Any:
    try:
        return pa.array(texts, _TEXT).cast(_TIME)
    except pa.ArrowInvalid:
        return pa.concat_arrays([_time(text) for text in texts])


def _time(text: str | None) -> Any:
    try:
        return pa.array([text], _TEXT).cast(_TIME)
    except pa.ArrowInvalid:
        return pa.nulls(1, _TIME)


@lru_cache(maxsize=256)
def _group_key(retention_class: str, month: str) -> tuple[str, str]:
    """Class and month as they may stand in a path; what is neither, as no line of ours has, goes to the default and to now."""
    known_class = retention_class if _CLASS.fullmatch(retention_class) else DEFAULT_CLASS
    return known_class, month if _MONTH.fullmatch(month) else time.strftime("%Y-%m", time.gmtime())


def received_at(line: bytes) -> float | None:
    """When a line was received, in Unix seconds; None when it does not say."""
    text = _decode_one(line).received_at
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None
