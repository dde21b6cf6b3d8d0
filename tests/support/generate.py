"""Events made for tests: numbered, distinct, of ordinary size."""

from __future__ import annotations

import json


def numbered(first: int, count: int, prefix: str = "e", **extra: object) -> bytes:
    """``count`` events as NDJSON with ids ``<prefix>-<number>``; the number is in the metadata too."""
    lines = []
    for number in range(first, first + count):
        event = {
            "id": f"{prefix}-{number}",
            "action": ("user.login", "role.grant", "invoice.view", "export.create")[number % 4],
            "actor": {"type": "user", "id": f"u_{number % 997}", "name": f"Person {number % 997}"},
            "targets": [{"type": "account", "id": f"acc_{number % 89}"}],
            "outcome": ("success", "success", "failure", "denied")[number % 4],
            "context": {"ip": f"203.0.113.{number % 251}", "session_id": f"s_{number % 5003}"},
            "metadata": {"number": number, "note": "made for a test"},
            **extra,
        }
        lines.append(json.dumps(event, separators=(",", ":")))
    return "\n".join(lines).encode()
