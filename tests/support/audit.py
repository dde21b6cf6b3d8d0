"""Audit records of the OpenTelemetry draft for tests, and a signer that shares no code with the server."""

from __future__ import annotations

import base64
import json
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from support.otlp import TIME_NS, any_value, log_record, log_request

LOGIN = {
    "audit.record.id": "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
    "audit.actor.id": "u8472",
    "audit.actor.type": "user",
    "audit.action": "LOGIN",
    "audit.outcome": "success",
    "audit.target.id": "/api/auth/session",
    "audit.target.type": "http.endpoint",
    "audit.source.id": "203.0.113.42",
    "audit.source.type": "ipv4",
    "audit.schema.version": "1.0.0",
    "session.id": "sess-abc123",
    "tls.version": "TLSv1.3",
}
"""The draft's first example."""


def audit_record(record_id: str = "", body: Any = None, drop: str = "", **changes: Any) -> LogRecord:
    """The draft's example, with other attributes (dots written as two underscores) and without ``drop``."""
    attributes = LOGIN | {name.replace("__", "."): value for name, value in changes.items() if name != "fields"}
    if record_id:
        attributes["audit.record.id"] = record_id
    attributes.pop(drop, None)
    fields = {"event_name": "user.login.success", "observed_time_unix_nano": TIME_NS + 1_000_000} | changes.get("fields", {})
    return log_record(body, attributes, **fields)


def signed(record: LogRecord, sign: Any, algorithm: str, certificate: str = "") -> ExportLogsServiceRequest:
    """A request with the record and the proof that ``sign`` makes of its text; ordinary texts only, so JSON's sorted keys are JCS."""
    attributes = {pair.key: _tagged(pair.value) for pair in record.attributes}
    members: dict[str, Any] = {
        "attributes": attributes,
        "event_name": record.event_name,
        "observed_timestamp": str(record.observed_time_unix_nano),
        "timestamp": str(record.time_unix_nano),
    }
    if record.HasField("body"):
        members["body"] = _tagged(record.body)
    text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    made = LogRecord()
    made.CopyFrom(record)
    made.attributes.add(key="audit.integrity.value").value.CopyFrom(any_value(base64.b64encode(sign(text)).decode()))
    resource = {"service.name": "auth-service", "audit.integrity.algorithm": algorithm}
    return log_request(made, resource=resource | ({"audit.integrity.certificate": certificate} if certificate else {}))


def _tagged(value: Any) -> Any:
    match value.WhichOneof("value"):
        case "string_value":
            return {"stringValue": value.string_value}
        case "int_value":
            return {"intValue": value.int_value}
        case "bool_value":
            return {"boolValue": value.bool_value}
        case "kvlist_value":
            return {pair.key: _tagged(pair.value) for pair in value.kvlist_value.values}
    raise AssertionError(value)
