r"""`rfc5424`: syslog messages of RFC 5424, one a line (frames are the transport's).

    <108>1 2026-03-04T05:06:07.891234Z - tallystick - user.login [tallystick@32473 id="01JQ8" tenant="acme" …] {"v":1,…}

The message is the canonical line, so its leaf hash can be computed from what arrived; JSON has no line feed in it. The structured data are what
rules look for, with ``\``, ``"`` and ``]`` escaped and control characters as blanks. 32473 is the number that IANA keeps for examples: we have
none of our own. MSGID is the action, cut to 32 characters. Facility 13 is the log audit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from tallystick.event import Event
from tallystick.event.codec import decode_line

_FACILITY = 13
_SEVERITIES = (6, 6, 5, 4, 3, 2, 0)
"""Syslog's severities of OCSF's 0 to 6; an event without one is informational."""
_MSGID_MAX = 32
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "]": "\\]"})
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class SyslogEvents:
    """One message for each event."""

    name = "rfc5424"
    version = "1"
    content_type = "text/plain; charset=utf-8"
    record_type = "text/plain; charset=utf-8"
    suffix = ".log"

    def encode_events(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        return [_head(decode_line(line)).encode() + line for line in lines]


def make(options: object) -> SyslogEvents:
    """No option matters here."""
    return SyslogEvents()


def _head(event: Event) -> str:
    severity = _SEVERITIES[0 if event.severity is msgspec.UNSET else event.severity]
    data = "".join(f' {name}="{_escape(value)}"' for name, value in _params(event) if value)
    priority = _FACILITY * 8 + severity
    return f"<{priority}>1 {event.occurred_at or '-'} - tallystick - {event.action[:_MSGID_MAX]} [tallystick@32473{data}] "


def _params(event: Event) -> tuple[tuple[str, str], ...]:
    first = event.targets[0] if event.targets else None
    return (
        ("id", event.id or ""),
        ("tenant", event.tenant or ""),
        ("action", event.action),
        ("category", event.category or ""),
        ("outcome", event.outcome or "unknown"),
        ("actor", event.actor.id),
        ("target_type", first.type if first else ""),
        ("target", first.id if first else ""),
        ("ip", (event.context and event.context.ip) or ""),
        ("received_at", event.received_at or ""),
    )


def _escape(value: str) -> str:
    return _CONTROLS.sub(" ", value).translate(_ESCAPES)
