"""What others do to an acknowledgement: one tenant's flood, searches, sealing and archiving and merging, and overload.

A light load of known rate runs all the time: eight connections that send batches of ten, about 200 requests a second. Its p99 is told
while nothing else goes on, and beside each disturbance.
"""

from __future__ import annotations

import threading
import time

import httpx

from bench.load import Rate, Wrk, ndjson, run_wrk
from bench.run import Run
from bench.server import HEADERS, Server, accepted, new_key, running, total_memory_mib, wait_for
from bench.table import Row, most

_LIGHT = ndjson(10)
_LIGHT_DELAY_MS = 40
_FLOOR_MS = 2.0
_RUDE_EVENTS, _RUDE_CONNECTIONS = 2_000, 300


def fairness(run: Run) -> None:
    """A tenant floods with batches of 1,000 on sixteen connections; another one's p99 with and without."""
    with running(run.scratch("fairness")) as server:
        quiet, loud = new_key(server, "quiet"), new_key(server, "loud")
        alone = _light(server, run, quiet)
        flood = Wrk(f"{server.url}/v1/events", ndjson(1_000), loud, run.directory, connections=16, seconds=run.seconds + 2)
        time.sleep(1)
        beside = _light(server, run, quiet)
        flooded = flood.result()
    ratio = beside.p99_ms / max(alone.p99_ms, _FLOOR_MS)
    run.add(
        Row(
            "fairness",
            "p99 of the others while one tenant floods",
            f"{beside.p99_ms:.1f} ms, {ratio:.1f} × alone{_refused(beside)}",
            ratio,
            f"alone p50 {alone.p50_ms:.1f}, p99 {alone.p99_ms:.1f} ms; the flood: {flooded.accepted_s * 1000:,.0f} events/s accepted",
            most(2, "≤ 2 × alone"),
            conditions="about 200 requests/s of ten events; the flood 16 connections of 1,000; generators on the same cores",
            details={"alone_p99_ms": alone.p99_ms, "beside_p99_ms": beside.p99_ms},
        )
    )


def followers(run: Run) -> None:
    """Acknowledgements while the followers work off a backlog, and while searches run, beside an idle server's."""
    with running(run.scratch("followers"), '[archive]\nmax_age = "1s"\nmerge_below = "32MiB"\n') as server:
        tenant = new_key(server, "light")
        idle = _light(server, run, tenant)
        before = accepted(server)
        run_wrk(f"{server.url}/v1/events", ndjson(1_000), HEADERS, run.directory, connections=8, seconds=max(5.0, run.seconds))
        count = accepted(server) - before
        behind = count - server.status()["tenants"]["default"]["archived"]
        catching_up = _light(server, run, tenant)
        left = count - server.status()["tenants"]["default"]["archived"]
        wait_for(lambda: _is_archived(server), "everything to be archived", 1200, 0.5)
        merging = _light(server, run, tenant)
        with _Searches(server) as searches:
            searching = _light(server, run, tenant)
    for key, what, rate, beside in (
        (
            "ack-sealing",
            "p99 of acknowledgements while sealing and archiving",
            catching_up,
            f"{behind:,} events behind, {max(left, 0):,} after",
        ),
        ("ack-merging", "p99 of acknowledgements while chunks are merged", merging, "begun when the last event was archived"),
        (
            "ack-searching",
            "p99 of acknowledgements while searching",
            searching,
            f"{searches.done} free-text searches over {count:,} events",
        ),
    ):
        ratio = rate.p99_ms / max(idle.p99_ms, _FLOOR_MS)
        run.add(
            Row(
                key,
                what,
                f"{rate.p99_ms:.1f} ms, {ratio:.1f} × idle{_refused(rate)}",
                ratio,
                f"idle p50 {idle.p50_ms:.1f}, p99 {idle.p99_ms:.1f} ms; {beside}",
                most(2, "≤ 2 × idle"),
                conditions="about 200 requests/s of ten events",
                details={"idle_p99_ms": idle.p99_ms, "p99_ms": rate.p99_ms},
            )
        )


def overload(run: Run) -> None:
    """Far more connections and bytes than it can take: what is answered, what it costs, and how soon it is over."""
    with running(run.scratch("overload")) as server:
        polite, rude = new_key(server, "polite"), new_key(server, "rude")
        rest = total_memory_mib(server)
        alone = _light(server, run, polite)
        flood = Wrk(
            f"{server.url}/v1/events",
            ndjson(10_000),
            rude,
            run.directory,
            connections=200,
            seconds=run.overload_s,
            counts_statuses=True,
        )
        samples: list[float] = []
        stop = threading.Event()
        watch = threading.Thread(target=_watch, args=(server, samples, stop))
        watch.start()
        time.sleep(1)
        beside = _light(server, run, polite, run.overload_s - 3)
        flooded = flood.result()
        ended = time.monotonic()
        wait_for(lambda: _is_quick(server, polite), "a quick answer after the flood", 60, 0.1)
        recovered = time.monotonic() - ended
        stop.set()
        watch.join()
        stored = accepted(server, "rude")
        server.drain(stored, "rude", timeout_s=900)
        server.stop()
        verdict = server.verify(check=None).returncode
    ratio = beside.p99_ms / max(alone.p99_ms, _FLOOR_MS)
    offered, took = flooded.requests_s * _RUDE_EVENTS, flooded.accepted_s * _RUDE_EVENTS
    half = len(samples) // 2
    growth = max(samples[half:]) / max(samples[:half])
    run.series["overload"] = {"memory_mib": samples, "rest_mib": rest}
    run.add(
        Row(
            "overload",
            f"overload for {run.overload_s:.0f} s: p99 of a polite sender",
            f"{beside.p99_ms:.1f} ms, {ratio:.1f} × alone{_refused(beside)}",
            ratio,
            f"alone p99 {alone.p99_ms:.1f} ms; offered {offered:,.0f} events/s, {offered / max(took, 1):.1f} × the {took:,.0f}/s accepted; answers {flooded.statuses or 'all 200'}",
            most(2, "≤ 2 × alone"),
            conditions=f"{_RUDE_CONNECTIONS} connections without manners, each with {_RUDE_EVENTS:,} events (1 MB) at a time",
        ),
        Row(
            "overload-memory",
            "memory during the overload, all processes",
            f"at most {max(samples):,.0f} MiB; in its second half {growth:.2f} × the first",
            growth,
            f"at rest {rest:,.0f} MiB; bodies in flight may hold 256 MiB, the queue 64 MiB",
            most(1.2, "bounded"),
            conditions="proportional set size, sampled each second",
        ),
        Row(
            "overload-recovery",
            "from the end of the overload to a quick answer",
            f"{recovered:.1f} s",
            recovered,
            f"{stored:,} events stored, {flooded.accepted * _RUDE_EVENTS:,} acknowledged to who still listened; verify afterwards: status {verdict}",
            most(10, "≤ 10 s, nothing lost")
            if not verdict and stored >= flooded.accepted * _RUDE_EVENTS
            else most(-1, "nothing lost"),
        ),
    )


def _light(server: Server, run: Run, headers: dict[str, str], seconds: float = 0) -> Rate:
    return run_wrk(
        f"{server.url}/v1/events",
        _LIGHT,
        headers,
        run.directory,
        connections=8,
        seconds=max(3.0, seconds or run.seconds),
        delay_ms=_LIGHT_DELAY_MS,
    )


def _refused(rate: Rate) -> str:
    return f"; {rate.errors} of its requests refused" if rate.errors else ""


def _is_archived(server: Server) -> bool:
    row = server.status()["tenants"]["default"]
    return bool(row["archived"] >= row["accepted"])


def _is_quick(server: Server, headers: dict[str, str]) -> bool:
    start = time.monotonic()
    try:
        answer = httpx.post(f"{server.url}/v1/events", content=_LIGHT, headers=headers, timeout=30)
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and time.monotonic() - start < 0.1


def _watch(server: Server, samples: list[float], stop: threading.Event) -> None:
    while not stop.wait(1):
        samples.append(total_memory_mib(server))


class _Searches:
    """Two clients that search for words that are nowhere, again and again: each reads every event."""

    def __init__(self, server: Server) -> None:
        self.done = 0
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def __enter__(self) -> _Searches:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._server.url, headers=self._server.http.headers, timeout=120) as client:
            while not self._stop.is_set():
                answer = client.get("/v1/events", params={"query": '"nothing like this"', "limit": "100"})
                assert answer.status_code == 200, answer.text
                self.done += 1
