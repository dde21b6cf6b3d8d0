"""Bodies in, events out; events in, canonical lines out. This is the hot path: per batch, calls into C; per event, few.

How reading is strict and fast at once. msgspec decodes each record into typed structs and skips over `msgspec.Raw`
members. That alone refuses bad syntax, NaN, control characters, unknown keys and wrong types, but misses repeated keys,
and everything inside Raw members beyond syntax. Three facts close the gap for a whole batch in a few calls:

1. Encoding what was decoded never gives more bytes than the record had: strings are written in their shortest form,
   integers too, and absent members not at all. Blanks, escapes that were not needed, and repeated keys make it shorter.
   So if a batch encodes to as many bytes as its records have, every record is compact and no typed object has a key twice.
2. A Raw member that, decoded to plain values and encoded again, gives the very same bytes is strict: no encoder writes a
   key twice, a lone surrogate or bad UTF-8. All Raw members of a batch are one JSON array, so this is one decode, one
   encode and one comparison. Equal bytes, not equal lengths: here numbers may grow (``1e5`` → ``100000.0``).
3. What survives both is looked for on its own: NUL escapes, numbers of more than 64 digits, depth.

A batch that fails is compacted and tried once more (senders that write blanks do so everywhere), then once without needless
escapes (Python writes ``\\u00e9``, Go ``\\u003c``, PHP ``\\/`` unless told otherwise); then each record goes alone, where
`strict.find_fault` decides and `strict.check_strict` finds the place. Nothing here accepts what they refuse.

Memory: plain values take up to thirty times their text, so a body is worked on in parts of at most `_PART_BYTES`, records
over the limit are refused before anything is made of them, and lines and elements are counted before they are cut. Time:
faults are located in at most `_LOCATE_BYTES` of refused records a body; the others have line and code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec
from msgspec import UNSET, Raw

from tallystick.errors import EventInvalidError, EventTooLargeError
from tallystick.event import strict
from tallystick.event.fields import Incoming, Settled, change_values, check_fields, explain, settle_fields
from tallystick.event.model import Event
from tallystick.event.stamp import Stamp, set_server_fields, splice_lines

Shape = Literal["object", "array", "ndjson"]

UNREADABLE_CODES = frozenset(
    {"json_invalid", "key_duplicate", "number_invalid", "string_invalid", "depth_exceeded", "event_not_object"}
)
"""Codes that mean: this is not the JSON we read. The others mean: readable, but no event."""

_BOM = b"\xef\xbb\xbf"
_STRUCTURE = b'{}[]"'
_ALL_BUT_STRUCTURE = bytes(set(range(256)) - set(_STRUCTURE))
_PART_BYTES = 1 << 20
_LOCATE_BYTES = 1 << 20
_COMMAS_PER_EVENT = 20
_UNCOUNTED_BYTES = 1 << 20  # lines of a smaller body take at most 16 MiB when cut, however many
_SYNTAX = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_decode_event = msgspec.json.Decoder(Incoming).decode
_decode_line = msgspec.json.Decoder(Event).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_encoder = msgspec.json.Encoder()
_encode = _encoder.encode


class EventLimits(Protocol):
    """What reading and encoding are bounded by; `Limits` has the defaults."""

    @property
    def event_bytes(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def events(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of one canonical line, levels of nesting (the event itself counts 1), events in one body."""

    event_bytes: int = 65_535
    depth: int = 32
    events: int = 100_000


@dataclass(slots=True)
class ReadBatch:
    """What one body held. ``events``, ``contents``, ``records`` and ``lines`` are parallel, as are ``errors`` and ``rejected``.

    ``contents`` are the ``records`` as sent, compacted; ``lines`` count from 1 (in an array, its elements); ``rejected`` are
    the bytes of the records that are no events. A fault of the whole body is one error with the body as its record.
    ``said`` are the events in canonical form before anything is added to them; shorter than ``events`` when not known of all.
    """

    events: list[Event] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    errors: list[EventInvalidError] = field(default_factory=list)
    rejected: list[bytes] = field(default_factory=list)
    rejected_bytes: int = 0

    @property
    def is_unreadable(self) -> bool:
        """Nothing in the body could be read as JSON: HTTP 400. Any other error is an invalid event: HTTP 422."""
        return bool(self.errors) and not self.events and all(error.code in UNREADABLE_CODES for error in self.errors)

    def refuse(self, error: EventInvalidError, record: bytes) -> None:
        """Count ``record`` among the rejected."""
        self.errors.append(error)
        self.rejected.append(record)
        self.rejected_bytes += len(record)


class EventReader:
    """Reads the bodies of ``/v1/events`` and of everything else that carries our own events."""

    def __init__(self, limits: EventLimits | None = None) -> None:
        self.limits = limits or Limits()

    def read(self, body: bytes, shape: Shape) -> ReadBatch:
        """All events and all errors of one body. Raises nothing for bad input."""
        try:
            records, lines = self._split(body, shape)
        except EventInvalidError as error:
            batch = ReadBatch()
            batch.refuse(error, body)
            return batch
        return self.read_records(records, lines)

    def read_records(self, records: list[bytes], lines: Sequence[int] | None = None) -> ReadBatch:
        """The same for records that were split already; without ``lines`` they are numbered from 1."""
        if lines is None:
            lines = range(1, len(records) + 1)
        batch = ReadBatch()
        start = 0
        for end in _part_ends(records):
            self._read_part(records[start:end], lines[start:end], batch)
            start = end
        return batch

    def _read_part(self, records: list[bytes], lines: Sequence[int], batch: ReadBatch) -> None:
        contents = records
        found = self._read_fast(records)
        if found is None:
            try:
                contents = list(map(strict.compact, records))
            except _SYNTAX:
                return self._read_each(records, lines, batch)
            found = (self._read_fast(contents) if contents != records else None) or self._read_escaped(contents)
        if found is None:
            return self._read_each(records, lines, batch)
        events, said = found
        batch.events += events
        batch.said += said
        batch.contents += contents
        batch.records += records
        batch.lines += lines
        return None

    def _read_escaped(self, records: list[bytes]) -> tuple[list[Incoming], list[bytes]] | None:
        """The same for records with escapes that were not needed: what is strict without them is strict with them."""
        plain = list(map(strict.unescape, records))
        if plain == records or max(map(len, records)) > self.limits.event_bytes or self._read_fast(plain) is None:
            return None
        events = list(map(_decode_event, records))
        return (events, []) if settle_fields(events) is not Settled.FAULT else None

    def _split(self, body: bytes, shape: Shape) -> tuple[list[bytes], Sequence[int]]:
        """The records of a body and their numbers. Raises EventInvalidError when the body as a whole is at fault."""
        if body.startswith(_BOM):
            body = body[len(_BOM) :]
        if not body.strip():
            raise EventInvalidError("the body is empty; send one event, an array or NDJSON", code="json_invalid")
        if shape == "ndjson":
            if len(body) > _UNCOUNTED_BYTES and body.count(b"\n") > 2 * self.limits.events:
                raise self._too_many()
            records, lines = split_lines(body)
        else:
            if shape == "array" and body.count(b",") > _COMMAS_PER_EVENT * self.limits.events:
                raise self._too_many()
            records = _split_array(body, self.limits.depth) if shape == "array" else [body]
            lines = range(1, len(records) + 1)
        if len(records) > self.limits.events:
            raise self._too_many()
        return records, lines

    def _too_many(self) -> EventInvalidError:
        message = f"more than {self.limits.events} events in one body; send smaller batches"
        return EventInvalidError(message, code="too_many_events")

    def _read_fast(self, records: list[bytes]) -> tuple[list[Incoming], list[bytes]] | None:
        """Events, and what was said, of records that are compact, strict and valid; None when at least one is not surely so."""
        if max(map(len, records)) > self.limits.event_bytes:
            return None
        try:
            events: list[Incoming] = list(map(_decode_event, records))
        except _SYNTAX:
            return None
        encoded = _encoder.encode_lines(events)
        if len(encoded) != sum(map(len, records)) + len(records):
            return None
        if b"\\" in encoded and b"\\u0000" in encoded:
            return None
        if not self._raws_are_strict(events, records):
            return None
        settled = settle_fields(events)
        if settled is Settled.FAULT:
            return None
        return events, encoded[:-1].split(b"\n") if settled is Settled.AS_SAID else []

    def _raws_are_strict(self, events: list[Incoming], records: list[bytes]) -> bool:
        metadata = [event.metadata for event in events if event.metadata is not UNSET]
        values = [value for event in events if event.changes is not UNSET for value in change_values(event)]
        if not metadata and not values:
            return True
        joined = _encode(metadata + values)
        try:
            decoded = _decode_any(joined)
            if _encode(decoded) != joined:
                return False
        except (*_SYNTAX, OverflowError):
            return False
        if metadata and set(map(type, decoded[: len(metadata)])) != {dict}:
            return False
        if strict.has_long_run(joined):
            return False
        # The list around the values stands for the event around its metadata; values in changes lie two levels deeper.
        depth = self.limits.depth
        return _is_shallow(joined, depth - 2 if values else depth) or all(strict.openings(record) <= depth for record in records)

    def _read_each(self, records: list[bytes], lines: Sequence[int], batch: ReadBatch) -> None:
        for record, line in zip(records, lines, strict=True):
            try:
                event, content = self._read_one(record, locate=batch.rejected_bytes < _LOCATE_BYTES)
            except EventInvalidError as error:
                batch.refuse(EventInvalidError(error.message, line=line, pointer=error.pointer, code=error.code), record)
                continue
            batch.events.append(event)
            batch.contents.append(content)
            batch.records.append(record)
            batch.lines.append(line)

    def _read_one(self, record: bytes, *, locate: bool) -> tuple[Event, bytes]:
        """One record by itself. Raises EventInvalidError with the code and the pointer of its first fault."""
        try:
            content = strict.compact(record)
        except _SYNTAX:
            raise _not_json(record, self.limits.depth, locate=locate) from None
        if len(content) > self.limits.event_bytes:
            raise EventInvalidError(_too_large(len(content), self.limits), code="event_too_large")
        strict.require_strict(content, self.limits.depth, locate=locate)
        try:
            event = _decode_event(content)
        except _SYNTAX as error:
            raise explain(error) from None
        check_fields(event)
        return event, content


def encode_lines(
    events: Sequence[Event], stamp: Stamp, limits: EventLimits | None = None, said: Sequence[bytes] = ()
) -> list[bytes]:
    """Set the server fields and give the canonical lines, in order. Raises EventTooLargeError, naming the positions.

    ``said``: `ReadBatch.said` of the same events, when nothing was changed in them since; saves encoding them again.
    May be called again with the events that are left: fields are set anew, flags and ids stay.
    """
    bound = limits or Limits()
    lines = splice_lines(events, said, stamp) if said else None
    if lines is None:
        set_server_fields(events, stamp)
        lines = list(map(_encode, events))
    if stamp.classify is not None:
        lines = stamp.classify(lines)
    if lines and max(map(len, lines)) > bound.event_bytes:
        positions = [place for place, line in enumerate(lines) if len(line) > bound.event_bytes]
        raise EventTooLargeError(_too_large(len(lines[positions[0]]), bound), positions=positions)
    return lines


def decode_line(line: bytes) -> Event:
    """The event of a line that we wrote. Raises msgspec.MsgspecError for anything else."""
    return _decode_line(line)


def split_lines(body: bytes) -> tuple[list[bytes], Sequence[int]]:
    """The lines of ``body``, split on LF only, and their numbers from 1; blank ones are left out but counted."""
    records = body.split(b"\n")
    if not records[-1]:
        records.pop()
    if all(map(bytes.strip, records)):
        return records, range(1, len(records) + 1)
    lines = [number for number, record in enumerate(records, 1) if record.strip()]
    return [records[number - 1] for number in lines], lines


def _part_ends(records: list[bytes]) -> list[int]:
    """Where to cut ``records`` so that each part has about `_PART_BYTES`."""
    if sum(map(len, records)) <= _PART_BYTES:
        return [len(records)] if records else []
    ends, size = [], 0
    for place, record in enumerate(records, 1):
        size += len(record)
        if size >= _PART_BYTES or place == len(records):
            ends.append(place)
            size = 0
    return ends


def _split_array(body: bytes, depth: int) -> list[bytes]:
    try:
        return list(map(bytes, _decode_list(body)))
    except _SYNTAX:
        raise _not_json(body, depth + 1, locate=True) from None


def _not_json(text: bytes, depth: int, *, locate: bool) -> EventInvalidError:
    """Why ``text`` cannot be read. Long texts are not walked: that would take seconds."""
    if len(text) > _LOCATE_BYTES or not locate:
        return EventInvalidError("the text is not JSON", code="json_invalid")
    try:
        strict.check_strict(text, depth)
    except EventInvalidError as error:
        return error
    return EventInvalidError("the body is not an array of events", code="event_not_object")


def _is_shallow(joined: bytes, levels: int) -> bool:
    """Whether JSON ``joined`` surely has at most ``levels`` levels.

    A string without brackets leaves an empty pair of quotes; a quote that stays means brackets inside strings, where
    peeling would prove nothing. Escaped quotes would blur that, so they give up as well.
    """
    if b"\\" in joined and b'\\"' in joined:
        return False
    brackets = joined.translate(None, _ALL_BUT_STRUCTURE).replace(b'""', b"")
    return b'"' not in brackets and strict.is_shallow(brackets, levels)


def _too_large(size: int, limits: EventLimits) -> str:
    return f"the event has {size} bytes; at most {limits.event_bytes} are taken"
