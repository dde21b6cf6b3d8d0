"""Rows about the whole way: accepted → sealed → archived → delivered, its bytes, its latency, and what it costs to check and search."""

from __future__ import annotations

import json
import resource
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.backlog import time_to_ready
from bench.load import Wrk, ndjson
from bench.run import Run
from bench.server import HEADERS, Server, accepted, free_port, memory_mib, processes, running, size_of, total_memory_mib, wait_for
from bench.table import Row, least, most

_DISK = '[archive]\nmax_age = "5s"\n[destinations.disk]\ntype = "file"\npath = "out.jsonl"\n'


def run(run: Run) -> None:
    """One server, filled at full speed; then drained, measured, searched, verified and started again."""
    with running(run.scratch("whole"), _DISK) as server:
        _sustained(server, run)
        _settle(server)
        _stored(server, run)
        _searches(server, run)
        server.stop()
        _verify(server, run)
        _restart(server, run)
    with running(run.scratch("rest")) as server:
        time.sleep(5)  # what starts needs is given back
        sizes = {role: memory_mib(pid) for role, pid in processes(server).items()}
        detail = ", ".join(f"{role} {size:.0f}" for role, size in sizes.items())
        total = sum(sizes.values()) * 2**20 / 1e6
        run.add(
            Row(
                "rest",
                "memory at rest, all processes",
                f"{total:.0f} MB",
                total,
                f"MiB: {detail}",
                most(450, "≤ 450 MB"),
                None,
                "proportional set size",
            )
        )
    _webhook(run)


def _sustained(server: Server, run: Run) -> None:
    """For `run.minutes`, or until `run.events` are in, whichever is later; the lag is looked at every few seconds."""
    directory, begin = run.scratch("sustained"), time.monotonic()
    series: list[dict[str, float]] = []
    body = ndjson(1_000)
    while (elapsed := time.monotonic() - begin) < run.minutes * 60 or accepted(server) < run.events:
        Wrk(f"{server.url}/v1/events", body, HEADERS, directory, connections=8, seconds=5).result()
        page = server.status()
        row = page["tenants"]["default"]
        point = {
            "s": time.monotonic() - begin,
            "pending": page["destinations"]["disk"]["pending"],
            "memory_mib": total_memory_mib(server),
        }
        series.append({**point, **{name: row[name] for name in ("accepted", "sealed", "archived")}})
        _rotate(server.directory / "out.jsonl")
        assert elapsed < 7_200, series[-1]
    intake_s = accepted(server) / (time.monotonic() - begin)
    count = accepted(server)
    wait_for(lambda: _is_delivered(server), "the file destination to catch up", 1800, 0.2)
    total = time.monotonic() - begin
    wait_for(lambda: _is_archived(server), "everything to be archived", 1800, 0.2)
    archived = time.monotonic() - begin
    delivery = [point["accepted"] - point["sealed"] + point["pending"] for point in series]
    archive = [point["accepted"] - point["archived"] for point in series]
    growth = max(_growth(delivery), _growth(archive))
    half = len(series) // 2
    run.series["sustained"] = series
    run.add(
        Row(
            "sustained",
            "whole way, sustained",
            f"{count / archived:,.0f} events/s",
            count / archived,
            f"intake alone took {intake_s:,.0f}/s meanwhile; at its end {total - series[-1]['s']:.1f} s until all was delivered, "
            f"{archived - series[-1]['s']:.1f} s until all was archived (no event waits longer than 5 s for company)",
            least(80_000),
            least(120_000),
            f"{count:,} events in {archived / 60:.1f} minutes, one tenant, until sealed, archived and in one file destination, synced",
        ),
        Row(
            "lag",
            "lag while it goes on",
            f"until delivered {statistics.fmean(delivery[half:]):,.0f} events in the second half ({_growth(delivery):+,.0f} against the first), "
            f"until archived {statistics.fmean(archive[half:]):,.0f} ({_growth(archive):+,.0f})",
            growth / max(intake_s, 1),
            f"at most {max(delivery):,.0f} and {max(archive):,.0f}; memory of all processes {series[0]['memory_mib']:,.0f} MiB at first, "
            f"{series[-1]['memory_mib']:,.0f} MiB at the end",
            most(5, "flat"),
            conditions="looked at every 5 s; flat: the mean of the second half lies less than 5 s of intake above that of the first",
        ),
    )


def _growth(lags: list[float]) -> float:
    """How far the mean of the second half lies above that of the first."""
    half = len(lags) // 2
    return statistics.fmean(lags[half:]) - statistics.fmean(lags[:half]) if half else 0.0


def _rotate(path: Path) -> None:
    """As `logrotate`: past 1 GiB the file gets another name, and what has that name is thrown away."""
    if path.exists() and path.stat().st_size > 2**30:
        path.replace(path.with_name(path.name + ".1"))


def _is_delivered(server: Server) -> bool:
    page = server.status()
    row = page["tenants"]["default"]
    return bool(row["sealed"] == row["accepted"] and page["destinations"]["disk"]["pending"] == 0)


def _is_archived(server: Server) -> bool:
    row = server.status()["tenants"]["default"]
    return bool(row["archived"] >= row["accepted"] - 100)


def _settle(server: Server) -> None:
    """Until the archiver has merged what it merges: the number of chunks stands still."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 10:
        found = len(list((server.data / "archive").rglob("*.parquet")))
        if found != last:
            last, since = found, time.monotonic()
        time.sleep(1)


def _stored(server: Server, run: Run) -> None:
    """Bytes of what the catalog counts on: chunks that were merged wait ten minutes for their deletion."""
    from tallystick.archive.catalog import Catalog

    count = accepted(server)
    chunks = Catalog(server.data / "catalog.sqlite").counted()
    parts = {
        "archive": sum((server.data / "archive" / name).stat().st_size for name in chunks),
        "manifests": sum((server.data / "archive" / name).with_suffix(".manifest").stat().st_size for name in chunks),
        "trees": size_of(server.data / "trees"),
        "catalog": sum(path.stat().st_size for path in server.data.glob("catalog.sqlite*")),
    }
    total = sum(parts.values()) / count
    waiting = size_of(server.data / "archive") - parts["archive"] - parts["manifests"]
    run.add(
        Row(
            "stored",
            "stored bytes per event",
            f"{total:.0f} B",
            total,
            ", ".join(f"{name} {size / count:.1f}" for name, size in parts.items())
            + f"; merged chunks that wait for deletion {waiting / count:.0f}",
            most(190, "≤ 190 B"),
            most(150, "≤ 150 B"),
            f"{count:,} events in {len(chunks)} chunks, after merging as far as it went",
        )
    )


def _searches(server: Server, run: Run) -> None:
    count = accepted(server)
    cases = (
        ("search-actor", "search by actor, warm", "actor.id:u_00017", 0.3, 0.1),
        ("search-text", "free text", '"nothing like this"', 15.0, 5.0),
    )
    for key, name, query, must, aim in cases:
        times = []
        for _ in range(4):
            start = time.perf_counter()
            answer = server.http.get("/v1/events", params={"query": query, "limit": "100"}, timeout=300)
            assert answer.status_code == 200, answer.text
            times.append(time.perf_counter() - start)
        value = times[0] if key == "search-text" else min(times)
        run.add(
            Row(
                key,
                name,
                f"{min(times) * 1000:,.0f} ms, the first {times[0] * 1000:,.0f} ms",
                value,
                f"{len(answer.json()['events'])} found",
                most(must, f"≤ {must:g} s at 10 M"),
                most(aim, f"≤ {aim:g} s at 10 M"),
                f"{count:,} events, over HTTP, the 100 newest, the search's own record included; the first one finds the server's caches cold",
            )
        )


def _verify(server: Server, run: Run) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    report = json.loads(server.verify(check=None).stdout)
    took = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    run.add(
        Row(
            "verify",
            "verify, full",
            f"{report['events'] / spent:,.0f} events/s a core",
            report["events"] / spent,
            f"{took:.1f} s by the clock; SHA-256 alone {run.machine.sha256_events_s:,.0f}/s",
            least(250_000),
            least(500_000),
            f"{report['events']:,} events, all of them in the archive and as many as it still has in the journal; CPU of the command, its start included; status {report['status']}",
        )
    )


def _restart(server: Server, run: Run) -> None:
    size = size_of(server.data / "journal")
    took = time_to_ready(server)
    run.add(
        Row(
            "restart",
            "restart to ready, after a clean stop",
            f"{took:.2f} s",
            took,
            f"{size / 1e9:.2f} GB of journal files",
            most(5, "≤ 5 s"),
            most(2, "≤ 2 s"),
            "only the active segment is read, whatever the journal's size; the row about kill -9 has the large journal",
        )
    )


def _webhook(run: Run) -> None:
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
    with running(run.scratch("hook"), hook) as server:
        for number in range(int(max(run.seconds, 10) * 10)):
            server.send_ok(f'{{"action":"a.b","actor":"u","metadata":{{"number":{number}}}}}'.encode())
            sent[number] = time.perf_counter()
            time.sleep(0.1)
        wait_for(lambda: len(seen) == len(sent), "all events at the webhook")
    httpd.shutdown()
    httpd.server_close()
    delays = sorted((seen[number] - sent[number]) * 1000 for number in sent)
    p99 = delays[int(len(delays) * 0.99)]
    run.add(
        Row(
            "webhook",
            "accepted → at a webhook",
            f"p50 {statistics.median(delays):.0f} ms, p99 {p99:.0f} ms",
            p99,
            "seal interval 250 ms",
            most(1000, "p99 ≤ 1 s"),
            most(400, "400 ms"),
            f"{len(delays)} events, 10 a second",
        )
    )
