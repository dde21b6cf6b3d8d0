"""`ecs`: a document of the Elastic Common Schema (elastic.co/docs/reference/ecs).

What the schema has no field for is under ``tallystick``, the whole list of targets and the outcome in our words too. A data stream that takes
anybody's ``metadata`` should map ``tallystick.metadata`` and ``tallystick.changes`` as ``flattened`` (docs/encodings.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tallystick.destinations.encodings.facts import Facts, facts_of
from tallystick.destinations.encodings.kinds import first_of
from tallystick.destinations.encodings.rest import rest_of
from tallystick.destinations.encodings.values import is_address
from tallystick.event import Context, Event, Target
from tallystick.event.codec import decode_line

ECS_VERSION = "8.17.0"
_encode = msgspec.json.Encoder().encode

_CATEGORIES = {
    "authentication": "authentication",
    "authorization": "iam",
    "account": "iam",
    "configuration": "configuration",
    "network": "network",
    "system": "host",
}
_TYPES = {
    **dict.fromkeys(("login", "start"), "start"),
    **dict.fromkeys(("logout", "stop"), "end"),
    **dict.fromkeys(("create", "add", "upload", "copy", "import", "enroll"), "creation"),
    **dict.fromkeys(("delete", "remove", "uninstall", "unenroll", "clear"), "deletion"),
    **dict.fromkeys(("read", "list", "search", "download", "export"), "access"),
    **dict.fromkeys(("update", "enable", "disable", "grant", "revoke", "lock", "unlock", "reset", "share", "unshare"), "change"),
    **dict.fromkeys(("move", "rename", "restore"), "change"),
    "install": "installation",
}
_OUTCOMES = {"success": "success", "failure": "failure", "denied": "failure"}


class EcsEvents:
    """One document for each event."""

    name = "ecs"
    version = f"1+ecs-{ECS_VERSION}"
    content_type = "application/x-ndjson"
    record_type = "application/json"
    suffix = ".jsonl"

    def encode_events(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        return [_encode(build(facts_of(decode_line(line)))) for line in lines]


def make(options: object) -> EcsEvents:
    """No option matters here."""
    return EcsEvents()


def build(facts: Facts) -> dict[str, Any]:
    """The document."""
    event = facts.event
    document: dict[str, Any] = {
        "@timestamp": event.occurred_at or "",
        "ecs": {"version": ECS_VERSION},
        "message": _sentence(facts),
        "event": _categorized(facts),
        "organization": {"id": event.tenant or ""},
        "user": _actor(event),
    }
    related: dict[str, list[str]] = {"user": [event.actor.id]}
    left = _place_context(event.context or None, document, related)
    _place_targets(facts.targets, document, related)
    document["related"] = related
    document["tallystick"] = {
        "actor": event.actor,
        "targets": facts.targets,
        "outcome": event.outcome or "unknown",
        **({"context": left} if left else {}),
        **rest_of(
            event, ("category", "on_behalf_of", "changes", "metadata", "enrichment", "producer", "source", "ingest", "sealed")
        ),
    }
    return document


def _sentence(facts: Facts) -> str:
    event = facts.event
    first = facts.targets[0] if facts.targets else None
    words = [event.actor.name or event.actor.id, event.action, *([first.name or first.id] if first else [])]
    return " ".join(words)


def _categorized(facts: Facts) -> dict[str, Any]:
    event = facts.event
    found: dict[str, Any] = {"id": event.id or "", "kind": "event", "action": event.action}
    category = _CATEGORIES.get(event.category or "") or _data_category(facts)
    if category:
        found["category"] = [category]
    types = [_TYPES.get(facts.words.operation, "info")]
    if event.outcome == "denied":
        types.append("denied")
    found["type"] = types
    found["outcome"] = _OUTCOMES.get(event.outcome or "", "unknown")
    found["created"] = event.received_at or ""
    found["module"] = "tallystick"
    found["provider"] = facts.product.name
    if event.severity is not msgspec.UNSET:
        found["severity"] = event.severity
    if event.reason:
        found["reason"] = event.reason
    if event.raw:
        found["original"] = event.raw
    return found


def _data_category(facts: Facts) -> str:
    if facts.event.category != "data":
        return ""
    if facts.product.nature == "database":
        return "database"
    return "file" if first_of(facts.targets, "file") else ""


def _actor(event: Event) -> dict[str, Any]:
    actor = event.actor
    user: dict[str, Any] = {"id": actor.id, "name": actor.name or actor.id}
    if actor.email:
        user["email"] = actor.email
    if actor.roles:
        user["roles"] = actor.roles
    return user


def _place_context(context: Context | None, document: dict[str, Any], related: dict[str, list[str]]) -> dict[str, str]:
    """Put the context where the schema has it; what is left."""
    if context is None:
        return {}
    left = {name: value for name in context.__struct_fields__ if (value := getattr(context, name))}
    if address := left.pop("ip", ""):
        document["source"] = source = {"address": address}
        if is_address(address):
            source["ip"] = address
            related["ip"] = [address]
    if place := left.pop("location", ""):
        document.setdefault("source", {})["geo"] = {"name": place}
    if agent := left.pop("user_agent", ""):
        document["user_agent"] = {"original": agent}
    if request := left.pop("request_id", ""):
        document["http"] = {"request": {"id": request}}
    for member, field in (("trace_id", "trace"), ("span_id", "span")):
        if value := left.pop(member, ""):
            document[field] = {"id": value}
    return left


def _place_targets(targets: list[Target], document: dict[str, Any], related: dict[str, list[str]]) -> None:
    if user := first_of(targets, "user"):
        document["user"]["target"] = {"id": user.id, "name": user.name or user.id}
        if user.id not in related["user"]:
            related["user"].append(user.id)
    if group := first_of(targets, "group"):
        document["group"] = {"id": group.id, "name": group.name or group.id}
    if file := first_of(targets, "file"):
        document["file"] = {"path": file.id, "name": file.name or file.id.rpartition("/")[2] or file.id}
    if url := first_of(targets, "url"):
        document["url"] = {"original": url.id}
    if service := first_of(targets, "service"):
        document["service"] = {"target": {"id": service.id, "name": service.name or service.id}}
    if host := first_of(targets, "host"):
        document["destination"] = {"address": host.id, **({"ip": host.id} if is_address(host.id) else {})}
        related["hosts"] = [host.name or host.id]
