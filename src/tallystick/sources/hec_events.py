"""From a body of the collector to a draft's events: split, read, mapped. Runs in a request's turn, perhaps in a thread; no IO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw

from tallystick.errors import EventInvalidError
from tallystick.event import Event
from tallystick.event.plain import Plain
from tallystick.event.stamp import add_flag
from tallystick.plugin import Carrier
from tallystick.protocols import hec
from tallystick.protocols.hec import Defaults, HecBatch, HecObject
from tallystick.protocols.hec_answers import HecError
from tallystick.sources.intake import IntakeService
from tallystick.sources.submission import Bad, Draft, InvalidBatchError
from tallystick.transforms import MapOptions
from tallystick.transforms import Mapping as FileMapping

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def read_body(service: IntakeService, draft: Draft, body: bytes, defaults: Defaults, is_raw: bool, is_kept: bool) -> None:
    """Fill ``draft``. ``is_kept``: events of the wrong form are bad events like others, not the end of the request.

    Raises HecError, TooManyError, InvalidBatchError.
    """
    limit = service.reader.limits.events
    if is_raw:
        _map(service, draft, hec.read_lines(*hec.split_raw(body, limit), defaults))
    else:
        batch = hec.read_events(hec.read_objects(body, limit), defaults)
        _keep_faults(draft, batch, is_kept=is_kept)
        _map(service, draft, batch)
    if draft.bad and draft.on_invalid == "reject":
        raise InvalidBatchError(sorted(draft.bad, key=lambda bad: bad.line), is_unreadable=False)


def reread(service: IntakeService, draft: Draft, records: list[bytes]) -> None:
    """Fill ``draft`` with records out of the quarantine: each an object of `/event`, or else a line of `/raw`."""
    for number, record in enumerate(records, 1):
        batch = hec.read_events([HecObject(record, None)], Defaults())
        batch.lines = [number] * len(batch.records)
        _map(service, draft, batch if batch.records else hec.read_lines([record], [number], Defaults()))


def _keep_faults(draft: Draft, batch: HecBatch, *, is_kept: bool) -> None:
    """Events that cannot be stored go into the draft as bad ones. Raises the first HecError unless these are kept too."""
    for line, error, record in batch.faults:
        if isinstance(error, HecError) and not is_kept:
            raise HecError(error.answer, error.number)
        pointer = error.pointer if isinstance(error, EventInvalidError) else ""
        draft.bad.append(Bad(line, EventInvalidError(error.message, line=line, pointer=pointer, code=error.code), record))


def _map(service: IntakeService, draft: Draft, batch: HecBatch) -> None:
    """Put what the events become into the draft."""
    if draft.plan.mapping is None:
        _take_native(service, draft, batch)
        return
    options = MapOptions(draft.plan.name, draft.plan.keep_raw, names_by_digest=False)
    mapping = cast("FileMapping", draft.plan.mapping)
    result = mapping.map_batch(batch.events, batch.carriers, options)
    records, lines = batch.records, batch.lines
    draft.events += result.events
    draft.contents += result.contents
    draft.records = [*draft.records, *(records[position] for position in result.positions)]
    draft.lines += [lines[position] for position in result.positions]
    for problem in result.problems:
        line, whole = lines[problem.position], records[problem.position]
        error = EventInvalidError(problem.message, line=line, code=problem.code)
        # Of a container only the record at fault is kept: the others became events.
        is_inner = problem.record not in (whole, batch.events[problem.position])
        draft.bad.append(Bad(line, error, problem.record if is_inner else whole))
    service.check_count(draft)


def _take_native(service: IntakeService, draft: Draft, batch: HecBatch) -> None:
    """The same for events that are our own already."""
    texts = [_encode(event.value) if isinstance(event, Plain) else event for event in batch.events]
    read = service.reader.read_records(texts)
    positions = [number - 1 for number in read.lines]
    for event, position in zip(read.events, positions, strict=True):
        _carry(event, batch.carriers[position])
    draft.events += read.events
    draft.contents += read.contents
    draft.records = [*draft.records, *(batch.records[position] for position in positions)]
    draft.lines += [batch.lines[position] for position in positions]
    for error in read.errors:
        line = batch.lines[error.line - 1]
        placed = EventInvalidError(error.message, line=line, pointer=f"/event{error.pointer}", code=error.code)
        draft.bad.append(Bad(line, placed, batch.records[error.line - 1]))


def _carry(event: Event, carrier: Carrier) -> None:
    """What the object around a native event says: a time when it has none, and what is kept of it."""
    if event.occurred_at is UNSET and carrier.time is not None:
        event.occurred_at = UNSET if carrier.time.text is None else carrier.time.text
        for flag in carrier.time.flags:
            add_flag(event, flag)
    if carrier.more:
        event.metadata = Raw(_with_members(b"{}" if event.metadata is UNSET else bytes(event.metadata), carrier.more))


def _with_members(metadata: bytes, more: Mapping[str, Any]) -> bytes:
    """``metadata`` with ``more`` behind its own members, under names that are free."""
    added = _encode(more)
    if metadata == b"{}":
        return added
    if any(b'"%b"' % name.encode() in metadata for name in more):
        members = set(_decode_members(metadata))
        free: dict[str, Any] = {}
        for name, value in more.items():
            while name in members or name in free:
                name += "_"
            free[name] = value
        added = _encode(free)
    return b"%b,%b" % (metadata[:-1], added[1:])
