"""Rows about the whole way: accepted → sealed → archived → delivered, its bytes, its latency, and what it costs to check and search."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from bench.load import ndjson, run_wrk
from bench.machine import Machine
from bench.server import HEADERS, Server, accepted, free_port, memory_mib, processes, running, wait_for
from bench.table import Row

_DISK = '[archive]\nmax_age = "10s"\n[destinations.disk]\ntype = "file"\npath = "out.jsonl"\n'


def rows(directory: Path, machine: Machine, seconds: float) -> list[Row]:
    """One server, filled at full speed; then drained, measured, searched, verified and started again."""
    found: list[Row] = []
    with running(directory / "whole", _DISK) as server:
        found.append(_sustained(server, directory, seconds))
        wait_for(lambda: _is_archived(server), "everything to be archived", 600, 0.5)
        found.append(_stored(server))
        found += _searches(server)
        server.stop()
        found.append(_verify(server, machine))
        found.append(_restart(server))
    with running(directory / "rest") as server:
        sizes = {role: memory_mib(pid) for role, pid in processes(server).items()}
        detail = ", ".join(f"{role} {size:.0f}" for role, size in sizes.items())
        found.append(
            Row("memory at rest, all processes", f"{sum(sizes.values()):.0f} MiB", detail, "≤ 450 MiB", "proportional set size")
        )
    found.append(_webhook(directory, seconds))
    return found


def _sustained(server: Server, directory: Path, seconds: float) -> Row:
    before, begin = accepted(server), time.monotonic()
    rate = run_wrk(f"{server.url}/v1/events", ndjson(1000), HEADERS, directory, connections=8, seconds=max(seconds, 20))
    count = accepted(server) - before
    wait_for(lambda: _is_delivered(server), "the file destination to catch up", 600, 0.2)
    total = time.monotonic() - begin
    return Row(
        "whole way, sustained",
        f"{count / total:,.0f} events/s",
        f"intake alone took {rate.requests_s * 1000:,.0f}/s meanwhile; the rest drained in {total - max(seconds, 20):.1f} s",
        "80,000/s, lag flat",
        f"{count:,} events, one tenant, until sealed and in one file destination, synced",
    )


def _is_delivered(server: Server) -> bool:
    page = server.status()
    row = page["tenants"]["default"]
    return bool(row["sealed"] == row["accepted"] and page["destinations"]["disk"]["pending"] == 0)


def _is_archived(server: Server) -> bool:
    row = server.status()["tenants"]["default"]
    return bool(row["archived"] >= row["accepted"] - 100)


def _stored(server: Server) -> Row:
    parts = {name: _size(server.data / name) for name in ("archive", "trees")}
    parts["catalog"] = sum(path.stat().st_size for path in server.data.glob("catalog.sqlite*"))
    count = accepted(server)
    detail = ", ".join(f"{name} {size / count:.0f}" for name, size in parts.items())
    return Row(
        "stored bytes per event",
        f"{sum(parts.values()) / count:.0f} B",
        detail,
        "≤ 190 B",
        "archive + trees + catalog, after merging as far as it went",
    )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _searches(server: Server) -> list[Row]:
    count = accepted(server)
    cases = (
        ("search by actor, warm", "actor.id:u_00017", "300 ms at 10 million"),
        ("free text", '"nothing like this"', "15 s at 10 million, cold"),
    )
    found = []
    for name, query, must in cases:
        times = []
        for _ in range(4):
            start = time.perf_counter()
            answer = server.http.get("/v1/events", params={"query": query, "limit": "100"}, timeout=120)
            assert answer.status_code == 200, answer.text
            times.append(time.perf_counter() - start)
        found.append(
            Row(
                name,
                f"{min(times) * 1000:,.0f} ms",
                f"first {times[0] * 1000:,.0f} ms",
                must,
                f"{count:,} events, over HTTP, 100 newest, audit event of the search included",
            )
        )
    return found


def _verify(server: Server, machine: Machine) -> Row:
    start = time.perf_counter()
    report = json.loads(server.verify(check=None).stdout)
    took = time.perf_counter() - start
    return Row(
        "verify, full",
        f"{report['events'] / took:,.0f} events/s a core",
        f"SHA-256 alone {machine.sha256_events_s:,.0f}/s",
        "250,000/s a core",
        f"{report['events']:,} events, start of the command included, status {report['status']}",
    )


def _restart(server: Server) -> Row:
    size = _size(server.data / "journal")
    start = time.perf_counter()
    server.start(wait=False)

    def is_ready() -> bool:
        try:
            return server.http.get("/healthz/ready").status_code == 200
        except httpx.TransportError:
            return False

    wait_for(is_ready, "ready", 120, 0.01)
    took = time.perf_counter() - start
    return Row(
        "restart to ready",
        f"{took:.2f} s",
        f"{size / 2**30:.2f} GiB of journal files",
        "≤ 5 s with 20 GB",
        "after a clean stop; only the active segment is read, whatever the journal's size",
    )


def _webhook(directory: Path, seconds: float) -> Row:
    seen: dict[int, float] = {}

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            now = time.perf_counter()
            for event in body["events"]:
                number = event.get("metadata", {}).get("number")
                if number is not None:
                    seen.setdefault(number, now)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Silent."""

    httpd = ThreadingHTTPServer(("127.0.0.1", free_port()), Receiver)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{httpd.server_address[1]}/"
    hook = f'[destinations.hook]\ntype = "webhook"\nurl = "{url}"\nsecret = "a secret of sixteen bytes"\nallow_private = true\n'
    sent: dict[int, float] = {}
    with running(directory / "hook", hook) as server:
        for number in range(int(max(seconds, 10) * 10)):
            server.send_ok(f'{{"action":"a.b","actor":"u","metadata":{{"number":{number}}}}}'.encode())
            sent[number] = time.perf_counter()
            time.sleep(0.1)
        wait_for(lambda: len(seen) == len(sent), "all events at the webhook")
    httpd.shutdown()
    delays = sorted((seen[number] - sent[number]) * 1000 for number in sent)
    p99 = delays[int(len(delays) * 0.99)]
    return Row(
        "accepted → at a webhook",
        f"p50 {statistics.median(delays):.0f} ms, p99 {p99:.0f} ms",
        "seal interval 250 ms",
        "p99 ≤ 1 s",
        f"{len(delays)} events, 10 a second",
    )


def versions() -> str:
    """Kernel and interpreter, for the table's title."""
    kernel = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    return f"Linux {kernel}, Python {sys.version.split()[0]}"
