"""OpenAPI path items for the endpoints of other protocols, which answer in their own form; their pages are in docs/sources/."""

from __future__ import annotations

from typing import Any

from tallystick.api.openapi_hec import hec_paths

_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}
_STATUS = {
    "type": "object",
    "description": "google.rpc.Status",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "integer"},
        "message": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object"}},
    },
}
_OTLP_REFUSALS = {
    "400": "No OTLP request; nothing was stored.",
    "401": "No key, or one that is unknown, expired or revoked.",
    "403": "The key lacks `ingest`, or may not write there.",
    "408": "The body did not arrive in time.",
    "413": "Larger than a limit of `/v1/limits`, or too many records.",
    "415": "A media type or encoding that is not read here.",
    "421": "A Host header that this server does not serve.",
    "429": "Too much from this sender.",
    "431": "The request line and headers are too large.",
    "503": "Overloaded, `disk_full` or not accepting; nothing was stored.",
}
_KUBERNETES_REJECT = {
    "409": "With `on_invalid=reject`: an id was used before with other content.",
    "422": "With `on_invalid=reject`: some entry cannot be stored.",
}


def protocol_paths() -> dict[str, Any]:
    """Path items by path."""
    return {
        "/v1/logs": {"post": _post_logs()},
        "/v1/audit": {"post": _post_audit()},
        **hec_paths(),
        "/v1/kubernetes": {"post": _post_kubernetes()},
    }


def _otlp_bodies(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}, "application/x-protobuf": {"schema": {"type": "string", "format": "binary"}}}


def _otlp_refusals() -> dict[str, Any]:
    made = {status: {"description": text, "content": _otlp_bodies(_STATUS)} for status, text in _OTLP_REFUSALS.items()}
    for status in ("429", "503"):
        made[status]["headers"] = _RETRY
    return made


def _post_audit() -> dict[str, Any]:
    refusal = {
        "type": "object",
        "required": ["status", "reason"],
        "properties": {"status": {"type": "string"}, "reason": {"type": "string"}},
    }
    answer = {
        "type": "object",
        "required": ["status", "receipts"],
        "properties": {"status": {"type": "string"}, "receipts": {"type": "array"}},
    }
    texts = _OTLP_REFUSALS | {
        "400": "No OTLP request, a record that lacks something, or a proof that does not fit; nothing was stored.",
        "409": "An id was used before with other content; nothing was stored.",
    }
    refusals: dict[str, Any] = {
        status: {"description": text, "content": {"application/json": {"schema": refusal}}} for status, text in texts.items()
    }
    for status in ("429", "503"):
        refusals[status]["headers"] = _RETRY
    return {
        "operationId": "exportAudit",
        "tags": ["intake"],
        "summary": "Audit records of OpenTelemetry's draft",
        "description": "An ExportLogsServiceRequest of audit records: all of it is taken or nothing, with a receipt for each.",
        "security": [{"key": []}],
        "requestBody": {"required": True, "content": _otlp_bodies({"type": "object"})},
        "responses": {"200": {"description": "On disk.", "content": {"application/json": {"schema": answer}}}, **refusals},
    }


def _post_logs() -> dict[str, Any]:
    partial = {"rejectedLogRecords": {"type": "string"}, "errorMessage": {"type": "string"}}
    answer = {"type": "object", "properties": {"partialSuccess": {"type": "object", "properties": partial}}}
    return {
        "operationId": "exportLogs",
        "tags": ["intake"],
        "summary": "OpenTelemetry log records",
        "description": "An ExportLogsServiceRequest of OTLP/HTTP. Bad records go to quarantine and are told in `partial_success`.",
        "security": [{"key": []}],
        "requestBody": {"required": True, "content": _otlp_bodies({"type": "object"})},
        "responses": {"200": {"description": "On disk.", "content": _otlp_bodies(answer)}, **_otlp_refusals()},
    }


def _post_kubernetes() -> dict[str, Any]:
    list_schema = {"type": "object", "properties": {"items": {"type": "array", "items": {"type": "object"}}}}
    status = {
        "type": "object",
        "required": ["kind", "code"],
        "properties": {"kind": {"const": "Status"}, "code": {"type": "integer"}},
    }
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    refusals: dict[str, Any] = {
        code: {"description": text, "content": {"application/json": {"schema": status}, "application/problem+json": problem}}
        for code, text in {**_OTLP_REFUSALS, "400": "An empty body, or an unknown parameter.", **_KUBERNETES_REJECT}.items()
    }
    for code in ("429", "503"):
        refusals[code]["headers"] = _RETRY
    return {
        "operationId": "postKubernetesAudit",
        "tags": ["intake"],
        "summary": "Kubernetes audit webhook",
        "description": "An EventList of audit.k8s.io/v1. Entries that cannot be stored go to quarantine; docs/sources/kubernetes.md.",
        "security": [{"key": []}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": list_schema}}},
        "responses": {
            "200": {
                "description": "On disk.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Accepted"}}},
            },
            **refusals,
        },
    }
