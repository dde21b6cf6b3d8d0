"""OpenTelemetry's logs protocol (OTLP 1.x, signal `logs`): a request's bytes in, plain log records out.

    ExportLogsServiceRequest
      └ ResourceLogs *       resource: who emitted (attributes), schema_url
          └ ScopeLogs *      scope: which library (name, version, attributes), schema_url
              └ LogRecord *  times, severity, body, attributes, trace and span, event name

Protobuf (here) and JSON (`otlp_json`) give the same `LogGroup` s, in the order of the request. The rules of both:

1. A body that is no such message (cut, garbage, a wrong wire type, text that is not UTF-8, in JSON a key twice) is refused as
   a whole: `OtlpInvalidError`. Fields that are not known are skipped, as the protocol asks. A field that is known but has
   another wire type would be skipped by the library as well, and with it what the sender believes to be stored (`_check_wire`).
2. What the protocol allows and an event does not (an attribute twice, nesting deeper than the limit) is the fault of that one
   record; the others are good. Its place in `LogGroup.records` holds the EventInvalidError.
3. AnyValue becomes the JSON value it stands for: bytes become base64, the doubles that JSON lacks become the texts `NaN`,
   `Infinity` and `-Infinity`, and a value with nothing set becomes null.

Memory: a message takes up to sixty times its bytes, so bodies are cut into parts of about a MiB (`otlp_wire`), and a group is
at most one part; a longer record is not looked into. Whoever takes the groups one by one never has more than one of them in
memory as plain values.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from msgspec import Raw
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as ProtoRecord

from tallystick.errors import EventInvalidError
from tallystick.protocols.otlp_wire import PART_BYTES, OtlpInvalidError, TooManyRecordsError, encode_field, split_request

ORIGIN_BYTES = 16
"""Length of `Origin.digest`."""
_NO_MEMBERS = len("{}")

_encode = msgspec.json.Encoder().encode


class Origin(msgspec.Struct):
    """What all records of a group share. ``digest``: 16 bytes over resource and scope as received."""

    resource: dict[str, Any]
    scope: dict[str, Any]
    digest: bytes


class LogRecord(msgspec.Struct, gc=False):
    """One record. Times in nanoseconds since 1970, 0 when not set; trace and span in hexadecimal, empty when not set."""

    time_ns: int
    observed_ns: int
    severity: int
    severity_text: str
    body: Any
    attributes: dict[str, Any]
    trace_id: str
    span_id: str
    event_name: str
    flags: int
    dropped: int


class LogGroup(msgspec.Struct):
    """Records of one ScopeLogs. ``encoded`` are they as received: protobuf bytes, or compact JSON.

    ``as_request(encoded)`` makes a request of its own of one of them: what the quarantine keeps, and what can be sent in again.
    """

    origin: Origin
    records: list[LogRecord | EventInvalidError]
    encoded: list[bytes]
    as_request: Callable[[bytes], bytes]


def decode_protobuf(body: bytes, depth_max: int, records_max: int) -> Iterator[LogGroup]:
    """All records of a request; ``depth_max`` bounds the nesting of one attribute or body. Raises OtlpInvalidError."""
    count = 0
    for part in split_request(body, records_max):
        try:
            request = ExportLogsServiceRequest.FromString(part.request)
            view = _RequestView.FromString(part.request)
        except DecodeError:
            raise OtlpInvalidError("the body is no ExportLogsServiceRequest in protobuf") from None
        _check_wire(request)
        for resource_logs, resource_view in zip(request.resource_logs, view.resource_logs, strict=True):
            _check_wire(resource_logs)
            for scope_logs, scope_view in zip(resource_logs.scope_logs, resource_view.scope_logs, strict=True):
                _check_wire(scope_logs)
                encoded = [part.long_record] if part.long_record else scope_view.log_records[:]
                count += len(encoded)
                if count > records_max:
                    raise TooManyRecordsError(records_max)
                if encoded:
                    yield _group(resource_logs, scope_logs, encoded, depth_max)


def _group(resource_logs: Any, scope_logs: Any, encoded: list[bytes], depth_max: int) -> LogGroup:
    resource, scope = resource_logs.resource, scope_logs.scope
    resource_bytes, scope_bytes = resource.SerializeToString(), scope.SerializeToString()
    digest = blake2b(resource_bytes + b"\0" + scope_bytes, digest_size=ORIGIN_BYTES).digest()
    records: list[LogRecord | EventInvalidError]
    try:
        _check_wire(resource)
        _check_wire(scope)
        origin = Origin(
            shared_part(
                attributes=_members(resource.attributes, depth_max),
                dropped=resource.dropped_attributes_count,
                schema_url=resource_logs.schema_url,
            ),
            shared_part(
                scope.name,
                scope.version,
                _members(scope.attributes, depth_max),
                scope.dropped_attributes_count,
                scope_logs.schema_url,
            ),
            digest,
        )
        if len(encoded[0]) > PART_BYTES:
            raise EventInvalidError(f"the record has {len(encoded[0])} bytes", code="event_too_large")
        records = _records(scope_logs.log_records[:], depth_max)
    except EventInvalidError as error:
        origin, records = Origin({}, {}, digest), [error for _ in encoded]
    envelope = (resource_bytes, resource_logs.schema_url, scope_bytes, scope_logs.schema_url)
    return LogGroup(origin, records, encoded, lambda record: _proto_request(*envelope, record))


def _records(protos: list[Any], depth_max: int) -> list[LogRecord | EventInvalidError]:
    """The hot loop: every access to a message from here is a call into C."""
    records: list[LogRecord | EventInvalidError] = []
    add = records.append
    for proto in protos:
        try:
            if len(UnknownFieldSet(proto)):
                _check_wire(proto)
            attributes: dict[str, Any] = {}
            pairs = proto.attributes[:]
            for pair in pairs:
                value = pair.value
                attributes[pair.key] = value.string_value or _plain(value, depth_max)
            if len(attributes) != len(pairs):
                raise _repeated(pair.key for pair in pairs)
            if "" in attributes or None in attributes.values():
                _check_pairs(pairs)
            body = proto.body
            add(
                LogRecord(
                    proto.time_unix_nano,
                    proto.observed_time_unix_nano,
                    proto.severity_number,
                    proto.severity_text,
                    body.string_value or _plain(body, depth_max),
                    attributes,
                    proto.trace_id.hex(),
                    proto.span_id.hex(),
                    proto.event_name,
                    proto.flags,
                    proto.dropped_attributes_count,
                )
            )
        except EventInvalidError as error:
            add(error)
    return records


def _plain(value: AnyValue, depth: int) -> Any:
    """The JSON value that ``value`` stands for, ``depth`` levels deep at most. Raises EventInvalidError."""
    kind = value.WhichOneof("value")
    if kind == "int_value":
        return value.int_value
    if kind == "double_value":
        return plain_double(value.double_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind == "string_value":
        return value.string_value
    if kind is None:
        _check_wire(value)
        return None
    if depth <= 0:
        raise too_deep()
    if kind == "array_value":
        return [_plain(element, depth - 1) for element in value.array_value.values]
    if kind == "kvlist_value":
        return _members(value.kvlist_value.values, depth)
    return None


def plain_double(value: float) -> float | str:
    """A double as JSON can write it."""
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def too_deep() -> EventInvalidError:
    """The fault of a record that is nested deeper than an event may be."""
    return EventInvalidError("the record is nested too deep", code="depth_exceeded")


def _members(pairs: Iterable[KeyValue], depth: int) -> dict[str, Any]:
    """An object from key-value pairs. Raises EventInvalidError when a key is there twice."""
    members: dict[str, Any] = {}
    for pair in pairs:
        if pair.key in members:
            raise _repeated(pair.key for pair in pairs)
        _check_wire(pair)
        members[pair.key] = _plain(pair.value, depth - 1)
    return members


def _check_pairs(pairs: Iterable[KeyValue]) -> None:
    for pair in pairs:
        _check_wire(pair)


def _check_wire(message: Message) -> None:
    """Raise OtlpInvalidError when ``message`` has a field whose number we know, with a wire type that is not its own."""
    known = message.DESCRIPTOR.fields_by_number
    for field in UnknownFieldSet(message):
        if field.field_number in known:
            name = known[field.field_number].name
            raise OtlpInvalidError(f"the field {name} has the wire type {field.wire_type}, which is not its own")


def _repeated(keys: Iterable[str]) -> EventInvalidError:
    """The fault of a key that is there twice: whoever reads the last of them knows something else than who reads the first."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return EventInvalidError(f"the key {key[:80]!r} is there twice", code="key_duplicate")
        seen.add(key)
    raise AssertionError("no key is there twice")


def shared_part(
    name: str = "", version: str = "", attributes: dict[str, Any] | None = None, dropped: int = 0, schema_url: str = ""
) -> dict[str, Any]:
    """Resource or scope as an event's metadata has it: only what is set."""
    part = {
        "name": name, "version": version, "attributes": attributes,
        "dropped_attributes_count": dropped, "schema_url": schema_url,
    }  # fmt: skip
    return {key: value for key, value in part.items() if value}


def _proto_request(resource_bytes: bytes, resource_schema: str, scope_bytes: bytes, scope_schema: str, encoded: bytes) -> bytes:
    """One record as a whole request: in OTLP's JSON form, which people can read; one that is not looked into in protobuf."""
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add(schema_url=resource_schema)
    resource_logs.resource.ParseFromString(resource_bytes)
    scope_logs = resource_logs.scope_logs.add(schema_url=scope_schema)
    scope_logs.scope.ParseFromString(scope_bytes)
    if len(encoded) > PART_BYTES:
        with_record = scope_logs.SerializeToString() + encode_field(2, encoded)
        del resource_logs.scope_logs[:]
        return encode_field(1, resource_logs.SerializeToString() + encode_field(2, with_record))
    record = ProtoRecord.FromString(encoded)
    resource, scope = resource_logs.resource, scope_logs.scope
    return json_request(
        _encode(_set({
            "attributes": tagged_pairs(resource.attributes), "droppedAttributesCount": resource.dropped_attributes_count,
        })),
        resource_schema,
        _encode(_set({
            "name": scope.name, "version": scope.version, "attributes": tagged_pairs(scope.attributes),
            "droppedAttributesCount": scope.dropped_attributes_count,
        })),
        scope_schema,
        _encode(_set({
            "timeUnixNano": _decimal(record.time_unix_nano), "observedTimeUnixNano": _decimal(record.observed_time_unix_nano),
            "severityNumber": record.severity_number, "severityText": record.severity_text, "eventName": record.event_name,
            "body": tagged(record.body) if record.HasField("body") else None, "attributes": tagged_pairs(record.attributes),
            "droppedAttributesCount": record.dropped_attributes_count, "flags": record.flags,
            "traceId": record.trace_id.hex(), "spanId": record.span_id.hex(),
        })),
    )  # fmt: skip


def json_request(resource: bytes, resource_schema: str, scope: bytes, scope_schema: str, record: bytes) -> bytes:
    """A request of one ``record``; all three in JSON already, resource and scope perhaps `null` or `{}`."""
    scope_logs: dict[str, Any] = {"scope": Raw(scope)} if len(scope) > _NO_MEMBERS and scope != b"null" else {}
    resource_logs: dict[str, Any] = {"resource": Raw(resource)} if len(resource) > _NO_MEMBERS and resource != b"null" else {}
    scope_logs |= _set({"schemaUrl": scope_schema}) | {"logRecords": [Raw(record)]}
    resource_logs |= _set({"schemaUrl": resource_schema}) | {"scopeLogs": [scope_logs]}
    return _encode({"resourceLogs": [resource_logs]})


def _set(members: dict[str, Any]) -> dict[str, Any]:
    """Only what is set: proto3 knows no difference between a default and nothing."""
    return {key: value for key, value in members.items() if value}


def _decimal(value: int) -> str:
    """A 64-bit integer as OTLP's JSON has it; empty for the default."""
    return str(value) if value else ""


def tagged(value: AnyValue) -> dict[str, Any]:
    """An AnyValue in OTLP's JSON form: one member that is named by its type; integers as decimal text."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return {"stringValue": value.string_value}
    if kind == "int_value":
        return {"intValue": str(value.int_value)}
    if kind == "double_value":
        return {"doubleValue": plain_double(value.double_value)}
    if kind == "bool_value":
        return {"boolValue": value.bool_value}
    if kind == "bytes_value":
        return {"bytesValue": base64.b64encode(value.bytes_value).decode()}
    if kind == "array_value":
        return {"arrayValue": {"values": [tagged(element) for element in value.array_value.values]}}
    if kind == "kvlist_value":
        return {"kvlistValue": {"values": tagged_pairs(value.kvlist_value.values)}}
    return {}


def tagged_pairs(pairs: Iterable[KeyValue]) -> list[dict[str, Any]]:
    """Attributes in OTLP's JSON form."""
    return [{"key": pair.key, "value": tagged(pair.value)} for pair in pairs]


def _make_view() -> Any:
    """A second reading of a request, in which each record is the bytes that it is: on the wire the two look the same."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="tallystick/otlp_view.proto", package="tallystick.otlp_view", syntax="proto3")
    for name, member, number, inner in (
        ("Request", "resource_logs", 1, "ResourceLogs"),
        ("ResourceLogs", "scope_logs", 2, "ScopeLogs"),
        ("ScopeLogs", "log_records", 2, ""),
    ):
        kind = field.TYPE_MESSAGE if inner else field.TYPE_BYTES
        made = file.message_type.add(name=name).field.add(name=member, number=number, type=kind, label=field.LABEL_REPEATED)
        if inner:
            made.type_name = f".tallystick.otlp_view.{inner}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tallystick.otlp_view.Request"))


_RequestView = _make_view()
