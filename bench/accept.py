"""Rows about acceptance: batches, two workers, CPU per event, single events; peers and the bare server beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench import peers
from bench.load import Rate, ndjson, run_wrk
from bench.run import Run
from bench.server import HEADERS, Server, accepted, cpu_s, free_port, intake_pids, running, wait_for_port
from bench.table import Row, least, most

BATCH = 1_000
POLICY = "fdatasync before each answer; strict checks, dedupe, hash, AES-256-GCM on"
_SINGLE_DELAY_MS = 9  # 64 connections that each wait this long after an answer send about half of 12,000 a second


def run(run: Run) -> None:
    """Acceptance over HTTP, one tenant; sealer, archiver and load generator on the same cores."""
    body = ndjson(BATCH)
    size = len(body) // BATCH
    run.say("peers …")
    found = peers.measure(run, body, BATCH)
    run.versions |= {peer.name: peer.version for peer in found if peer.version}
    bare = _bare(run, body)
    run.say("batches …")
    one, cpu_us = _batches(run, "accept", "", body)
    _add_batches(run, found, bare[0], one, size)
    _add_workers(run, found, one, body)
    _add_ids(run, body, size)
    machine = run.machine
    run.add(
        Row(
            "cpu",
            "CPU per event, accept",
            f"{cpu_us:.2f} µs",
            cpu_us,
            f"SHA-256 {1e6 / machine.sha256_events_s:.2f} µs, untyped JSON decode {1e6 / machine.decode_events_s:.2f} µs",
            most(8, "≤ 8 µs"),
            most(5, "≤ 5 µs"),
            "user and system time of the intake process, batches of 1,000",
        )
    )
    _add_singles(run, bare[1], size)


def _batches(run: Run, name: str, configuration: str, body: bytes, *, connections: int = 8) -> tuple[Rate, float]:
    """The rate, and CPU microseconds of all intake processes for each event."""
    with running(run.scratch(name), configuration) as server:
        url = f"{server.url}/v1/events"
        run_wrk(url, body, HEADERS, run.directory, connections=connections, seconds=2)
        pids = intake_pids(server)
        before, used = accepted(server), sum(map(cpu_s, pids))
        rate = run_wrk(url, body, HEADERS, run.directory, connections=connections, seconds=run.seconds)
        count, spent = accepted(server) - before, sum(map(cpu_s, pids)) - used
    return rate, spent / max(count, 1) * 1e6


def _add_batches(run: Run, found: list[peers.Peer], bare: float, rate: Rate, size: int) -> None:
    events_s = rate.accepted_s * BATCH
    reference = next((peer.events_s for peer in found if peer.name == "Fluent Bit"), None)
    must = least(1.3 * reference, "1.3 × Fluent Bit") if reference else least(140_000)
    aim = least(2.0 * reference, "2 × Fluent Bit") if reference else None
    beside = [f"{rate.requests_s / bare:.2f} × an HTTP server that only reads the body ({bare * BATCH:,.0f}/s)"]
    for peer in found:
        if peer.events_s:
            beside.append(f"{events_s / peer.events_s:.2f} × {peer.name} {peer.version} ({peer.events_s:,.0f}/s)")
        else:
            beside.append(f"{peer.name}: {peer.told}")
    run.add(
        Row(
            "batches-1",
            "batches of 1,000, one intake process",
            f"{events_s:,.0f} events/s, p99 {rate.p99_ms:.1f} ms{_errors(rate)}",
            events_s,
            "; ".join(beside),
            must,
            aim,
            f"{size} B an event, 8 connections, one tenant; {POLICY}",
            {"peers": {peer.name: {"version": peer.version, "events_s": peer.events_s, "told": peer.told} for peer in found}},
        )
    )


def _add_workers(run: Run, found: list[peers.Peer], one: Rate, body: bytes) -> None:
    """Two workers, or why there are none."""
    reference = next((peer.events_s for peer in found if peer.name == "Fluent Bit"), None)
    must = least(2.2 * reference, "2.2 × Fluent Bit") if reference else least(240_000)
    aim = least(3.5 * reference, "3.5 × Fluent Bit") if reference else None
    what, conditions = "batches of 1,000, two workers", "[server] workers = 2; 16 connections; the rest as above"
    reason = workers_refused(run.scratch("workers-probe"))
    if reason:
        run.add(Row("batches-2", what, f"not supported: {reason}", None, "", must, aim, conditions))
        return
    rate, cpu_us = _batches(run, "workers", "workers = 2\n", body, connections=16)
    events_s = rate.accepted_s * BATCH
    beside = f"{events_s / (one.accepted_s * BATCH):.2f} × one process; {cpu_us:.2f} µs of CPU an event"
    measured = f"{events_s:,.0f} events/s, p99 {rate.p99_ms:.1f} ms{_errors(rate)}"
    run.add(Row("batches-2", what, measured, events_s, beside, must, aim, conditions))


def workers_refused(directory: Path) -> str:
    """Why the server does not start with two workers; empty when it does."""
    server = Server(directory, "workers = 2\n")
    done = subprocess.run(
        [sys.executable, "-c", "from tallystick.cli.main import run; run()", "check", str(server.config)],
        capture_output=True, text=True, check=False, cwd=directory,
    )  # fmt: skip
    server.close()
    return "" if done.returncode == 0 else " ".join((done.stdout + done.stderr).partition("(")[0].split())


def _add_ids(run: Run, body: bytes, size: int) -> None:
    """The same events with ids of the sender: what dedupe by id costs. Each request has ids that were never sent."""
    with running(run.scratch("ids")) as server:
        rate = run_wrk(
            f"{server.url}/v1/events",
            _with_id_place(body),
            HEADERS,
            run.directory,
            connections=8,
            seconds=run.seconds,
            functions=_FRESH_IDS,
        )
        count = accepted(server)
    events_s = rate.accepted_s * BATCH
    run.add(
        Row(
            "batches-ids",
            "the same, each event with an id of its sender",
            f"{events_s:,.0f} events/s, p99 {rate.p99_ms:.1f} ms{_errors(rate)}",
            events_s,
            f"{count:,} of {rate.accepted * BATCH:,} stored: no id came twice",
            conditions=f"{size + 27} B an event; the generator makes the ids and shares the cores",
        )
    )


_PLACE = b"@@@@@@@@@@"
_FRESH_IDS = """
local base = os.time() % 100000 * 1000
local pieces, places, turn = {}, {}, 0
function init()
  local at = 1
  while true do
    local from, to = wrk.body:find("@@@@@@@@@@", at, true)
    if not from then break end
    table.insert(pieces, wrk.body:sub(at, from - 1))
    table.insert(places, #pieces)
    at = to + 1
  end
  table.insert(pieces, wrk.body:sub(at))
end
function request()
  turn = turn + 1
  local out = {}
  local prefix = string.format("%06d", turn)
  for number = 1, #pieces - 1 do
    out[2 * number - 1] = pieces[number]
    out[2 * number] = prefix .. string.format("%04d", number)
  end
  out[2 * #pieces - 1] = pieces[#pieces]
  return wrk.format(nil, nil, nil, table.concat(out))
end
"""


def _with_id_place(body: bytes) -> bytes:
    return b"\n".join(b'{"id":"sender-a-' + _PLACE + b'",' + line[1:] for line in body.split(b"\n"))


def _add_singles(run: Run, bare: float, size: int) -> None:
    run.say("single events …")
    with running(run.scratch("single")) as server:
        url = f"{server.url}/v1/events"
        single = run_wrk(url, ndjson(1), HEADERS, run.directory, connections=64, seconds=run.seconds)
        half = run_wrk(url, ndjson(1), HEADERS, run.directory, connections=64, seconds=run.seconds, delay_ms=_SINGLE_DELAY_MS)
    sync = run.machine.sync_p99_ms
    run.add(
        Row(
            "singles",
            "single-event requests, 64 connections",
            f"{single.accepted_s:,.0f}/s, p50 {single.p50_ms:.1f} ms, p99 {single.p99_ms:.1f} ms{_errors(single)}",
            single.accepted_s,
            f"{single.requests_s / bare:.2f} × an HTTP server that only reads the body ({bare:,.0f}/s)",
            least(12_000),
            least(18_000),
            f"{size} B an event; {POLICY}",
        ),
        Row(
            "singles-half",
            "p99 of single events at about half that rate",
            f"{half.p99_ms:.1f} ms, p50 {half.p50_ms:.1f} ms, at {half.accepted_s:,.0f}/s{_errors(half)}",
            half.p99_ms,
            f"the disk's own fdatasync p99 {sync:.2f} ms",
            most(5 + sync, f"≤ {5 + sync:.1f} ms"),
            conditions=f"64 connections that wait {_SINGLE_DELAY_MS} ms on average between requests",
        ),
    )


def _bare(run: Run, body: bytes) -> tuple[float, float]:
    """Requests per second of uvicorn with an application that only reads the body: batches, then single events."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.bare:app", "--port", str(port), "--log-level", "error", "--loop", "uvloop"]
    process = subprocess.Popen([*command, "--no-access-log"], cwd=Path(__file__).resolve().parents[1])
    try:
        wait_for_port(port)
        url = f"http://127.0.0.1:{port}/"
        batches = run_wrk(url, body, HEADERS, run.directory, connections=8, seconds=run.seconds).requests_s
        single = run_wrk(url, ndjson(1), HEADERS, run.directory, connections=64, seconds=run.seconds).requests_s
    finally:
        process.terminate()
        process.wait()
    return batches, single


def _errors(rate: Rate) -> str:
    return f", {rate.errors} errors {rate.statuses or ''}" if rate.errors else ""
