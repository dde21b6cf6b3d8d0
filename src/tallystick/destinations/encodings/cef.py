r"""`cef`: ArcSight Common Event Format, version 0.

    CEF:0|Tallystick|Tallystick|1|user.login|user.login|5|start=1772600767891 rt=… externalId=… act=user.login suid=u_17 …

Escaping, by the format's guide: in values ``\``, ``=``, LF (``\n``) and CR (``\r``); an action has nothing to escape in the header.
Other control characters become blanks, and blanks at a value's ends are left out, as most readers do: such a value is in ``tallystickRest`` as it was
(`flat`). Addresses of version 6 go to ``c6a2`` instead of ``src``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

import msgspec

from tallystick.destinations.encodings.flat import REST_KEY, carry, rest_json
from tallystick.destinations.encodings.kinds import first_of
from tallystick.destinations.encodings.times import millis_of
from tallystick.destinations.encodings.values import is_address
from tallystick.event import Context, Event, Target
from tallystick.event.codec import decode_line

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")
SEVERITIES = ("Unknown", "1", "3", "5", "7", "9", "10")
"""Of OCSF's 0 to 6."""


class CefEvents:
    """One line for each event."""

    name = "cef"
    version = "1"
    content_type = "text/plain; charset=utf-8"
    record_type = "text/plain; charset=utf-8"
    suffix = ".cef"

    def encode_events(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        return [encode_event(decode_line(line)).encode() for line in lines]


def make(options: object) -> CefEvents:
    """No option matters here."""
    return CefEvents()


def encode_event(event: Event) -> str:
    """One record, without a line's end."""
    severity = SEVERITIES[0 if event.severity is msgspec.UNSET else event.severity]
    carried, exact = carry(pairs_of(event), _clean)
    carried.append((REST_KEY, rest_json(event, exact)))
    extension = " ".join(f"{key}={_escape(value)}" for key, value in carried)
    return f"CEF:0|Tallystick|Tallystick|1|{event.action}|{event.action}|{severity}|{extension}"


def _clean(value: str) -> str:
    return _CONTROLS.sub(" ", value).strip(" ")


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("=", "\\=").replace("\r", "\\r").replace("\n", "\\n")


def pairs_of(event: Event) -> Iterator[tuple[str, str]]:
    """The extension's keys, in order; some without a value."""
    actor = event.actor
    yield "start", str(millis_of(event.occurred_at or ""))
    yield "rt", str(millis_of(event.received_at or ""))
    yield "externalId", event.id or ""
    yield "act", event.action
    yield "cat", event.category or ""
    yield "outcome", event.outcome or "unknown"
    yield "reason", event.reason or ""
    yield "suid", actor.id
    yield "suser", actor.name or actor.id
    yield from _context(event.context or None)
    yield from _targets(event.targets or [])
    yield from _custom(1, "tenant", event.tenant or "")
    context = event.context
    yield from _custom(2, "session", (context and context.session_id) or "")
    yield from _custom(3, "request", (context and context.request_id) or "")
    yield from _custom(4, "trace", (context and context.trace_id) or "")
    yield from _custom(5, "actorType", actor.type)


def _context(context: Context | None) -> Iterator[tuple[str, str]]:
    if context is None:
        return
    if context.ip:
        if not is_address(context.ip):
            yield "shost", context.ip
        elif ip_address(context.ip).version == 4:
            yield "src", context.ip
        else:
            yield "c6a2", context.ip
            yield "c6a2Label", "Source IPv6 Address"
    yield "requestClientApplication", context.user_agent or ""


def _targets(targets: list[Target]) -> Iterator[tuple[str, str]]:
    if user := first_of(targets, "user"):
        yield "duid", user.id
        yield "duser", user.name or user.id
    if host := first_of(targets, "host"):
        is_v4 = is_address(host.id) and ip_address(host.id).version == 4
        yield ("dst" if is_v4 else "dhost"), host.id
    if file := first_of(targets, "file"):
        yield "filePath", file.id
        yield "fname", file.name or file.id.rpartition("/")[2] or file.id
    if url := first_of(targets, "url"):
        yield "request", url.id
    if service := first_of(targets, "service"):
        yield "destinationServiceName", service.name or service.id
    if targets:
        yield from _custom(6, "target", f"{targets[0].type}:{targets[0].id}")


def _custom(number: int, label: str, value: str) -> Iterator[tuple[str, str]]:
    if value:
        yield f"cs{number}", value
        yield f"cs{number}Label", label
