"""What fills the envelope of an event from a log record: the attributes that OpenTelemetry's conventions name.

| field | from, the first that is there |
|---|---|
| `id` | `audit.record.id`, `log.record.uid` |
| `occurred_at` | the record's time, else the time it was observed |
| `action` | event name, `event.name`, `audit.action`; else `otlp.record` |
| `severity` | severity number, by `SEVERITIES` |
| `actor` | `audit.actor.id`, `enduser.id`, `user.id`, `user.name`; else the resource's `service.name`, `host.name`; else the peer |
| `targets` | `audit.target.id` with `audit.target.type` |
| `outcome` | `audit.outcome`, `event.outcome` |
| `context` | `client.address`, `source.address` and `audit.source.id` when an IP address; `user_agent.original`; `session.id`;
  `http.request.id`, `request.id`; the record's trace and span |

Each function takes out of ``attributes`` what it moved as it is, so that it is not kept twice, and puts into ``metadata``
what would else be lost. A value of another type than text stays where it is.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from msgspec import UNSET, UnsetType

from tallystick.event import Actor, Context, Target
from tallystick.event.fields import ACTION, ID
from tallystick.event.model import ActorType, OutcomeName
from tallystick.protocols.otlp import LogRecord

RECORD_ACTION = "otlp.record"
SEVERITIES = (0, *(1,) * 12, *(3,) * 4, 4, *(5,) * 3, *(6,) * 4)
"""By severity number: trace to info 1 (informational), warn 3 (medium), error 4 (high), error2 to error4 5 (critical), fatal 6."""

_ACTOR_TYPES: dict[str, ActorType] = {name: name for name in ("user", "service", "agent", "system", "anonymous")}
_OUTCOMES: dict[str, OutcomeName] = {name: name for name in ("success", "failure", "denied", "unknown")}
_USERS = ("enduser.id", "user.id", "user.name")
_ADDRESSES = ("client.address", "source.address", "audit.source.id")
_REQUESTS = ("http.request.id", "request.id")
_OWN_IDS = frozenset({"audit.record.id", "log.record.uid"})
_SAID_OUTCOMES = frozenset({"audit.outcome", "event.outcome"})
_FOR_CONTEXT = frozenset({*_ADDRESSES, *_REQUESTS, "user_agent.original", "session.id"})
_IP_MAX = 64
"""Characters: no address is longer, and what is remembered must be short."""
_ZERO_TRACE, _ZERO_SPAN = "0" * 32, "0" * 16

Attributes = dict[str, Any]


def own_id(attributes: Attributes) -> str | UnsetType:
    """The record's own id, when an event can have it."""
    if _OWN_IDS.isdisjoint(attributes):
        return UNSET
    for name in ("audit.record.id", "log.record.uid"):
        given = attributes.get(name)
        if type(given) is str and ID.fullmatch(given):
            del attributes[name]
            return given
    return UNSET


def time(record: LogRecord, metadata: dict[str, Any]) -> str | UnsetType:
    """The time in microseconds; ``metadata`` keeps nanoseconds, and the time of observation."""
    claimed = record.observed_ns
    if claimed:
        metadata["observed_time_unix_nano"] = str(claimed)
    if record.time_ns:
        claimed = record.time_ns
        if claimed % 1_000:
            metadata["time_unix_nano"] = str(claimed)
    if not claimed:
        return UNSET
    second, nanos = divmod(claimed, 1_000_000_000)
    return f"{_second(second)}.{nanos // 1_000:06d}Z"


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def action(record: LogRecord, metadata: dict[str, Any]) -> str:
    """The event's name, in one of the three ways to give one."""
    name = record.event_name
    if name:
        if _is_action(name):
            return name
        metadata["event_name"] = name
    attributes = record.attributes
    for attribute in ("event.name", "audit.action"):
        given = attributes.get(attribute)
        if type(given) is str and _is_action(given):
            del attributes[attribute]
            return given
    return RECORD_ACTION


@lru_cache(maxsize=4096)
def _is_action(name: str) -> bool:
    return ACTION.fullmatch(name) is not None


def severity(record: LogRecord, metadata: dict[str, Any]) -> int | UnsetType:
    """Ours for OpenTelemetry's; both ways to write theirs are kept."""
    number = record.severity
    if record.severity_text:
        metadata["severity_text"] = record.severity_text
    if not number:
        return UNSET
    metadata["severity_number"] = number
    return SEVERITIES[number] if 0 < number < len(SEVERITIES) else UNSET


def emitter(resource: Attributes, peer: str) -> tuple[str, str]:
    """Type and id of the actor of records that name none."""
    for name, kind in (("service.name", "service"), ("host.name", "system")):
        given = resource.get(name)
        if type(given) is str and given:
            return kind, given
    return "system", peer or "unknown"


def actor(attributes: Attributes, emitter: tuple[str, str]) -> Actor:
    """Who acted: as the record says, else who emitted it."""
    given = _take(attributes, "audit.actor.id") if "audit.actor.id" in attributes else None
    if given is not None:
        kind = attributes.get("audit.actor.type")
        known = _ACTOR_TYPES.get(kind) if type(kind) is str else None
        if known is not None:
            del attributes["audit.actor.type"]
        made = Actor(type=known or "user", id=given)
    else:
        for name in _USERS:
            if name in attributes:
                given = _take(attributes, name)
                if given is not None:
                    break
        if given is None:
            return Actor(type=emitter[0], id=emitter[1])  # type: ignore[arg-type]
        made = Actor(type="user", id=given)
    if "user.name" in attributes:
        made.name = _take(attributes, "user.name") or UNSET
    if "user.email" in attributes:
        made.email = _take(attributes, "user.email") or UNSET
    return made


def targets(attributes: Attributes) -> list[Target] | UnsetType:
    """The target of an audit record."""
    if type(attributes.get("audit.target.id")) is not str:
        return UNSET
    given = _take(attributes, "audit.target.id")
    if given is None:
        return UNSET
    return [Target(type=_take(attributes, "audit.target.type") or "resource", id=given)]


def outcome(attributes: Attributes) -> OutcomeName:
    """Success, failure or denied, else unknown; other words stay where they are."""
    if _SAID_OUTCOMES.isdisjoint(attributes):
        return "unknown"
    for name in ("audit.outcome", "event.outcome"):
        given = attributes.get(name)
        if given is not None:
            known = _OUTCOMES.get(given) if type(given) is str else None
            if known is not None:
                del attributes[name]
                return known
    return "unknown"


def context(record: LogRecord) -> Context | UnsetType:
    """Where the request came from, and which trace it belongs to."""
    attributes = record.attributes
    trace_id = record.trace_id if record.trace_id != _ZERO_TRACE else ""
    span_id = record.span_id if record.span_id != _ZERO_SPAN else ""
    found = Context(trace_id=trace_id or UNSET, span_id=span_id or UNSET)
    if not _FOR_CONTEXT.isdisjoint(attributes) and _fill_context(found, attributes):
        return found
    return found if trace_id or span_id else UNSET


def _fill_context(found: Context, attributes: Attributes) -> bool:
    """Move to ``found`` what attributes say; True when that was something."""
    before = len(attributes)
    for name in _ADDRESSES:
        if name in attributes:
            address = attributes[name]
            if type(address) is str and len(address) <= _IP_MAX and _is_ip(address):
                del attributes[name]
                found.ip = address
                break
    if "user_agent.original" in attributes:
        found.user_agent = _take(attributes, "user_agent.original") or UNSET
    if "session.id" in attributes:
        found.session_id = _take(attributes, "session.id") or UNSET
    for name in _REQUESTS:
        if name in attributes:
            found.request_id = _take(attributes, name) or UNSET
            break
    return len(attributes) < before


def _take(attributes: Attributes, name: str) -> str | None:
    """The text of that name, taken out; None, and nothing taken, when it is not there, empty or no text."""
    given = attributes.get(name)
    if type(given) is str and given:
        del attributes[name]
        return given
    return None


@lru_cache(maxsize=4096)
def _is_ip(text: str) -> bool:
    """Whether ``text`` is an IP address. `ipaddress` says the same in ten times the time."""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return True
