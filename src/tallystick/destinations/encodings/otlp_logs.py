"""OTLP log records (ExportLogsServiceRequest, Protobuf): one record an event, with the encoded event as its body.

| of a record | from |
|---|---|
| `time_unix_nano`, `observed_time_unix_nano` | `occurred_at` (left out before 1970), `received_at` |
| `severity_number`, `severity_text` | `severity`, OCSF's 0 to 6, as OpenTelemetry counts |
| `event_name` | `action` |
| `body` | the event in its encoding, as text |
| `trace_id`, `span_id` | of `context`, where they are hexadecimal of the right length |
| attributes `audit.record.id`, `audit.action`, `audit.outcome`, `audit.actor.id`, `audit.actor.type` | the names of OpenTelemetry's draft for audit logs |
| attribute `tallystick.tenant` | `tenant` |

The resource has `service.name`, the scope the name `tallystick` and the attribute `tallystick.log`, the origin of the tenant's log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from tallystick.destinations.encodings.framing import EventEncoding

_SEVERITIES = {1: (9, "INFO"), 2: (10, "INFO2"), 3: (13, "WARN"), 4: (17, "ERROR"), 5: (18, "ERROR2"), 6: (21, "FATAL")}
_TRACE = re.compile(r"[0-9a-f]{32}")
_SPAN = re.compile(r"[0-9a-f]{16}")


class _Actor(msgspec.Struct):
    type: str = ""
    id: str = ""


class _Context(msgspec.Struct):
    trace_id: str = ""
    span_id: str = ""


class _Event(msgspec.Struct):
    id: str
    tenant: str
    occurred_at: str
    received_at: str
    action: str
    actor: _Actor
    severity: int = 0
    outcome: str = "unknown"
    context: _Context = msgspec.field(default_factory=_Context)


_read_event = msgspec.json.Decoder(_Event).decode


class OtlpLogs:
    """One request with one resource and one scope."""

    content_type = "application/x-protobuf"
    suffix = ".binpb"

    def __init__(self, events: EventEncoding, service_name: str) -> None:
        self._events = events
        self._service_name = service_name
        self.name = f"{events.name}_otlp"
        self.version = f"1+{events.version}"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        request = ExportLogsServiceRequest()
        logs = request.resource_logs.add()
        logs.resource.attributes.append(_pair("service.name", self._service_name))
        scope = logs.scope_logs.add()
        scope.scope.name = "tallystick"
        scope.scope.attributes.append(_pair("tallystick.log", origin))
        for line, record in zip(lines, self._events.encode_events(lines), strict=True):
            scope.log_records.append(_log_record(_read_event(line), record.decode()))
        return bytes(request.SerializeToString(deterministic=True))


def _log_record(event: _Event, text: str) -> LogRecord:
    number, name = _SEVERITIES.get(event.severity, (0, ""))
    attributes = {
        "audit.record.id": event.id,
        "audit.action": event.action,
        "audit.outcome": event.outcome,
        "audit.actor.id": event.actor.id,
        "audit.actor.type": event.actor.type,
        "tallystick.tenant": event.tenant,
    }
    made = LogRecord(
        time_unix_nano=_nanoseconds(event.occurred_at),
        observed_time_unix_nano=_nanoseconds(event.received_at),
        severity_number=number,  # type: ignore[arg-type]
        severity_text=name,
        event_name=event.action,
        body=AnyValue(string_value=text),
        attributes=[_pair(key, value) for key, value in attributes.items()],
    )
    trace, span = event.context.trace_id.lower(), event.context.span_id.lower()
    if _TRACE.fullmatch(trace) and int(trace, 16):
        made.trace_id = bytes.fromhex(trace)
        if _SPAN.fullmatch(span) and int(span, 16):
            made.span_id = bytes.fromhex(span)
    return made


def _nanoseconds(text: str) -> int:
    """0, which is "not set", before 1970 and past what 64 bits hold."""
    if not "1970" <= text < "2262":
        return 0
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000 + int(text[20:26]) * 1_000


def _pair(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))
