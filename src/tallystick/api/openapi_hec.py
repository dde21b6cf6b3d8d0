"""OpenAPI path items of Splunk's HTTP Event Collector (`sources.hec`, docs/sources/hec.md)."""

from __future__ import annotations

from typing import Any

_PATH = "/services/collector"
_ANSWER = {
    "type": "object",
    "required": ["text", "code"],
    "properties": {
        "text": {"type": "string"},
        "code": {"type": "integer", "description": "The collector's own code; 0 is success."},
        "invalid-event-number": {"type": "integer", "description": "The event at fault, from 0."},
        "ackId": {"type": "integer", "description": "To ask `/services/collector/ack` for, when the request named a channel."},
        "quarantined": {"type": "array", "items": {"type": "object"}, "description": "Events that are kept in the quarantine."},
    },
}
_OBJECT = {
    "type": "object",
    "required": ["event"],
    "properties": {
        "event": {"description": "Text or any JSON."},
        "time": {"type": "number", "description": "Seconds since 1970."},
        "host": {"type": "string"},
        "source": {"type": "string"},
        "sourcetype": {"type": "string"},
        "index": {"type": "string", "description": "Kept; it never chooses a tenant."},
        "fields": {"type": "object"},
    },
}
_REFUSALS = {
    "400": "Codes 5, 6 and 10 to 16: no data, a wrong form, a channel that is missing or wrong. Nothing was stored.",
    "401": "Codes 2 and 3: no token, or no such Authorization.",
    "403": "Codes 1 and 4: a token that may not send, or is not known.",
    "408": "The body did not arrive in time.",
    "409": "With `on_invalid=reject`: an id was used before with other content.",
    "413": "Larger than a limit of `/v1/limits`, or too many events.",
    "415": "An encoding that is not read here.",
    "421": "A Host header that this server does not serve.",
    "422": "With `on_invalid=reject`: some event cannot be stored.",
    "429": "Too much from this sender.",
    "431": "The request line and headers are too large.",
    "503": "Code 9: overloaded, `disk_full` or not accepting; nothing was stored.",
}
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}
_CHANNEL = [
    {"name": "X-Splunk-Request-Channel", "in": "header", "description": "A channel's GUID.", "schema": {"type": "string"}},
    {"name": "channel", "in": "query", "description": "The same in the query string.", "schema": {"type": "string"}},
]
_DEFAULTS = [
    {"name": name, "in": "query", "description": f"`{name}` of events that have none.", "schema": {"type": "string"}}
    for name in ("host", "source", "sourcetype", "index", "time")
]


def hec_paths() -> dict[str, Any]:
    """Path items by path."""
    text = {"text/plain": {"schema": {"type": "string"}}}
    objects = {"application/json": {"schema": _OBJECT}}
    acks = {
        "application/json": {"schema": {"type": "object", "properties": {"acks": {"type": "array", "items": {"type": "integer"}}}}}
    }
    health = {"description": "Code 17: events are taken.", "content": _content(_ANSWER)}
    return {
        f"{_PATH}/event": {"post": _post("postCollectorEvent", "Splunk HEC: events", objects, [*_CHANNEL, *_DEFAULTS])},
        f"{_PATH}/raw": {"post": _post("postCollectorRaw", "Splunk HEC: lines of text", text, [*_CHANNEL, *_DEFAULTS])},
        f"{_PATH}/ack": {"post": _post("postCollectorAck", "Splunk HEC: which acknowledgements are durable", acks, _CHANNEL)},
        f"{_PATH}/health": {
            "get": {
                "operationId": "getCollectorHealth",
                "tags": ["intake"],
                "summary": "Splunk HEC: whether events are taken",
                "security": [],
                "responses": {"200": health, **_refusals("421", "431", "503")},
            }
        },
    }


def _post(name: str, summary: str, content: dict[str, Any], parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": ["intake"],
        "summary": summary,
        "description": "`Authorization: Splunk <key>`. The answer comes after fdatasync. Also below `/v1/in/NAME`; docs/sources/hec.md.",
        "security": [{"key": []}],
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "On disk.", "content": _content({"type": "object"})}, **_refusals(*_REFUSALS)},
    }


def _refusals(*statuses: str) -> dict[str, Any]:
    made: dict[str, Any] = {status: {"description": _REFUSALS[status], "content": _content(_ANSWER)} for status in statuses}
    for status in ("429", "503"):
        if status in made:
            made[status]["headers"] = _RETRY
    return made


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "application/json": {"schema": schema},
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
    }
