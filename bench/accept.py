"""Rows about acceptance: batches, CPU per event, single events; with Fluent Bit beside it when a binary is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench import fluent_bit
from bench.load import ndjson, run_wrk
from bench.machine import Machine
from bench.server import HEADERS, accepted, cpu_s, free_port, processes, running, wait_for_port
from bench.table import Row

BATCH = 1_000
_POLICY = "fdatasync before each answer, strict checks, dedupe, hash, AES-256-GCM on"


def rows(directory: Path, machine: Machine, seconds: float) -> list[Row]:
    """Acceptance over HTTP, one intake process, one tenant."""
    body = ndjson(BATCH)
    bare = _bare(directory, body, seconds)
    peer = fluent_bit.rate(directory, body, seconds)
    with running(directory / "accept") as server:
        url = f"{server.url}/v1/events"
        run_wrk(url, body, HEADERS, directory, connections=8, seconds=2)
        pid = processes(server)["intake"]
        before, used = accepted(server), cpu_s(pid)
        batches = run_wrk(url, body, HEADERS, directory, connections=8, seconds=seconds)
        count, spent = accepted(server) - before, cpu_s(pid) - used
    with running(directory / "single") as server:
        url = f"{server.url}/v1/events"
        single = run_wrk(url, ndjson(1), HEADERS, directory, connections=64, seconds=seconds)
    size = len(body) // BATCH
    beside = f"{batches.requests_s / bare[0]:.2f} × a bare HTTP server that reads the body ({bare[0] * BATCH:,.0f}/s)"
    if peer:
        beside += f"; {batches.requests_s / peer:.2f} × Fluent Bit ({peer * BATCH:,.0f}/s)"
    errors = f", {batches.errors + single.errors} errors" if batches.errors + single.errors else ""
    return [
        Row(
            "batches of 1,000, one intake process",
            f"{batches.requests_s * BATCH:,.0f} events/s, p99 {batches.p99_ms:.1f} ms{errors}",
            beside,
            "1.3 × Fluent Bit; 110,000/s",
            f"{size} B an event, 8 connections, 1 tenant a batch, {_POLICY}; sealer, archiver and load generator on the same 2 cores",
        ),
        Row(
            "CPU per event, accept",
            f"{spent / max(count, 1) * 1e6:.2f} µs",
            f"SHA-256 {1e6 / machine.sha256_events_s:.2f} µs, untyped JSON decode {1e6 / machine.decode_events_s:.2f} µs",
            "≤ 8 µs",
            "user and system time of the intake process",
        ),
        Row(
            "single-event requests, 64 connections",
            f"{single.requests_s:,.0f}/s, p99 {single.p99_ms:.1f} ms",
            f"{single.requests_s / bare[1]:.2f} × a bare HTTP server ({bare[1]:,.0f}/s); fdatasync p99 {machine.sync_p99_ms:.2f} ms",
            "≥ 12,000/s",
            f"{size} B an event, {_POLICY}",
        ),
    ]


def _bare(directory: Path, body: bytes, seconds: float) -> tuple[float, float]:
    """Requests per second of uvicorn with an application that only reads the body: batches, then single events."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.bare:app", "--port", str(port), "--log-level", "error", "--loop", "uvloop"]
    process = subprocess.Popen([*command, "--no-access-log"], cwd=Path(__file__).resolve().parents[1])
    try:
        wait_for_port(port)
        url = f"http://127.0.0.1:{port}/"
        batches = run_wrk(url, body, HEADERS, directory, connections=8, seconds=seconds).requests_s
        single = run_wrk(url, ndjson(1), HEADERS, directory, connections=64, seconds=seconds).requests_s
    finally:
        process.terminate()
        process.wait()
    return batches, single
