"""Throughput and latency against the size of a batch and the number of connections."""

from __future__ import annotations

from bench.load import ndjson, run_wrk
from bench.run import Run
from bench.server import HEADERS, running
from bench.table import Row

SIZES = (1, 10, 100, 1_000)
CONNECTIONS = (1, 8, 64)


def run(run: Run) -> None:
    """Each pair on one server, as fast as the connections go; a pause between them lets the followers catch up."""
    points = []
    with running(run.scratch("sweep")) as server:
        for size in SIZES:
            body = ndjson(size)
            for connections in CONNECTIONS:
                rate = run_wrk(
                    f"{server.url}/v1/events",
                    body,
                    HEADERS,
                    run.directory,
                    connections=connections,
                    seconds=max(3.0, run.seconds / 2),
                )
                server.drain(0, timeout_s=600)
                points.append(
                    {
                        "batch": size,
                        "connections": connections,
                        "events_s": rate.accepted_s * size,
                        "p50_ms": rate.p50_ms,
                        "p99_ms": rate.p99_ms,
                        "errors": rate.errors,
                    }
                )
                run.say(f"  {size} × {connections}: {rate.accepted_s * size:,.0f} events/s, p99 {rate.p99_ms:.1f} ms")
    run.series["sweep"] = points
    for size in SIZES:
        found = [point for point in points if point["batch"] == size]
        run.add(
            Row(
                f"sweep-{size}",
                f"latency, batches of {size:,}",
                ", ".join(f"{p['connections']} conn. p50 {p['p50_ms']:.1f} p99 {p['p99_ms']:.1f} ms" for p in found),
                None,
                ", ".join(f"{p['events_s']:,.0f}/s" for p in found),
                conditions="as fast as the connections go, so latency is mostly waiting for the others' work",
            )
        )
