"""Rows about other protocols' doors: records a second through one intake process, durable, and the CPU of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bench.load import event, run_wrk
from bench.run import Run
from bench.server import HEADERS, accepted, cpu_s, intake_pids, running
from bench.table import Row, least

BATCH = 1_000
_HEC_HEADERS = {"Authorization": HEADERS["Authorization"].replace("Bearer", "Splunk")}


def hec_line(number: int) -> dict[str, Any]:
    """A line of text, as a forwarder sends it."""
    text = f"Mar  4 10:00:00 web-{number % 20} sshd[{number}]: Accepted publickey for u_{number % 977} from 203.0.113.{number % 251} port 51044"
    head = {
        "time": 1772618400 + number / 1000,
        "host": f"web-{number % 20}",
        "source": "/var/log/auth.log",
        "sourcetype": "linux_secure",
    }
    return {**head, "event": text}


def hec_small(number: int) -> dict[str, Any]:
    """A small object."""
    inner = {
        "action": "user.login",
        "user": f"u_{number % 977}",
        "ip": f"203.0.113.{number % 251}",
        "message": "signed in with a security key",
    }
    return {"time": 1772618400 + number / 1000, "host": f"web-{number % 20}", "sourcetype": "_json", "event": inner}


def hec_large(number: int) -> dict[str, Any]:
    """The members of the benchmark's event, flat."""
    made: Any = event(number)
    inner = {"action": made["action"], "user": made["actor"]["id"], "email": made["actor"]["email"], "outcome": made["outcome"]}
    inner |= made["context"] | {"target": made["targets"][0], "note": made["metadata"]["note"], "amount": number, "ticket": "T-1"}
    return {"time": 1772618400 + number / 1000, "host": f"web-{number % 20}", "sourcetype": "_json", "event": inner}


def run(run: Run) -> None:
    """Each row has a server of its own."""
    for name, make in (("lines of text", hec_line), ("small objects", hec_small), ("objects of 13 members", hec_large)):
        _add_hec(run, name, make)


def _add_hec(run: Run, name: str, make: Callable[[int], dict[str, Any]]) -> None:
    body = b"".join(json.dumps(make(number), separators=(",", ":")).encode() for number in range(BATCH))
    with running(run.scratch(f"hec-{make.__name__}")) as server:
        url = f"{server.url}/services/collector/event"
        run_wrk(url, body, _HEC_HEADERS, run.directory, connections=8, seconds=2)
        pids = intake_pids(server)
        before, used = accepted(server), sum(map(cpu_s, pids))
        rate = run_wrk(url, body, _HEC_HEADERS, run.directory, connections=8, seconds=run.seconds)
        count, spent = accepted(server) - before, sum(map(cpu_s, pids)) - used
    cpu_us = spent / max(count, 1) * 1e6
    run.add(
        Row(
            f"hec-{make.__name__}",
            f"Splunk HEC, {name}",
            f"{cpu_us:.1f} µs of CPU a record: {1e6 / cpu_us:,.0f}/s on one core",
            1e6 / cpu_us,
            f"{rate.accepted_s * BATCH:,.0f}/s beside load generator and followers, p99 {rate.p99_ms:.1f} ms",
            least(60_000),
            None,
            f"{len(body) // BATCH} B a record, batches of 1,000, 8 connections, mapping `generic`, all durable; CPU of the intake process",
        )
    )
