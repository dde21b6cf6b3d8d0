"""Dedupe at the size of its window, alone in a process of its own (`dedupe_child`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.run import Run
from bench.table import Row, most

_PACE = 140_000
_TABLE_ROWS = 32_768


def run(run: Run) -> None:
    """`run.ids` ids remembered, a tenth more sent, at the pace of one full intake process."""
    directory = run.scratch("dedupe")
    command = [sys.executable, "-m", "bench.dedupe_child", str(directory), str(run.ids), str(_PACE), str(_TABLE_ROWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[1])
    found = json.loads(done.stdout)
    resident, peak = found["resident_mib"] * 2**20 / 1e6, found["peak_mib"] * 2**20 / 1e6
    wrong = found["missed"] + found["wrong"] + found["invented"]
    conditions = f"{run.ids:,} ids in the window, random, {_PACE:,} a second; its own part of the process, beside what Python and its libraries hold"
    run.series["dedupe"] = found
    run.add(
        Row(
            "dedupe-memory",
            "dedupe: resident memory",
            f"{peak:.0f} MB at most, {resident:.0f} MB at the end",
            peak,
            f"2 B an id of filters: {run.ids * 2.2 / 1e6:.0f} MB",
            most(100, "≤ 100 MB"),
            conditions=conditions,
        ),
        Row(
            "dedupe-exact",
            "dedupe: wrong answers",
            f"{wrong} of {found['asked']:,}",
            wrong,
            "ids of the window, the same with other content, and ids never sent, after a restart",
            most(0, "0"),
        ),
        Row(
            "dedupe-stall",
            "dedupe: longest batch of 1,000, claim and commit",
            f"{found['stall_max_ms']:.1f} ms, p99 {found['stall_p99_ms']:.1f} ms; {found['refused']} times refused",
            found["stall_max_ms"],
            f"{found['cpu_us_per_event']:.2f} µs of CPU an event, the making of its digests included",
            conditions="files are written and merged meanwhile by its own thread",
        ),
        Row(
            "dedupe-start",
            "dedupe: time to open its files",
            f"{found['start_s'] * 1000:.0f} ms",
            found["start_s"],
            conditions="after a clean stop",
        ),
    )
