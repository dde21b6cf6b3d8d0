"""Cuts a long ExportLogsServiceRequest into shorter ones, by Protobuf's wire format alone, before any of it becomes messages.

    request        = ( 1: ResourceLogs | unknown )*
    ResourceLogs   = ( 2: ScopeLogs    | other   )*      other: the resource and its schema, in any place
    ScopeLogs      = ( 2: LogRecord    | other   )*

A field is a tag (number × 8 + wire type, as a varint) and its value; of wire type 2 it is a length and so many bytes. What a
level has beside its repeated field is its *head*; each piece of a level that is cut gets the whole head again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tallystick.errors import TerminalError

PART_BYTES = 1 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10
_HEAD_FIELDS_MAX = 100
_RESOURCE_LOGS, _SCOPE_LOGS, _LOG_RECORDS = 1, 2, 2


class OtlpInvalidError(TerminalError):
    """The body is no ExportLogsServiceRequest; nothing of it was taken."""

    code = "otlp_invalid"


class TooManyRecordsError(OtlpInvalidError):
    """More records than are taken in one request."""

    code = "too_many_events"

    def __init__(self, records_max: int) -> None:
        super().__init__(f"more than {records_max} records in one request; send smaller ones")


class Part(NamedTuple):
    """A request of `PART_BYTES` or little more. ``long_record``: the bytes of its one record, which stands empty in it."""

    request: bytes
    long_record: bytes = b""


class _Field(NamedTuple):
    """One field of a message: the offsets of the whole of it, and where the bytes of its value begin."""

    number: int
    start: int
    value: int
    end: int


def split_request(body: bytes, records_max: int) -> Iterator[Part]:
    """The parts of ``body``, in order. Raises OtlpInvalidError where it is not Protobuf, or one level has more fields than that."""
    if len(body) <= PART_BYTES:
        yield Part(body)
        return
    for run in _runs(body, _fields(body, 0, len(body), _RESOURCE_LOGS, records_max), _RESOURCE_LOGS):
        first = run[0]
        if first.end - first.start <= PART_BYTES:
            yield Part(body[first.start : run[-1].end])
        else:
            yield from _split_resource(body, first, records_max)


def encode_field(number: int, value: bytes) -> bytes:
    """A field of wire type 2."""
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(value)) + value


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _split_resource(body: bytes, logs: _Field, records_max: int) -> Iterator[Part]:
    fields = _fields(body, logs.value, logs.end, _SCOPE_LOGS, records_max)
    head = _head(body, fields, _SCOPE_LOGS)
    for run in _runs(body, fields, _SCOPE_LOGS):
        first = run[0]
        if first.end - first.start <= PART_BYTES:
            yield Part(encode_field(_RESOURCE_LOGS, head + body[first.start : run[-1].end]))
        else:
            yield from _split_scope(body, head, first, records_max)


def _split_scope(body: bytes, resource_head: bytes, logs: _Field, records_max: int) -> Iterator[Part]:
    fields = _fields(body, logs.value, logs.end, _LOG_RECORDS, records_max)
    head = _head(body, fields, _LOG_RECORDS)
    for run in _runs(body, fields, _LOG_RECORDS):
        first = run[0]
        is_long = first.end - first.value > PART_BYTES
        records = encode_field(_LOG_RECORDS, b"") if is_long else body[first.start : run[-1].end]
        request = encode_field(_RESOURCE_LOGS, resource_head + encode_field(_SCOPE_LOGS, head + records))
        yield Part(request, body[first.value : first.end] if is_long else b"")


def _runs(body: bytes, fields: list[_Field], number: int) -> Iterator[list[_Field]]:
    """The fields of that number in runs that lie side by side, of about `PART_BYTES`; a longer field is a run alone."""
    run: list[_Field] = []
    for field in fields:
        if field.number != number:
            continue
        if run and (run[-1].end != field.start or field.end - run[0].start > PART_BYTES):
            yield run
            run = []
        run.append(field)
    if run:
        yield run


def _head(body: bytes, fields: list[_Field], number: int) -> bytes:
    head = b"".join(body[field.start : field.end] for field in fields if field.number != number)
    if len(head) > PART_BYTES:
        raise OtlpInvalidError(f"a resource or scope has {len(head)} bytes; no event could hold it")
    return head


def _fields(body: bytes, at: int, end: int, repeated: int, fields_max: int) -> list[_Field]:
    """The fields between two offsets. Raises OtlpInvalidError, also when the field ``repeated`` has another wire type than 2."""
    fields = []
    while at < end:
        start = at
        tag, at = _varint(body, at, end)
        number, wire_type = tag >> 3, tag & 7
        value = at
        if wire_type == _BYTES:
            size, value = _varint(body, at, end)
            at = value + size
        elif wire_type == _VARINT:
            at = _varint(body, at, end)[1]
        elif wire_type in (_FIXED64, _FIXED32):
            at += 8 if wire_type == _FIXED64 else 4
        else:
            raise OtlpInvalidError(f"byte {start} of the body has the wire type {wire_type}, which is not used")
        if at > end or number == 0 or (number == repeated and wire_type != _BYTES):
            raise OtlpInvalidError(f"the field at byte {start} of the body is cut, or of a wrong wire type")
        fields.append(_Field(number, start, value, at))
        if len(fields) > fields_max + _HEAD_FIELDS_MAX:
            raise TooManyRecordsError(fields_max)
    return fields


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """A number and the offset behind it."""
    value = shift = 0
    for place in range(at, min(end, at + _VARINT_BYTES_MAX)):
        byte = body[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise OtlpInvalidError(f"a number at byte {at} of the body is cut")
