"""The mapping `otlp`: from OpenTelemetry log records to events (`otlp_envelope` says what fills which field).

Written out in Python, and not as a file in `mappings/`: it runs for tens of thousands of records a second, and what it looks
for has one shape.

Nothing is lost on the way: what did not move to the envelope is in ``metadata`` as ``body``, ``attributes``, the severity as
sent, the exact times, ``resource`` and ``scope``.

An event's id is the record's own (`audit.record.id`, `log.record.uid`), or made of the digest of the record with its
resource and scope: a batch that is sent again because its answer was lost finds its events stored. Two equal records in one
request are two events: the second one's id ends in `.2`. A record without any time gets an id made here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import repeat
from typing import Any, overload

import msgspec
from msgspec import UNSET, Raw

from tallystick.errors import EventInvalidError
from tallystick.event import Event
from tallystick.event.strict import has_nul
from tallystick.plugin import Carrier, Decoded, Fault
from tallystick.protocols.otlp import LogGroup, LogRecord
from tallystick.protocols.otlp_json import decode_json
from tallystick.protocols.otlp_wire import OtlpInvalidError
from tallystick.transforms import otlp_envelope as envelope
from tallystick.transforms.mapping import MapOptions, MapResult, Problem

DEPTH_AROUND = 3
"""Levels of an event around the value of an attribute: the event, `metadata`, `attributes`."""
_REPLAYED_MAX = 1_000
_ID_BYTES = 16
_NUL_FAULT = EventInvalidError("the record has a text with a NUL in it", code="string_invalid")

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


class OtlpMapping:
    """The mapping. ``depth`` is how deep an event may be nested."""

    name = "otlp"

    def __init__(self, depth: int = 32) -> None:
        self.value_depth = depth - DEPTH_AROUND

    def map_batch(
        self, records: Sequence[bytes], carriers: Sequence[Carrier] | None = None, options: MapOptions | None = None
    ) -> MapResult:
        """All events in requests in OTLP's JSON form, which is what the quarantine keeps."""
        result = MapResult()
        for position, (record, carrier) in enumerate(zip(records, carriers or repeat(Carrier()), strict=False)):
            try:
                found = self.map_groups(decode_json(record, self.value_depth, _REPLAYED_MAX), carrier.peer)
            except OtlpInvalidError as error:
                result.problems.append(Problem(error.code, error.message, record, position))
                continue
            result.events += found.events
            result.contents += found.contents
            result.positions += [position] * len(found.events)
            result.problems += [Problem(fault.code, fault.message, fault.record, position) for fault in found.faults]
        return result

    def map_groups(self, groups: Iterable[LogGroup], peer: str = "") -> OtlpDecoded:
        """All events of a request, and a fault for each record that is none. Raises OtlpInvalidError."""
        found = OtlpDecoded()
        for group in groups:
            _map_group(found, group, peer)
        _tell_apart(found.events)
        return found


@dataclass(slots=True)
class OtlpDecoded(Decoded):
    """``requests`` make a request of its own of each of the ``contents``; ``count`` is that of all records."""

    requests: list[Callable[[bytes], bytes]] = field(default_factory=list)
    count: int = 0

    @property
    def records(self) -> Sequence[bytes]:
        """Each event's record as a request; made when asked for, which is seldom."""
        return _Requests(self.contents, self.requests)


class _Requests(Sequence[bytes]):
    def __init__(self, contents: Sequence[bytes], requests: Sequence[Callable[[bytes], bytes]]) -> None:
        self._contents = contents
        self._requests = requests

    def __len__(self) -> int:
        return len(self._contents)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return _Requests(self._contents[index], self._requests[index])
        return self._requests[index](self._contents[index])


def _map_group(found: OtlpDecoded, group: LogGroup, peer: str) -> None:
    """Events and faults of one group, at the end of ``found``."""
    origin, records = group.origin, group.records
    tail = _encode({name: part for name, part in (("resource", origin.resource), ("scope", origin.scope)) if part})[1:]
    emitter = envelope.emitter(origin.resource.get("attributes") or {}, peer)
    faults = {place: record for place, record in enumerate(records) if isinstance(record, EventInvalidError)}
    places = [place for place in range(len(records)) if place not in faults] if faults else range(len(records))
    events = [_event(records[place], emitter, tail) for place in places]  # type: ignore[arg-type]
    lines = _encode_lines(events)
    said = lines[:-1].split(b"\n")
    if b"\\" in lines and has_nul(lines):
        good = [number for number, line in enumerate(said) if not has_nul(line)]
        faults |= {place: _NUL_FAULT for number, place in enumerate(places) if has_nul(said[number])}
        places, events, said = [places[n] for n in good], [events[n] for n in good], [said[n] for n in good]
    begun, encoded = blake2b(origin.digest, digest_size=_ID_BYTES).copy, group.encoded
    for place, event in zip(places, events, strict=True):
        if event.id is UNSET and event.occurred_at is not UNSET:
            digest = begun()
            digest.update(encoded[place])
            event.id = "otlp." + digest.hexdigest()
    found.events += events
    found.said += said if events else []
    found.contents += [encoded[place] for place in places]
    found.requests += repeat(group.as_request, len(events))
    found.lines += [found.count + 1 + place for place in places]
    found.faults += [
        Fault(found.count + 1 + place, error.code, error.message, group.as_request(encoded[place]))
        for place, error in sorted(faults.items())
    ]
    found.count += len(records)


def _event(record: LogRecord, emitter: tuple[str, str], tail: bytes) -> Event:
    """The event of one record. ``tail``: the end of its metadata, which it shares with its group, from the opening brace on."""
    attributes = record.attributes
    metadata: dict[str, Any] = {} if record.body is None else {"body": record.body}
    event = Event(
        id=envelope.own_id(attributes),
        occurred_at=envelope.time(record, metadata),
        action=envelope.action(record, metadata),
        severity=envelope.severity(record, metadata),
        actor=envelope.actor(attributes, emitter),
        targets=envelope.targets(attributes) if "audit.target.id" in attributes else UNSET,
        outcome=envelope.outcome(attributes),
        context=envelope.context(record),
    )
    if attributes:
        metadata["attributes"] = attributes
    if record.dropped:
        metadata["dropped_attributes_count"] = record.dropped
    if record.flags:
        metadata["flags"] = record.flags
    if not metadata:
        event.metadata = Raw(b"{" + tail)
    elif len(tail) > 1:
        event.metadata = Raw(_encode(metadata)[:-1] + b"," + tail)
    else:
        event.metadata = Raw(_encode(metadata))
    return event


def _tell_apart(events: Sequence[Event]) -> None:
    """Number the ids that are made of digests and are there more than once."""
    ids = [event.id for event in events]
    if len(set(ids)) == len(ids):
        return
    seen: Counter[str] = Counter()
    for event in events:
        if event.id is not UNSET and event.id.startswith("otlp."):
            seen[event.id] += 1
            if seen[event.id] > 1:
                event.id = f"{event.id}.{seen[event.id]}"
