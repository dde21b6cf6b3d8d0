"""OTLP requests for tests, made with the library's own messages."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

TIME_NS = 1_714_041_600_000_000_000
"""2024-04-25T10:40:00Z."""


def any_value(value: Any) -> AnyValue:
    """A Python value as an AnyValue; None has nothing set."""
    made = AnyValue()
    match value:
        case None:
            pass
        case bool():
            made.bool_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case bytes():
            made.bytes_value = value
        case list():
            made.array_value.values.extend(map(any_value, value))
            made.array_value.SetInParent()
        case dict():
            made.kvlist_value.values.extend(pairs(value))
            made.kvlist_value.SetInParent()
        case _:
            made.string_value = value
    return made


def pairs(members: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in members.items()]


def log_record(body: Any = None, attributes: dict[str, Any] | None = None, **fields: Any) -> LogRecord:
    """A record with a time, unless ``fields`` say otherwise."""
    made = LogRecord(**{"time_unix_nano": TIME_NS, **fields}, attributes=pairs(attributes or {}))
    if body is not None:
        made.body.CopyFrom(any_value(body))
    return made


def log_request(
    *records: LogRecord, resource: dict[str, Any] | None = None, scope: str = "", schema_url: str = ""
) -> ExportLogsServiceRequest:
    """A request of one resource and one scope."""
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add(schema_url=schema_url)
    logs.resource.attributes.extend(pairs(resource or {}))
    logs.scope_logs.add(log_records=records).scope.name = scope
    return request


def numbered(first: int, count: int, resource: dict[str, Any] | None = None) -> ExportLogsServiceRequest:
    """Records of an ordinary kind, each different from every other."""
    records = [
        log_record(
            f"invoice {number} approved by u_{number % 97} for acc_{number % 13}",
            {
                "user.id": f"u_{number % 97}",
                "http.request.method": "POST",
                "url.path": f"/invoices/{number}/approve",
                "client.address": f"10.1.{number % 256}.7",
                "http.response.status_code": 200,
                "invoice.amount": number * 1.25,
            },
            time_unix_nano=TIME_NS + number * 1_000,
            observed_time_unix_nano=TIME_NS + number * 1_000 + 500,
            severity_number=9,
            severity_text="INFO",
            event_name="invoice.approve",
            trace_id=number.to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
        )
        for number in range(first, first + count)
    ]
    usual = {"service.name": "checkout", "service.version": "1.4.2", "host.name": "web-7", "telemetry.sdk.language": "python"}
    return log_request(*records, resource=usual if resource is None else resource, scope="checkout.audit")
