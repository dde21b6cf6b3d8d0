"""OpenTelemetry's logs protocol (OTLP 1.x, signal `logs`): a request's bytes in, plain log records out.

    ExportLogsServiceRequest
      └ ResourceLogs *       resource: who emitted (attributes), schema_url
          └ ScopeLogs *      scope: which library (name, version, attributes), schema_url
              └ LogRecord *  times, severity, body, attributes, trace and span, event name

Protobuf (here) and JSON (`otlp_json`) give the same `LogGroup` s, in the order of the request. The rules of both:

1. A body that is no such message (cut, garbage, a wrong wire type, text that is not UTF-8, in JSON a key twice) is refused as
   a whole: `OtlpInvalidError`. Fields that are not known are skipped, as the protocol asks. A field that is known but has
   another wire type would be skipped by the library as well, and with it what the sender believes to be stored (`otlp_values.check_wire`).
2. What the protocol allows and an event does not (an attribute twice, nesting deeper than the limit) is the fault of that one
   record; the others are good. Its place in `LogGroup.records` holds the EventInvalidError.
3. AnyValue becomes the JSON value it stands for (`otlp_values`).

Memory: a message takes up to sixty times its bytes, so bodies are cut into parts of about a MiB (`otlp_wire`), and a group is
at most one part; a longer record is not looked into. Whoever takes the groups one by one never has more than one of them in
memory as plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from msgspec import Raw
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as ProtoRecord

from tallystick.errors import EventInvalidError
from tallystick.protocols import otlp_views as views
from tallystick.protocols.otlp_values import AttributeReader, check_wire, members_of, plain, repeated, tagged, tagged_pairs
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
    attributes = AttributeReader(depth_max)
    for part in split_request(body, records_max):
        try:
            request, view = views.Request.FromString(part.request), views.Records.FromString(part.request)
        except DecodeError:
            raise OtlpInvalidError("the body is no ExportLogsServiceRequest in protobuf") from None
        check_wire(request)
        for resource_logs, resource_view in zip(request.resource_logs, view.resource_logs, strict=True):
            check_wire(resource_logs)
            for scope_logs, scope_view in zip(resource_logs.scope_logs, resource_view.scope_logs, strict=True):
                check_wire(scope_logs)
                encoded = [part.long_record] if part.long_record else scope_view.log_records[:]
                count += len(encoded)
                if count > records_max:
                    raise TooManyRecordsError(records_max)
                if encoded:
                    yield _group(resource_logs, scope_logs, encoded, attributes)


def _group(resource_logs: Any, scope_logs: Any, encoded: list[bytes], attributes: AttributeReader) -> LogGroup:
    resource, scope = resource_logs.resource, scope_logs.scope
    resource_bytes, scope_bytes = resource.SerializeToString(), scope.SerializeToString()
    digest = blake2b(resource_bytes + b"\0" + scope_bytes, digest_size=ORIGIN_BYTES).digest()
    records: list[LogRecord | EventInvalidError]
    try:
        check_wire(resource)
        check_wire(scope)
        origin = Origin(
            shared_part(
                attributes=members_of(resource.attributes, attributes.depth_max),
                dropped=resource.dropped_attributes_count,
                schema_url=resource_logs.schema_url,
            ),
            shared_part(
                scope.name,
                scope.version,
                members_of(scope.attributes, attributes.depth_max),
                scope.dropped_attributes_count,
                scope_logs.schema_url,
            ),
            digest,
        )
        if len(encoded[0]) > PART_BYTES:
            raise EventInvalidError(f"the record has {len(encoded[0])} bytes", code="event_too_large")
        records = _records(scope_logs.log_records[:], attributes)
    except EventInvalidError as error:
        origin, records = Origin({}, {}, digest), [error for _ in encoded]
    envelope = (resource_bytes, resource_logs.schema_url, scope_bytes, scope_logs.schema_url)
    return LogGroup(origin, records, encoded, lambda record: _proto_request(*envelope, record))


def _records(protos: list[Any], reader: AttributeReader) -> list[LogRecord | EventInvalidError]:
    """The hot loop: every access to a message from here is a call into C."""
    records: list[LogRecord | EventInvalidError] = []
    add, known, read, depth_max = records.append, reader.known.get, reader.read, reader.depth_max
    for proto in protos:
        try:
            if len(UnknownFieldSet(proto)):
                check_wire(proto)
            attributes: dict[str, Any] = {}
            pairs = proto.attributes[:]
            for pair in pairs:
                key, value = known(pair) or read(pair)
                attributes[key] = value
            if len(attributes) != len(pairs):
                raise repeated(read(pair)[0] for pair in pairs)
            body = proto.body
            add(
                LogRecord(
                    proto.time_unix_nano,
                    proto.observed_time_unix_nano,
                    proto.severity_number,
                    proto.severity_text,
                    body.string_value or plain(body, depth_max),
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
