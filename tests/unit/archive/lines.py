"""Canonical lines for the archive's tests."""

from __future__ import annotations

from typing import Any

import msgspec

HANDLE = "a" * 16


def make_event(number: int, **changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = {
        "v": 1,
        "id": f"0199a000-0000-7000-8000-{number:012x}",
        "tenant": "acme",
        "occurred_at": f"2026-09-14T10:{number // 60 % 60:02d}:{number % 60:02d}.000001Z",
        "received_at": "2026-09-14T10:00:00.000000Z",
        "action": "role.grant",
        "category": "authorization",
        "severity": 3,
        "actor": {"type": "user", "id": f"u_{number % 100}"},
        "targets": [{"type": "role", "id": "admin"}, {"type": "user", "id": f"u_{number}"}],
        "outcome": "success",
        "context": {"ip": "10.1.2.3", "session_id": f"s_{number}", "request_id": f"r_{number}"},
        "source": {"name": "http", "type": "http"},
        "ingest": {"class": "standard", "config": "c0", "salt": "AAAAAAAAAAA"},
    }
    event.update(changes)
    return {name: value for name, value in event.items() if value is not None}


def make_line(number: int, **changes: Any) -> bytes:
    """One canonical line; ``changes`` replace members, None leaves one out."""
    return msgspec.json.encode(make_event(number, **changes))


def make_lines(count: int, start: int = 0, **changes: Any) -> list[bytes]:
    return [make_line(number, **changes) for number in range(start, start + count)]
