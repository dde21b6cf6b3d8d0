"""A thousand tenants that each send one event a second: whether it keeps up, and how many bytes and objects they become."""

from __future__ import annotations

import time

from bench.load import Wrk, ndjson
from bench.run import Run
from bench.server import HEADERS, Server, running, size_of, wait_for
from bench.table import Row, least

TENANTS = 1_000
_ROUND_ROBIN = """
local turn = 0
local rest = nil
function request()
  rest = rest or wrk.body:sub(2)
  turn = turn %% %d + 1
  return wrk.format(nil, nil, nil, string.format('{"tenant":"t-%%04d",', turn) .. rest)
end
"""


def run(run: Run) -> None:
    """Each event names its tenant, one tenant after the other, under one key; default settings, so chunks are written when the archive's own limits say so."""
    directory = run.scratch("tenants")
    minutes = max(run.minutes, 0.2)
    with running(directory / "server") as server:
        # Tenants are made on their first event, which is no part of the steady state.
        for first in range(1, TENANTS + 1, 100):
            server.send_ok(b"\n".join(_event_of(number) for number in range(first, first + 100)))
        wait_for(lambda: _counts(server)[0] == TENANTS, "all tenants to be made", 60, 0.2)
        before, begin = _counts(server)[1], time.monotonic()
        # 64 connections that wait 60 ms on average send 1,000 a second when an answer takes 4 ms.
        rate = Wrk(
            f"{server.url}/v1/events",
            ndjson(1),
            HEADERS,
            directory,
            connections=64,
            seconds=minutes * 60,
            delay_ms=60,
            functions=_ROUND_ROBIN % TENANTS,
        ).result()
        _, accepted, sealed = _counts(server)
        lag = accepted - sealed
        took = time.monotonic() - begin
        wait_for(lambda: _counts(server)[1] == _counts(server)[2], "everything to be sealed", 120, 0.2)
        sizes = {name: size_of(server.data / name) for name in ("trees", "archive")}
        objects = sum(1 for path in (server.data / "archive").rglob("*.parquet"))
        files = sum(1 for path in (server.data / "trees").rglob("*") if path.is_file())
        journal = size_of(server.data / "journal")
        count = _counts(server)[1]
    per_second = (accepted - before) / took
    run.add(
        Row(
            "tenants",
            "1,000 tenants × 1 event/s",
            f"{per_second:,.0f} events/s accepted, p99 {rate.p99_ms:.1f} ms, {lag:,} events not sealed at the end",
            (per_second - lag / took) / TENANTS,
            f"{count:,} events: trees {sizes['trees'] / count:.0f} B an event in {files:,} files, archive {objects:,} objects "
            f"with {sizes['archive'] / 2**20:.1f} MiB, journal {journal / 2**20:.0f} MiB",
            least(0.95, "keeps up"),
            conditions=f"{minutes:g} minutes, default settings, one event a request, 64 connections; {rate.errors} errors",
        )
    )


def _event_of(number: int) -> bytes:
    return b'{"tenant":"t-%04d",' % number + ndjson(1)[1:]


def _counts(server: Server) -> tuple[int, int, int]:
    """Tenants of the load, their accepted events, their sealed ones."""
    rows = [row for name, row in server.status()["tenants"].items() if name.startswith("t-")]
    return len(rows), sum(row["accepted"] for row in rows), sum(row["sealed"] for row in rows)
