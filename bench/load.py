"""The load: bodies of events of about 540 bytes, the same for every system, and wrk as the generator."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*all")
file:close()
{headers}
"""


def event(number: int) -> dict[str, object]:
    """One event, about 540 bytes as JSON."""
    return {
        "action": ("role.grant", "user.login", "invoice.view", "export.create", "key.rotate")[number % 5],
        "actor": {
            "type": "user",
            "id": f"u_{number % 977:05d}",
            "name": f"Person Number {number % 977}",
            "email": f"person.{number % 977}@example.com",
        },
        "occurred_at": f"2026-03-04T10:{number // 60 % 60:02d}:{number % 60:02d}.{number % 1_000_000:06d}Z",
        "targets": [{"type": "account", "id": f"acc_{number % 89:05d}", "name": "Acme Holding"}, {"type": "role", "id": "admin"}],
        "outcome": ("success", "success", "success", "denied")[number % 4],
        "context": {
            "ip": f"203.0.{number % 113}.{number % 251}",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
            "session_id": f"s_{number % 5003:08d}",
            "request_id": f"r_{number:012d}",
        },
        "metadata": {
            "ticket": f"T-{number % 1000}",
            "amount": number,
            "note": "quarterly review of access rights",
            "tags": ["a", "b"],
        },
    }


def ndjson(count: int, first: int = 0) -> bytes:
    """``count`` events, one a line."""
    return b"\n".join(json.dumps(event(number), separators=(",", ":")).encode() for number in range(first, first + count))


@dataclass(frozen=True, slots=True)
class Rate:
    """What wrk saw. Latencies in milliseconds."""

    requests_s: float
    p50_ms: float
    p99_ms: float
    errors: int


def run_wrk(url: str, body: bytes, headers: dict[str, str], directory: Path, *, connections: int, seconds: float) -> Rate:
    """Post ``body`` over and over for ``seconds``."""
    data = directory / "wrk-body"
    data.write_bytes(body)
    lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
    script = directory / "wrk.lua"
    script.write_text(_SCRIPT.format(body=data, headers=lines))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency", "-s", str(script), url]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    socket_errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    return Rate(
        float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),  # type: ignore[index]
        _latency(out, "50%"),
        _latency(out, "99%"),
        (int(errors[1]) if errors else 0) + (sum(map(int, socket_errors.groups())) if socket_errors else 0),
    )


def _latency(out: str, percentile: str) -> float:
    match = re.search(rf"\s{percentile}\s+([\d.]+)(us|ms|s)", out)
    assert match is not None, out
    return float(match[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[match[2]]
