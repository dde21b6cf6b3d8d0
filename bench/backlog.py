"""A backlog: memory while it grows, time to be ready after a kill at several sizes of the journal, and the way back to level."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import httpx

from bench.load import Wrk, dense_ndjson, ndjson
from bench.run import Run
from bench.server import HEADERS, Server, accepted, memory_mib, processes, running, size_of, wait_for
from bench.table import Row, most

_CONFIGURATION = '[archive]\nmax_age = "10s"\n[destinations.disk]\ntype = "file"\npath = "out.jsonl"\n'
_POINTS = 5
_ROTATE_BYTES = 2**30


def run(run: Run) -> None:
    """Destination paused, sealer and archiver stopped by a signal; `run.gb` of journal; then everything goes on beside a light intake."""
    directory = run.scratch("backlog")
    bodies = [dense_ndjson(1_000, seed) for seed in range(8)]
    points: list[dict[str, float]] = []
    with running(directory / "server", _CONFIGURATION) as server:
        server.http.post("/v1/destinations/disk/pause")
        _hold(server)
        base = size_of(server.data / "journal")
        for step in range(1, _POINTS + 1):
            rate = _fill(server, run, directory, bodies, base + run.gb * 1e9 * step / _POINTS)
            sizes = _memory(server)
            size = size_of(server.data / "journal") / 1e9
            ready = _kill_and_start(server)
            _hold(server)
            points.append({"gb": size, "events": accepted(server), "fill_events_s": rate, "ready_s": ready, **sizes})
            run.say(f"  {size:.2f} GB of journal: {sizes['total_mib']:,.0f} MiB, ready {ready:.2f} s after a kill")
        drain = _drain(server, run, directory)
    run.series["backlog"] = points
    run.series["drain"] = drain["series"]
    _add_rows(run, points, drain)


def _add_rows(run: Run, points: list[dict[str, float]], drain: dict[str, object]) -> None:
    first, last = points[0], points[-1]
    growth = last["total_mib"] / first["total_mib"]
    peak, took, events, intake = (float(str(drain[name])) for name in ("peak_mib", "took_s", "events", "intake_s"))
    size = last["gb"]
    run.add(
        Row(
            "backlog-memory",
            f"memory with a backlog of {size:.1f} GB, all processes",
            f"{last['total_mib']:,.0f} MiB, {growth:.2f} × that at {first['gb']:.1f} GB",
            growth,
            f"{last['events']:,.0f} events; while it drains at most {peak:,.0f} MiB",
            most(1.15, "flat"),
            conditions="proportional set size; destination paused, sealer and archiver stopped by a signal",
        ),
        Row(
            "backlog-drain",
            f"a backlog of {size:.1f} GB drains while intake goes on",
            f"{took:.0f} s: {events / took:,.0f} events/s sealed, archived and in a synced file",
            events / took,
            f"intake meanwhile took {intake:,.0f} events/s",
            conditions="from the end of the pause until nothing is pending and everything is sealed",
        ),
        Row(
            "restart-killed",
            f"ready after kill -9, {size:.1f} GB of journal",
            f"{last['ready_s']:.2f} s",
            last["ready_s"],
            ", ".join(f"{point['gb']:.1f} GB: {point['ready_s']:.2f} s" for point in points[:-1]),
            most(5, "≤ 5 s"),
            most(2, "≤ 2 s"),
            "start of all processes included; what dedupe had in memory comes again from the journal",
        ),
    )


def _hold(server: Server) -> None:
    """Stop the followers that would let go of the journal; they are killed or resumed later."""
    wait_for(lambda: {"sealer", "archiver"} <= set(processes(server)), "the followers")
    for role in ("sealer", "archiver"):
        os.kill(processes(server)[role], signal.SIGSTOP)


def _memory(server: Server) -> dict[str, float]:
    sizes = {f"{role}_mib": memory_mib(pid) for role, pid in processes(server).items()}
    return {**sizes, "total_mib": sum(sizes.values())}


def _fill(server: Server, run: Run, directory: Path, bodies: list[bytes], until: float) -> float:
    """Send until the journal has so many bytes; the rate in events per second."""
    begin, before = time.monotonic(), accepted(server)
    while size_of(server.data / "journal") < until:
        rate = Wrk(f"{server.url}/v1/events", bodies, HEADERS, directory, connections=8, seconds=5).result()
        assert not rate.errors, rate
    return (accepted(server) - before) / max(time.monotonic() - begin, 0.001)


def _kill_and_start(server: Server) -> float:
    server.kill()
    return time_to_ready(server)


def time_to_ready(server: Server) -> float:
    """Start, and the seconds until the server says that it is ready."""
    start = time.perf_counter()
    server.start(wait=False)

    def is_ready() -> bool:
        try:
            return server.http.get("/healthz/ready").status_code == 200
        except httpx.TransportError:
            return False

    wait_for(is_ready, "ready", 300, 0.01)
    took = time.perf_counter() - start
    server.wait_ready()
    return took


def _drain(server: Server, run: Run, directory: Path) -> dict[str, object]:
    """Let everything go on. The destination's file is rotated as `logrotate` would, and what was rotated is thrown away."""
    stop = threading.Event()
    rotating = threading.Thread(target=_rotate, args=(server.directory / "out.jsonl", stop))
    rotating.start()
    events, begin = accepted(server), time.monotonic()
    for role in ("sealer", "archiver"):
        os.kill(processes(server)[role], signal.SIGCONT)
    server.http.post("/v1/destinations/disk/resume")
    series: list[dict[str, float]] = []
    try:
        while True:
            light = Wrk(f"{server.url}/v1/events", ndjson(10), HEADERS, directory, connections=8, seconds=5, delay_ms=40)
            light.result()
            page = server.status()
            row, pending = page["tenants"]["default"], page["destinations"]["disk"]["pending"]
            at = time.monotonic() - begin
            series.append({"s": at, "sealed": row["sealed"], "archived": row["archived"], "pending": pending, **_memory(server)})
            if row["sealed"] >= events and row["archived"] >= events and pending < 5_000:
                break
            assert at < 7_200, page
    finally:
        stop.set()
        rotating.join()
    took = time.monotonic() - begin
    peak = max(point["total_mib"] for point in series)
    return {"series": series, "took_s": took, "events": events, "peak_mib": peak, "intake_s": (accepted(server) - events) / took}


def _rotate(path: Path, stop: threading.Event) -> None:
    old = path.with_name(path.name + ".1")
    while not stop.wait(1):
        if path.exists() and path.stat().st_size > _ROTATE_BYTES:
            path.replace(old)
