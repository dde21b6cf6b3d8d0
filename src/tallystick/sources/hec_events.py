"""From a body of the collector to a draft's events: split, read, mapped. Runs in a request's turn, perhaps in a thread; no IO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw

from tallystick.errors import EventInvalidError
from tallystick.event import Event
from tallystick.event.stamp import add_flag
from tallystick.plugin import Carrier
from tallystick.protocols import hec
from tallystick.protocols.hec import Defaults, HecEvent, HecObject
from tallystick.protocols.hec_answers import HecError
from tallystick.sources.intake import IntakeService
from tallystick.sources.submission import Bad, Draft, InvalidBatchError
from tallystick.transforms import MapOptions, Mapping

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def read_body(service: IntakeService, draft: Draft, body: bytes, defaults: Defaults, is_raw: bool, is_kept: bool) -> None:
    """Fill ``draft``. ``is_kept``: events of the wrong form are bad events like others, not the end of the request.

    Raises HecError, TooManyError, InvalidBatchError.
    """
    limit = service.reader.limits.events
    if is_raw:
        records, lines = hec.split_raw(body, limit)
        _map(service, draft, hec.read_lines(records, defaults), lines)
    else:
        objects = hec.read_objects(body, limit)
        events, lines = _sort(draft, objects, defaults, is_kept=is_kept)
        _map(service, draft, events, lines)
    if draft.bad and draft.on_invalid == "reject":
        raise InvalidBatchError(sorted(draft.bad, key=lambda bad: bad.line), is_unreadable=False)


def reread(service: IntakeService, draft: Draft, records: list[bytes]) -> None:
    """Fill ``draft`` with records out of the quarantine: each an object of `/event`, or else a line of `/raw`."""
    for number, record in enumerate(records, 1):
        found = [one for one in hec.read_events([HecObject(record, None)], Defaults()) if isinstance(one, HecEvent)]
        _map(service, draft, found or hec.read_lines([record], Defaults()), [number])


def _sort(draft: Draft, objects: Sequence[HecObject], defaults: Defaults, *, is_kept: bool) -> tuple[list[HecEvent], list[int]]:
    """The good ones with their lines; the bad ones go into the draft. Raises the first HecError unless they are kept."""
    events, lines = [], []
    for line, one in enumerate(hec.read_events(objects, defaults), 1):
        if isinstance(one, HecEvent):
            events.append(one)
            lines.append(line)
            continue
        if isinstance(one, HecError):
            if not is_kept:
                raise one
            one = EventInvalidError(one.message, code=one.code)
        draft.bad.append(
            Bad(line, EventInvalidError(one.message, line=line, pointer=one.pointer, code=one.code), objects[line - 1].record)
        )
    return events, lines


def _map(service: IntakeService, draft: Draft, events: Sequence[HecEvent], lines: Sequence[int]) -> None:
    """Put what ``events`` become into the draft."""
    if draft.plan.mapping is None:
        _take_native(service, draft, events, lines)
        return
    options = MapOptions(draft.plan.name, draft.plan.keep_raw, names_by_digest=False)
    mapping = cast("Mapping", draft.plan.mapping)
    result = mapping.map_batch([one.event for one in events], [one.carrier for one in events], options)
    draft.events += result.events
    draft.contents += result.contents
    draft.records = [*draft.records, *(events[position].record for position in result.positions)]
    draft.lines += [lines[position] for position in result.positions]
    for problem in result.problems:
        line, whole = lines[problem.position], events[problem.position]
        error = EventInvalidError(problem.message, line=line, code=problem.code)
        # Of a container only the record at fault is kept: the others became events.
        is_inner = problem.record not in (whole.record, whole.text)
        draft.bad.append(Bad(line, error, problem.record if is_inner else whole.record))
    service.check_count(draft)


def _take_native(service: IntakeService, draft: Draft, events: Sequence[HecEvent], lines: Sequence[int]) -> None:
    """The same for events that are our own already."""
    batch = service.reader.read_records([one.text for one in events])
    positions = [number - 1 for number in batch.lines]
    for event, position in zip(batch.events, positions, strict=True):
        _carry(event, events[position].carrier)
    draft.events += batch.events
    draft.contents += batch.contents
    draft.records = [*draft.records, *(events[position].record for position in positions)]
    draft.lines += [lines[position] for position in positions]
    for error in batch.errors:
        position = error.line - 1
        placed = EventInvalidError(error.message, line=lines[position], pointer=f"/event{error.pointer}", code=error.code)
        draft.bad.append(Bad(lines[position], placed, events[position].record))


def _carry(event: Event, carrier: Carrier) -> None:
    """What the object around a native event says: a time when it has none, and what is kept of it."""
    if event.occurred_at is UNSET and carrier.time is not None:
        event.occurred_at = UNSET if carrier.time.text is None else carrier.time.text
        for flag in carrier.time.flags:
            add_flag(event, flag)
    if carrier.more:
        members: dict[str, Any] = {} if event.metadata is UNSET else dict(_decode_members(event.metadata))
        for name, value in carrier.more.items():
            while name in members:
                name += "_"
            members[name] = value
        event.metadata = Raw(_encode(members))
