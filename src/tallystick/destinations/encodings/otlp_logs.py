"""OTLP log records (ExportLogsServiceRequest, Protobuf): one record an event, with the encoded event as its body.

| of a record | from |
|---|---|
| `time_unix_nano`, `observed_time_unix_nano` | `occurred_at`, `received_at`; not set before 1970 and past what 64 bits hold |
| `severity_number`, `severity_text` | `severity`, OCSF's 0 to 6, as OpenTelemetry counts |
| `event_name` | `action` |
| `body` | the event in its encoding, as text |
| `trace_id`, `span_id` | of `context`, where they are hexadecimal of the right length |
| attributes `audit.…` | the names of OpenTelemetry's draft for audit logs: record, action, outcome, actor, first target |
| attributes `client.address`, `user_agent.original`, `session.id` | of `context`, by OpenTelemetry's conventions |
| attributes `tallystick.…` | tenant, category, reason, source, request id, location |

The resource has `service.name`, the scope the name `tallystick` and which part of which log the cut is: `tallystick.log` (the origin),
`tallystick.first_index`, `tallystick.last_index`. The encoding `otlp` is the same with the canonical line as body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from tallystick.destinations.encodings.framing import EventEncoding
from tallystick.destinations.encodings.json import CanonicalJson
from tallystick.destinations.encodings.times import micros_of
from tallystick.event import Context, Event
from tallystick.event.codec import decode_line

_SEVERITIES = {1: (9, "INFO"), 2: (10, "INFO2"), 3: (13, "WARN"), 4: (17, "ERROR"), 5: (18, "ERROR2"), 6: (21, "FATAL")}
_TRACE = re.compile(r"[0-9a-f]{32}")
_SPAN = re.compile(r"[0-9a-f]{16}")


_CONTEXT = {
    "ip": "client.address",
    "user_agent": "user_agent.original",
    "session_id": "session.id",
    "request_id": "tallystick.request_id",
    "location": "tallystick.location",
}


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
        for key, number in (("tallystick.first_index", first_index), ("tallystick.last_index", last_index)):
            scope.scope.attributes.append(KeyValue(key=key, value=AnyValue(int_value=number)))
        for line, record in zip(lines, self._events.encode_events(lines), strict=True):
            _fill_record(scope.log_records.add(), decode_line(line), record.decode())
        return bytes(request.SerializeToString(deterministic=True))


class OtlpRequest(OtlpLogs):
    """The encoding `otlp`, for objects."""

    def __init__(self) -> None:
        super().__init__(CanonicalJson(), "tallystick")
        self.name = "otlp"


def make(options: object) -> OtlpRequest:
    """No option matters here."""
    return OtlpRequest()


def _fill_record(made: LogRecord, event: Event, text: str) -> None:
    number, name = _SEVERITIES.get(event.severity or 0, (0, ""))
    made.time_unix_nano = _nanoseconds(event.occurred_at or "")
    made.observed_time_unix_nano = _nanoseconds(event.received_at or "")
    made.severity_number = number  # type: ignore[assignment]
    made.severity_text = name
    made.event_name = event.action
    made.body.string_value = text
    for key, value in _attributes(event):
        if value:
            made.attributes.add(key=key).value.string_value = value
    if event.context:
        _set_trace(made, event.context)


def _attributes(event: Event) -> Iterator[tuple[str, str]]:
    """Key and value; some without one."""
    yield "audit.record.id", event.id or ""
    yield "audit.action", event.action
    yield "audit.outcome", event.outcome or "unknown"
    yield "audit.actor.id", event.actor.id
    yield "audit.actor.type", event.actor.type
    if event.targets:
        yield "audit.target.id", event.targets[0].id
        yield "audit.target.type", event.targets[0].type
    yield "tallystick.tenant", event.tenant or ""
    yield "tallystick.category", event.category or ""
    yield "tallystick.reason", event.reason or ""
    yield "tallystick.source", (event.source and event.source.name) or ""
    if event.context:
        for member, key in _CONTEXT.items():
            yield key, getattr(event.context, member) or ""


def _set_trace(made: LogRecord, context: Context) -> None:
    trace, span = (context.trace_id or "").lower(), (context.span_id or "").lower()
    if _TRACE.fullmatch(trace) and int(trace, 16):
        made.trace_id = bytes.fromhex(trace)
        if _SPAN.fullmatch(span) and int(span, 16):
            made.span_id = bytes.fromhex(span)


def _nanoseconds(text: str) -> int:
    """0, which is "not set", before 1970 and past what 64 bits hold."""
    value = micros_of(text) * 1_000
    return value if 0 <= value < 1 << 64 else 0


def _pair(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))
