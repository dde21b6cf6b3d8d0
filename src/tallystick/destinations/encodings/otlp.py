"""`otlp`: one ExportLogsServiceRequest of OpenTelemetry in Protobuf for a whole cut.

    resource    service.name = tallystick, tallystick.tenant
    scope       tallystick, version of the encoding; which part of which log: tallystick.log, .first_index, .last_index
    log record  time, observed time, severity, event name (the action), body (the canonical line: a leaf), attributes

The attributes are those of OpenTelemetry's audit-logging draft (``audit.…``) and of its semantic conventions. Times before 1970 or after 2554
do not fit the protocol's nanoseconds: they are 0 there, which means unknown, and stand in the body.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import UNSET
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tallystick.destinations.encodings.times import micros_of
from tallystick.event import Context, Event
from tallystick.event.codec import decode_line

_SEVERITIES = (0, 9, 10, 13, 17, 18, 21)
"""OpenTelemetry's numbers of OCSF's 0 to 6."""
_SEVERITY_TEXTS = ("Unknown", "Informational", "Low", "Medium", "High", "Critical", "Fatal")
_NANOSECONDS_END = 1 << 64
_CONTEXT = {
    "ip": "client.address",
    "user_agent": "user_agent.original",
    "session_id": "session.id",
    "request_id": "tallystick.request_id",
    "location": "tallystick.location",
}


class OtlpRequest:
    """The request for one cut."""

    name = "otlp"
    version = "1"
    content_type = "application/x-protobuf"
    suffix = ".otlp"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        request: Any = ExportLogsServiceRequest()
        events = [decode_line(line) for line in lines]
        group = request.resource_logs.add()
        tenant = (events[0].tenant or "") if events else ""
        _put(group.resource, "service.name", "tallystick")
        _put(group.resource, "tallystick.tenant", tenant)
        scoped = group.scope_logs.add()
        scoped.scope.name, scoped.scope.version = "tallystick", self.version
        _put(scoped.scope, "tallystick.log", origin)
        for name, value in (("first_index", first_index), ("last_index", last_index)):
            scoped.scope.attributes.add(key=f"tallystick.{name}").value.int_value = value
        for line, event in zip(lines, events, strict=True):
            _fill(scoped.log_records.add(), line, event)
        body: bytes = request.SerializeToString(deterministic=True)
        return body


def make(options: object) -> OtlpRequest:
    """No option matters here."""
    return OtlpRequest()


def _fill(record: Any, line: bytes, event: Event) -> None:
    record.time_unix_nano = _nanoseconds(event.occurred_at or "")
    record.observed_time_unix_nano = _nanoseconds(event.received_at or "")
    if event.severity is not UNSET:
        record.severity_number = _SEVERITIES[event.severity]
        record.severity_text = _SEVERITY_TEXTS[event.severity]
    record.event_name = event.action
    record.body.string_value = line.decode()
    for key, value in _attributes(event):
        if value:
            _put(record, key, value)
    if event.context:
        _trace(record, event.context)


def _attributes(event: Event) -> Iterator[tuple[str, str]]:
    yield "audit.record.id", event.id or ""
    yield "audit.action", event.action
    yield "audit.actor.id", event.actor.id
    yield "audit.actor.type", event.actor.type
    yield "audit.outcome", event.outcome or "unknown"
    if event.targets:
        yield "audit.target.id", event.targets[0].id
        yield "audit.target.type", event.targets[0].type
    yield "tallystick.category", event.category or ""
    yield "tallystick.reason", event.reason or ""
    yield "tallystick.source", (event.source and event.source.name) or ""
    if event.context:
        for member, key in _CONTEXT.items():
            yield key, getattr(event.context, member) or ""


def _trace(record: Any, context: Context) -> None:
    """Ids of the W3C's form have fields of their own; others are attributes."""
    for member, length in (("trace_id", 16), ("span_id", 8)):
        text = getattr(context, member) or ""
        try:
            value = binascii.unhexlify(text)
        except (ValueError, binascii.Error):
            value = b""
        if len(value) == length and any(value):
            setattr(record, member, value)
        elif text:
            _put(record, f"tallystick.{member}", text)


def _put(holder: Any, key: str, value: str) -> None:
    holder.attributes.add(key=key).value.string_value = value


def _nanoseconds(text: str) -> int:
    value = micros_of(text) * 1000
    return value if 0 <= value < _NANOSECONDS_END else 0
