"""Canonical lines as hard as senders can make them: one list by hand, and a strategy that makes more."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tallystick.event import Source
from tallystick.event.codec import EventReader, Limits, encode_lines
from tallystick.event.stamp import Stamp

RECEIVED = "2026-03-04T10:00:00.123456Z"
_LIMITS = Limits(event_bytes=1 << 20, depth=32, events=10_000)
_CONTROLS = "".join(map(chr, [*range(1, 32), 127, 0x80, 0x85, 0xA0, 0x2028, 0x2029, 0xFEFF, 0xFFFD, 0xFFFF]))
_MARKS = "\\ \\n \\\\ | \\| = \\= ] [ \" ' ^ \t x5E %0a <34>1 {} ${x} src=1.2.3.4 a=b\r\n\r\n"

HARD: dict[str, dict[str, Any]] = {
    "least": {"action": "a", "actor": "u"},
    "login": {
        "id": "login-1",
        "occurred_at": "2026-03-04T05:06:07.891234Z",
        "action": "user.login",
        "category": "authentication",
        "severity": 3,
        "actor": {
            "type": "user",
            "id": "u_1",
            "name": "Ann",
            "email": "ann@example.com",
            "roles": ["admin"],
            "credential": "key-1",
        },
        "on_behalf_of": [{"type": "agent", "id": "bot", "mode": "delegation"}],
        "targets": [{"type": "application", "id": "crm", "name": "CRM", "owner": "sales"}, {"type": "host", "id": "192.0.2.9"}],
        "outcome": "denied",
        "reason": "wrong password",
        "context": {
            "ip": "2001:db8::7",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
            "session_id": "s-1",
            "request_id": "r-1",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "span_id": "00f067aa0ba902b7",
            "location": "DE",
        },
        "changes": [{"path": "/plan", "op": "replace", "before": "pro", "after": {"n": 1.10}}],
        "metadata": {"b": 1, "a": [1e3, None, True], "big": 12345678901234567890123},
        "producer": {"id": "app", "epoch": 1, "seq": 2},
    },
    "controls": {
        "action": "user.update",
        "actor": {"type": "service", "id": _CONTROLS, "name": _CONTROLS, "email": _CONTROLS, "credential": _CONTROLS},
        "targets": [{"type": _CONTROLS, "id": _CONTROLS, "name": _CONTROLS, "owner": _CONTROLS}],
        "reason": _CONTROLS,
        "context": {
            "ip": _CONTROLS,
            "user_agent": _CONTROLS,
            "session_id": _CONTROLS,
            "request_id": _CONTROLS,
            "location": _CONTROLS,
        },
        "metadata": {_CONTROLS: _CONTROLS},
    },
    "marks": {
        "action": "file.share",
        "category": "data",
        "actor": {"type": "agent", "id": _MARKS, "name": _MARKS, "roles": [_MARKS, ""]},
        "targets": [{"type": "file", "id": _MARKS, "name": _MARKS}],
        "reason": _MARKS,
        "context": {"ip": _MARKS, "user_agent": _MARKS, "session_id": _MARKS, "trace_id": _MARKS},
        "metadata": {_MARKS: [_MARKS, {_MARKS: _MARKS}]},
    },
    "letters": {
        "action": "document.read",
        "actor": {"type": "user", "id": "Zoë 🧑‍💻 \u202eright-to-left", "name": "名前", "email": "zoë@exämple.com"},
        "targets": [{"type": "документ", "id": "🗎" * 50}],
        "reason": "naïve ﷽ \u0301",
        "metadata": {"ключ": "значение", "": ""},
    },
    "long": {
        "action": "x" * 128,
        "actor": {"type": "user", "id": "i" * 5_000, "name": "n" * 5_000},
        "targets": [{"type": f"t{number}", "id": "t" * 200} for number in range(40)],
        "reason": "r" * 2_048,
        "context": {"user_agent": "ü" * 5_000, "ip": "9" * 500},
        "metadata": {"deep": json.loads("[" * 25 + "]" * 25), "text": "m" * 20_000},
    },
    "empty": {
        "action": "e",
        "actor": {"type": "anonymous", "id": " ", "name": "", "email": "", "roles": [], "credential": ""},
        "on_behalf_of": [],
        "targets": [],
        "reason": "",
        "context": {"ip": "", "user_agent": "", "session_id": "", "request_id": "", "trace_id": "", "span_id": "", "location": ""},
        "changes": [],
        "metadata": {},
    },
}


def line_of(event: dict[str, Any], source: str = "app") -> bytes:
    """The canonical line that the intake makes of an event."""
    batch = EventReader(_LIMITS).read(json.dumps(event).encode(), "object")
    if batch.errors:
        raise ValueError(batch.errors)
    (line,) = encode_lines(batch.events, Stamp("acme", RECEIVED, Source(name=source, type="http")), _LIMITS)
    return line


def hard_lines() -> list[bytes]:
    """The list, as canonical lines."""
    return [line_of(event) for event in HARD.values()]


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.sampled_from(
    [_MARKS, "", "192.0.2.1", "a@b.cd"]
)
_NAMED = _TEXT.map(lambda text: text or "x")
_WORDS = st.sampled_from(
    [
        "user",
        "login",
        "logout",
        "create",
        "delete",
        "Update",
        "read",
        "list",
        "grant",
        "revoke",
        "add",
        "remove",
        "member",
        "group",
        "team",
        "password",
        "reset",
        "mfa",
        "enable",
        "role",
        "session",
        "http.get",
        "file",
        "share",
        "iam.Create",
        "x",
        "windows.1102",
    ]
)
_TARGET = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                "user",
                "group",
                "role",
                "application",
                "host",
                "file",
                "database",
                "table",
                "bucket",
                "url",
                "other",
                "AWS::IAM::User",
            ]
        )
        | _NAMED,
        "id": _NAMED,
    },
    optional={"name": _TEXT, "owner": _TEXT},
)
_ACTOR = {"type": st.sampled_from(["user", "service", "agent", "system", "anonymous"]), "id": _NAMED}
_ACTOR_MORE = {"name": _TEXT, "email": _TEXT, "credential": _TEXT, "roles": st.lists(_TEXT, max_size=2)}
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_CATEGORIES = ["authentication", "authorization", "account", "data", "configuration", "system", "network", "other"]

EVENTS = st.fixed_dictionaries(
    {"action": st.lists(_WORDS, min_size=1, max_size=3).map(".".join), "actor": st.fixed_dictionaries(_ACTOR, optional=_ACTOR_MORE)},
    optional={
        "occurred_at": st.datetimes().map(lambda time: time.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")),
        "category": st.sampled_from(_CATEGORIES),
        "severity": st.integers(0, 6),
        "targets": st.lists(_TARGET, max_size=4),
        "outcome": st.sampled_from(["success", "failure", "denied", "unknown"]),
        "reason": _TEXT,
        "context": st.fixed_dictionaries(
            {}, optional=dict.fromkeys(["ip", "user_agent", "session_id", "request_id", "trace_id", "span_id", "location"], _TEXT)
        ),
        "metadata": st.dictionaries(_TEXT, _JSON, max_size=3),
    },
)  # fmt: skip
LINES = EVENTS.map(line_of)
