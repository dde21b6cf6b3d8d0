"""The load: events of about 540 bytes, the same for every system, and wrk as the generator."""

from __future__ import annotations

import base64
import json
import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SCRIPT = """
local bodies = {{}}
for _, path in ipairs({{{paths}}}) do
  local file = assert(io.open(path, "rb"))
  table.insert(bodies, file:read("*all"))
  file:close()
end
wrk.method = "POST"
wrk.body = bodies[1]
{headers}
counts = ""
local seen = {{}}
{functions}
function response(status)
  seen[status] = (seen[status] or 0) + 1
  if status ~= 200 and status ~= 202 then
    local text = ""
    for code, count in pairs(seen) do text = text .. '"' .. code .. '":' .. count .. "," end
    counts = text
  end
end
{no_response}
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function done(summary, latency)
  io.write(string.format('\\n{{"requests":%d,"us":%d,"p50":%d,"p99":%d,"max":%d,"status":%d,"socket":%d,"counts":{{%s}}}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    threads[1]:get("counts"):sub(1, -2)))
end
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


def dense_ndjson(count: int, seed: int) -> bytes:
    """``count`` events of the same size that hardly compress: for backlogs, where the bytes on disk are what counts."""
    source = random.Random(seed)
    lines = []
    for number in range(count):
        note = base64.b85encode(source.randbytes(360)).decode()
        lines.append(
            json.dumps({"action": "invoice.view", "actor": f"u_{number}", "metadata": {"note": note}}, separators=(",", ":"))
        )
    return "\n".join(lines).encode()


@dataclass(frozen=True, slots=True)
class Rate:
    """What wrk saw. Latencies in milliseconds, of all answers; ``statuses`` only where something other than 200 was answered."""

    requests_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    accepted: int
    accepted_s: float
    statuses: dict[str, int] = field(default_factory=dict)


class Wrk:
    """One run of wrk in the background. ``delay_ms`` is how long each connection waits before its next request, 0 for not at all."""

    def __init__(
        self,
        url: str,
        bodies: bytes | Sequence[bytes],
        headers: dict[str, str],
        directory: Path,
        *,
        connections: int,
        seconds: float,
        delay_ms: int = 0,
        functions: str = "",
        counts_statuses: bool = False,
    ) -> None:
        base = directory / f"wrk-{random.randrange(10**12)}"
        paths = []
        for number, body in enumerate([bodies] if isinstance(bodies, bytes) else bodies):
            paths.append(base.with_suffix(f".{number}"))
            paths[-1].write_bytes(body)
        lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
        if len(paths) > 1:
            functions += (
                "\nlocal turn = 0\nfunction request() turn = turn % #bodies + 1; return wrk.format(nil, nil, nil, bodies[turn]) end"
            )
        if delay_ms:
            # Even spacing would let connections march in step; a spread of half the delay keeps their mean and breaks the step.
            functions += f"\nfunction delay() return math.random({delay_ms // 2}, {delay_ms + delay_ms // 2}) end"
        text = _SCRIPT.format(
            paths=",".join(f'"{path}"' for path in paths),
            headers=lines,
            functions=functions,
            no_response="" if counts_statuses else "response = nil",
        )
        script = base.with_suffix(".lua")
        script.write_text(text)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "60s", "-s", str(script), url]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def result(self) -> Rate:
        """Wait for the end."""
        out, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"wrk ended with {self._process.returncode}: {out}")
        found = json.loads(out.strip().split("\n")[-1])
        seconds = found["us"] / 1e6
        return Rate(
            found["requests"] / seconds,
            found["p50"] / 1000,
            found["p99"] / 1000,
            found["max"] / 1000,
            found["status"] + found["socket"],
            found["requests"] - found["status"],
            (found["requests"] - found["status"]) / seconds,
            found["counts"],
        )


def run_wrk(
    url: str,
    body: bytes,
    headers: dict[str, str],
    directory: Path,
    *,
    connections: int,
    seconds: float,
    delay_ms: int = 0,
    functions: str = "",
) -> Rate:
    """Post ``body`` over and over for ``seconds``."""
    return Wrk(
        url, body, headers, directory, connections=connections, seconds=seconds, delay_ms=delay_ms, functions=functions
    ).result()
