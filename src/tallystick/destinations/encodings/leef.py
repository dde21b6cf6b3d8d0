"""`leef`: IBM Log Event Extended Format, version 2.0, attributes parted by tabs.

    LEEF:2.0|Tallystick|Tallystick|1|user.login|x09|devTime=1772600767891<tab>cat=authentication<tab>usrName=Ann Lee<tab>…

The format has no escapes: a control character in a value, the tab among them, becomes a blank, and the value as it was is in ``tallystickRest``
(`flat`), whose JSON has none of them as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from tallystick.destinations.encodings.cef import SEVERITIES
from tallystick.destinations.encodings.flat import REST_KEY, carry, rest_json
from tallystick.destinations.encodings.kinds import first_of
from tallystick.destinations.encodings.times import millis_of
from tallystick.destinations.encodings.values import is_address
from tallystick.event import Event
from tallystick.event.codec import decode_line

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class LeefEvents:
    """One line for each event."""

    name = "leef"
    version = "1"
    content_type = "text/plain; charset=utf-8"
    record_type = "text/plain; charset=utf-8"
    suffix = ".leef"

    def encode_events(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        return [encode_event(decode_line(line)).encode() for line in lines]


def make(options: object) -> LeefEvents:
    """No option matters here."""
    return LeefEvents()


def encode_event(event: Event) -> str:
    """One record, without a line's end."""
    carried, exact = carry(pairs_of(event), _clean)
    carried.append((REST_KEY, rest_json(event, exact)))
    attributes = "\t".join(f"{key}={value}" for key, value in carried)
    return f"LEEF:2.0|Tallystick|Tallystick|1|{event.action}|x09|{attributes}"


def _clean(value: str) -> str:
    return _CONTROLS.sub(" ", value)


def pairs_of(event: Event) -> Iterator[tuple[str, str]]:
    """The attributes, in order; some without a value. The predefined ones first."""
    actor, context, targets = event.actor, event.context, event.targets or []
    yield "devTime", str(millis_of(event.occurred_at or ""))
    yield "cat", event.category or ""
    if event.severity is not msgspec.UNSET and event.severity:
        yield "sev", SEVERITIES[event.severity]
    yield "usrName", actor.name or actor.id
    if context:
        yield ("src" if context.ip and is_address(context.ip) else "srcHost"), context.ip or ""
    if host := first_of(targets, "host"):
        yield ("dst" if is_address(host.id) else "dstHost"), host.id
    if url := first_of(targets, "url"):
        yield "url", url.id
    if user := first_of(targets, "user"):
        yield "accountName", user.name or user.id
    if targets:
        yield "resource", targets[0].name or targets[0].id
    yield "reason", event.reason or ""
    yield "tenant", event.tenant or ""
    yield "eventUid", event.id or ""
    yield "outcome", event.outcome or "unknown"
    yield "userId", actor.id
    yield "userType", actor.type
    if context:
        yield "userAgent", context.user_agent or ""
        yield "sessionId", context.session_id or ""
        yield "requestId", context.request_id or ""
        yield "traceId", context.trace_id or ""
    if targets:
        yield "resourceType", targets[0].type
        yield "resourceId", targets[0].id
