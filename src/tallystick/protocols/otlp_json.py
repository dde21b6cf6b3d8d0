"""OTLP in JSON: ProtoJSON with its own rules for ids, enums and names of keys (OTLP 1.x, "JSON Protobuf Encoding").

    trace and span ids      hexadecimal, either case (not base64)
    enum values             numbers only
    64-bit integers         decimal text, or a number
    doubles                 a number, or the texts NaN, Infinity and -Infinity
    keys                    lowerCamelCase only; others are unknown, and unknown keys are skipped

Reading is strict where a lenient reader would lose something: an object with one key twice, a text with half of a surrogate
pair, and a member of the wrong type refuse the whole body. Records are kept as their own bytes until each is read by itself,
so no more than one is in memory as plain values.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Raw

from tallystick.errors import EventInvalidError
from tallystick.event import strict
from tallystick.protocols.otlp import (
    ORIGIN_BYTES,
    LogGroup,
    LogRecord,
    Origin,
    json_request,
    shared_part,
)
from tallystick.protocols.otlp_values import plain_double, too_deep
from tallystick.protocols.otlp_wire import PART_BYTES, OtlpInvalidError, TooManyRecordsError

JSON_DEPTH_MAX = 500
"""Levels of JSON in one record: one level of a value takes four of them."""
_COMMAS_PER_RECORD = 40
_SYNTAX = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_NUL = re.compile(rb"((?<!\\)(?:\\\\)*+)\\u0000")
_INT = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*+", re.ASCII)
_DOUBLES = frozenset({"NaN", "Infinity", "-Infinity"})

_encode = msgspec.json.Encoder().encode
_members_of = msgspec.json.Decoder(dict[str, Raw]).decode
_elements_of = msgspec.json.Decoder(list[Raw] | None).decode


class _Part(msgspec.Struct, rename="camel", gc=False):
    """Base of the messages; keys that are not known are skipped, null is the same as absent."""


class _Value(_Part):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    bytes_value: str | None = None
    array_value: _Values | None = None
    kvlist_value: _Pairs | None = None


class _Values(_Part):
    values: list[_Value] | None = None


class _Pair(_Part):
    key: str | None = None
    value: _Value | None = None


class _Pairs(_Part):
    values: list[_Pair] | None = None


class _Resource(_Part):
    attributes: list[_Pair] | None = None
    dropped_attributes_count: int | None = None


class _Scope(_Part):
    name: str | None = None
    version: str | None = None
    attributes: list[_Pair] | None = None
    dropped_attributes_count: int | None = None


class _Record(_Part):
    time_unix_nano: int | str | None = None
    observed_time_unix_nano: int | str | None = None
    severity_number: int | None = None
    severity_text: str | None = None
    body: _Value | None = None
    attributes: list[_Pair] | None = None
    dropped_attributes_count: int | None = None
    flags: int | None = None
    trace_id: str | None = None
    span_id: str | None = None
    event_name: str | None = None


_decode_record = msgspec.json.Decoder(_Record).decode
_decode_resource = msgspec.json.Decoder(_Resource | None).decode
_decode_scope = msgspec.json.Decoder(_Scope | None).decode
_decode_text = msgspec.json.Decoder(str | None).decode


def decode_json(body: bytes, depth_max: int, records_max: int) -> Iterator[LogGroup]:
    """All records of a request; ``depth_max`` bounds the nesting of one attribute or body. Raises OtlpInvalidError."""
    if body.count(b",") > _COMMAS_PER_RECORD * records_max:
        raise TooManyRecordsError(records_max)
    count = 0
    try:
        for logs in _list(_object(strict.compact(body)), "resourceLogs"):
            resource_logs = _object(logs)
            for inner in _list(resource_logs, "scopeLogs"):
                scope_logs = _object(inner)
                encoded = list(map(bytes, _list(scope_logs, "logRecords")))
                count += len(encoded)
                if count > records_max:
                    raise TooManyRecordsError(records_max)
                for part in _parts(encoded):
                    yield _group(resource_logs, scope_logs, part, depth_max)
    except _SYNTAX as error:
        raise OtlpInvalidError(f"the body is no ExportLogsServiceRequest in JSON: {error}") from None


def _parts(encoded: list[bytes]) -> Iterator[list[bytes]]:
    """Runs of records of about `PART_BYTES`."""
    part, size = [], 0
    for record in encoded:
        part.append(record)
        size += len(record)
        if size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _object(text: bytes | Raw) -> dict[str, Raw]:
    """The members of a compact JSON object. A key that is there twice, or is written with escapes, makes it shorter when encoded."""
    members = _members_of(text)
    if len(_encode(members)) != len(bytes(text)):
        raise OtlpInvalidError("an object in the body has one key twice, or a key with escapes")
    return members


def _list(members: dict[str, Raw], name: str) -> Sequence[Raw]:
    value = members.get(name)
    return () if value is None else _elements_of(value) or ()


def _group(resource_logs: dict[str, Raw], scope_logs: dict[str, Raw], encoded: list[bytes], depth_max: int) -> LogGroup:
    resource_text, scope_text = bytes(resource_logs.get("resource", b"null")), bytes(scope_logs.get("scope", b"null"))
    schemas = [_decode_text(part.get("schemaUrl", b"null")) or "" for part in (resource_logs, scope_logs)]
    digest = blake2b(resource_text + b"\0" + scope_text, digest_size=ORIGIN_BYTES).digest()
    records: list[LogRecord | EventInvalidError]
    try:
        origin = Origin(_resource(resource_text, schemas[0], depth_max), _scope(scope_text, schemas[1], depth_max), digest)
        records = [_record_or_fault(record, depth_max) for record in encoded]
    except EventInvalidError as error:
        origin, records = Origin({}, {}, digest), [error for _ in encoded]

    return LogGroup(origin, records, encoded, partial(json_request, resource_text, schemas[0], scope_text, schemas[1]))


def _resource(text: bytes, schema_url: str, depth: int) -> dict[str, Any]:
    _require_strict(text)
    resource = _decode_resource(text) or _Resource()
    return shared_part(
        attributes=_members(resource.attributes, depth), dropped=_count(resource.dropped_attributes_count), schema_url=schema_url
    )


def _scope(text: bytes, schema_url: str, depth: int) -> dict[str, Any]:
    _require_strict(text)
    scope = _decode_scope(text) or _Scope()
    attributes = _members(scope.attributes, depth)
    return shared_part(scope.name or "", scope.version or "", attributes, _count(scope.dropped_attributes_count), schema_url)


def _require_strict(text: bytes) -> None:
    """Raise OtlpInvalidError for what no two readers need understand alike. NUL is left to the record's own rules."""
    fault = strict.find_fault(text, JSON_DEPTH_MAX)
    if fault == "depth_exceeded":
        raise too_deep()
    if fault is not None and not (fault == "string_invalid" and strict.find_fault(_NUL.sub(rb"\1", text), JSON_DEPTH_MAX) is None):
        raise OtlpInvalidError(f"a record in the body is no strict JSON ({fault})")


def _record_or_fault(text: bytes, depth_max: int) -> LogRecord | EventInvalidError:
    try:
        return _record(text, depth_max)
    except EventInvalidError as error:
        return error


def _record(text: bytes, depth: int) -> LogRecord:
    if len(text) > PART_BYTES:
        raise EventInvalidError(f"the record has {len(text)} bytes", code="event_too_large")
    _require_strict(text)
    record = _decode_record(text)
    return LogRecord(
        _nanoseconds(record.time_unix_nano),
        _nanoseconds(record.observed_time_unix_nano),
        record.severity_number or 0,
        record.severity_text or "",
        None if record.body is None else _plain(record.body, depth),
        _members(record.attributes, depth + 1),
        _hex(record.trace_id),
        _hex(record.span_id),
        record.event_name or "",
        _count(record.flags),
        _count(record.dropped_attributes_count),
    )


def _plain(value: _Value, depth: int) -> Any:
    """The JSON value that ``value`` stands for, as in `otlp`."""
    given = [one for one in map(value.__getattribute__, _Value.__struct_fields__) if one is not None]
    if len(given) > 1:
        raise OtlpInvalidError("a value in the body has several types at once")
    if not given:
        return None
    if value.int_value is not None:
        return _integer(value.int_value, -(2**63), 2**63 - 1)
    if value.double_value is not None:
        return _double(value.double_value)
    if value.bytes_value is not None:
        return base64.b64encode(_bytes(value.bytes_value)).decode()
    if value.array_value is None and value.kvlist_value is None:
        return given[0]
    if depth <= 0:
        raise too_deep()
    if value.array_value is not None:
        return [_plain(element, depth - 1) for element in value.array_value.values or ()]
    return _members(value.kvlist_value.values if value.kvlist_value is not None else None, depth)


def _members(pairs: list[_Pair] | None, depth: int) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for pair in pairs or ():
        key = pair.key or ""
        if key in members:
            raise EventInvalidError(f"the key {key[:80]!r} is there twice", code="key_duplicate")
        members[key] = None if pair.value is None else _plain(pair.value, depth - 1)
    return members


def _integer(value: int | str, least: int, most: int) -> int:
    if isinstance(value, str):
        if not _INT.fullmatch(value):
            raise OtlpInvalidError(f"{value[:40]!r} in the body is no integer")
        value = int(value)
    if not least <= value <= most:
        raise OtlpInvalidError(f"the integer {value} in the body has more than 64 bits")
    return value


def _nanoseconds(value: int | str | None) -> int:
    return 0 if value is None else _integer(value, 0, 2**64 - 1)


def _count(value: int | None) -> int:
    return 0 if value is None else _integer(value, 0, 2**32 - 1)


def _double(value: float | str) -> float | str:
    if isinstance(value, str) and value in _DOUBLES:
        return value
    try:
        return plain_double(float(value))
    except ValueError:
        raise OtlpInvalidError(f"{str(value)[:40]!r} in the body is no double") from None


def _bytes(text: str) -> bytes:
    """Base64 in either alphabet, with or without padding."""
    try:
        standard = text.translate(_URL_SAFE).rstrip("=")
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise OtlpInvalidError("a bytesValue in the body is no base64") from None


_URL_SAFE = str.maketrans("-_", "+/")


def _hex(text: str | None) -> str:
    if not text:
        return ""
    if not _HEX.fullmatch(text):
        raise OtlpInvalidError(f"the id {text[:40]!r} in the body is not hexadecimal")
    return text.lower()
