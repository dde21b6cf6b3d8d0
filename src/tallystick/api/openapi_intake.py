"""OpenAPI path items for what the intake process serves itself: events, declared sources, health.

Written by hand, because those routes are bare ASGI in another process (decision 0002); `tests/unit/api/test_openapi.py` holds
the words used here against the ones the intake answers with.
"""

from __future__ import annotations

from typing import Any

from tallystick.api.openapi_protocols import protocol_paths

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}
_EVENT_REF = {"$ref": "#/components/schemas/EventInput"}
_ENCODING = {
    "name": "Content-Encoding",
    "in": "header",
    "description": "How the body is compressed.",
    "schema": {"type": "string", "enum": ["identity", "gzip", "zstd"]},
}


def _problem(description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": description, "content": {"application/problem+json": {"schema": _PROBLEM}}}
    return answer | ({"headers": headers} if headers else {})


_REFUSALS = {
    "400": _problem("Not JSON, or not strictly so; the place is named."),
    "401": _problem("No key, or one that is unknown, expired or revoked."),
    "403": _problem("The key lacks `ingest`, or the event names another tenant than the key's."),
    "404": _problem("No such source."),
    "408": _problem("The body did not arrive in time."),
    "409": _problem("An id was used before with other content (`id_conflict`)."),
    "413": _problem("Larger than a limit of `/v1/limits`, as sent or decompressed."),
    "415": _problem("A media type, charset or encoding that is not read here."),
    "421": _problem("A Host header that this server does not serve."),
    "431": _problem("The request line and headers are too large."),
    "422": _problem("Some record is no event; every bad line is named and nothing was stored."),
    "429": _problem("Too much from this sender.", _RETRY),
    "503": _problem("Overloaded, `disk_full` or not accepting; nothing was stored.", _RETRY),
}

_ACCEPTED = {
    "description": "On disk. Duplicates contribute their first position.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Accepted"}}},
}


def intake_paths() -> dict[str, Any]:
    """Path items of the intake process, by path."""
    return {"/v1/events": {"post": _post_events()}, "/v1/in/{source}": {"post": _post_source()}, **protocol_paths(), **_health()}


def _wishes(on_invalid: str) -> list[dict[str, Any]]:
    """Parameters that both doors take; ``on_invalid`` is the default there."""
    return [
        {
            "name": "on_invalid",
            "in": "query",
            "description": "`reject`: any bad event refuses the request. `quarantine`: bad ones are kept aside and named.",
            "schema": {"type": "string", "enum": ["reject", "quarantine"], "default": on_invalid},
        },
        {
            "name": "receipt",
            "in": "query",
            "description": "Add a signed note to each receipt.",
            "schema": {"type": "string", "enum": ["plain", "signed"], "default": "plain"},
        },
        {
            "name": "results",
            "in": "query",
            "description": "Add one entry per event.",
            "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
        },
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Events without id get the ids `<key>:<n>`.",
            "schema": {"type": "string", "maxLength": 96, "pattern": "^[A-Za-z0-9._:-]+$"},
        },
    ]


def _post_events() -> dict[str, Any]:
    array = {"type": "array", "items": _EVENT_REF}
    cloud = {"type": "object", "required": ["specversion", "id", "source", "type"], "additionalProperties": True}
    return {
        "operationId": "postEvents",
        "tags": ["intake"],
        "summary": "Accept events",
        "description": (
            "One object, an array, or one object a line. CloudEvents 1.0 in structured, batched and binary mode. The answer comes after "
            "fdatasync; one request is one commit, all of it or nothing."
        ),
        "security": [{"key": []}],
        "parameters": [
            *_wishes("reject"),
            _ENCODING,
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"oneOf": [_EVENT_REF, array]}},
                "application/x-ndjson": {"schema": {"type": "string"}},
                "application/cloudevents+json": {"schema": cloud},
                "application/cloudevents-batch+json": {"schema": {"type": "array", "items": cloud}},
            },
        },
        "responses": {"200": _ACCEPTED, **{status: answer for status, answer in _REFUSALS.items() if status != "404"}},
    }


def _post_source() -> dict[str, Any]:
    return {
        "operationId": "postSource",
        "tags": ["intake"],
        "summary": "Records for a declared source",
        "description": "Each goes through the source's mapping: a record a line, or one JSON document. Bad records go to quarantine.",
        "security": [{"key": []}],
        "parameters": [
            {
                "name": "source",
                "in": "path",
                "required": True,
                "description": "The name in `[sources.<name>]`.",
                "schema": {"type": "string"},
            },
            *_wishes("quarantine"),
            _ENCODING,
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {}}, "application/x-ndjson": {"schema": {"type": "string"}}},
        },
        "responses": {"200": _ACCEPTED, **_REFUSALS},
    }


def _health() -> dict[str, Any]:
    def path(operation: str, summary: str, bad: dict[str, Any]) -> dict[str, Any]:
        ok = {"description": "Yes.", "content": {"application/json": {"schema": {"type": "object"}}}}
        return {
            "get": {
                "operationId": operation,
                "tags": ["operation"],
                "summary": summary,
                "security": [],
                "responses": {"200": ok, **bad},
            }
        }

    not_ready = {
        "503": {"description": "Intake would refuse; the reasons.", "content": {"application/json": {"schema": {"type": "object"}}}}
    }
    return {
        "/healthz/live": path("getLive", "The process answers", {}),
        "/healthz/ready": path("getReady", "Intake would accept", not_ready),
    }


def intake_schemas() -> dict[str, Any]:
    """Component schemas that the path items name."""
    return {
        "Problem": {
            "type": "object",
            "description": "RFC 9457 problem details.",
            "required": ["title", "status", "code", "detail", "request_id"],
            "properties": {
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "code": {"type": "string"},
                "detail": {"type": "string"},
                "request_id": {"type": "string"},
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"line": {"type": "integer"}, "pointer": {"type": "string"}, "message": {"type": "string"}},
                    },
                },
            },
        },
        "EventInput": _event_input(),
        "Accepted": _accepted(),
    }


def _event_input() -> dict[str, Any]:
    actor = {
        "type": "object",
        "required": ["type", "id"],
        "properties": {
            "type": {"enum": ["user", "service", "agent", "system", "anonymous"]},
            "id": {"type": "string"},
            "name": {"type": "string"},
            "email": {"type": "string"},
            "roles": {"type": "array", "items": {"type": "string"}},
            "credential": {"type": "string"},
        },
        "additionalProperties": False,
    }
    strings = ("ip", "user_agent", "session_id", "request_id", "trace_id", "span_id", "location")
    return {
        "type": "object",
        "description": "An event as a sender writes it; the server adds the rest.",
        "required": ["action", "actor"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
            "tenant": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
            "occurred_at": {"type": "string", "format": "date-time"},
            "action": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}$"},
            "category": {
                "enum": ["authentication", "authorization", "account", "data", "configuration", "system", "network", "other"]
            },
            "severity": {"type": "integer", "minimum": 0, "maximum": 6},
            "actor": {"oneOf": [actor, {"type": "string"}]},
            "on_behalf_of": {"type": "array", "items": {"type": "object"}},
            "targets": {"type": "array", "items": {"type": "object", "required": ["type", "id"]}},
            "outcome": {"enum": ["success", "failure", "denied", "unknown"]},
            "reason": {"type": "string", "maxLength": 2048},
            "context": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in strings},
                "additionalProperties": False,
            },
            "changes": {"type": "array", "items": {"type": "object", "required": ["path", "op"]}},
            "metadata": {"type": "object"},
            "producer": {"type": "object", "required": ["id", "epoch", "seq"]},
        },
    }


def _accepted() -> dict[str, Any]:
    count = {"type": "integer", "minimum": 0}
    return {
        "type": "object",
        "required": ["accepted", "duplicates", "filtered", "quarantined", "receipts"],
        "properties": {
            "accepted": count,
            "duplicates": count,
            "filtered": count,
            "quarantined": {"type": "array", "items": {"type": "object"}},
            "ids": {"type": "array", "items": {"type": "string"}},
            "receipts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "log": {"type": "string"},
                        "ranges": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
                        "batch_root": {"type": "string"},
                        "received_at": {"type": "string"},
                        "durability": {"const": "fsynced"},
                    },
                },
            },
            "results": {"type": "array", "items": {"type": "object"}},
        },
    }
