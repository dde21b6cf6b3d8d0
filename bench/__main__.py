"""`make bench`: measure, and print the table. `--full` takes the sizes that docs/performance.md speaks of; `--seconds 3` is a quick look."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench import accept, backlog, dedupe, neighbours, processing, shares, sources, sweep, tenants, whole
from bench.machine import measure_machine
from bench.run import Run, own_versions
from bench.table import print_rows

SCENARIOS: dict[str, Callable[[Run], None]] = {
    "accept": accept.run,
    "sources": sources.run,
    "shares": shares.run,
    "processing": processing.run,
    "sweep": sweep.run,
    "whole": whole.run,
    "fairness": neighbours.fairness,
    "followers": neighbours.followers,
    "overload": neighbours.overload,
    "tenants": tenants.run,
    "dedupe": dedupe.run,
    "backlog": backlog.run,
}
_SIZES = {  # option → (usual, --full)
    "seconds": (10.0, 20.0),
    "minutes": (1.0, 10.0),
    "gb": (1.0, 20.0),
    "events": (1_000_000, 10_000_000),
    "ids": (2_000_000, 20_000_000),
    "overload": (20.0, 60.0),
}


def main() -> None:
    """Run the scenarios in a scratch directory below the working directory, so that it is the same disk."""
    options = _options()
    console = Console(stderr=True)
    directory = Path(tempfile.mkdtemp(prefix=".bench-", dir=Path.cwd()))
    begin = time.monotonic()
    try:
        console.print("the machine's limits …")
        run = Run(
            directory,
            measure_machine(directory),
            options.seconds,
            options.minutes,
            options.gb,
            int(options.events),
            int(options.ids),
            options.overload,
            options.results,
        )
        run.versions = own_versions()
        for name in options.only or SCENARIOS:
            run.attempt(name, SCENARIOS[name])
            for path in directory.iterdir():
                shutil.rmtree(path, ignore_errors=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    _print(run, time.monotonic() - begin)
    sys.exit(1 if run.failed else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the sizes of docs/performance.md, instead of smaller ones")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="NAME", help=f"only these: {', '.join(SCENARIOS)}")
    parser.add_argument(
        "--results", type=Path, default=Path("bench-results.json"), help="file for the results (default %(default)s)"
    )
    told = {
        "seconds": "length of one load",
        "minutes": "length of the sustained load, and of the thousand tenants",
        "gb": "size of the backlog, in 10^9 bytes of journal",
        "events": "least number of events that are searched and verified",
        "ids": "ids in the window of dedupe",
        "overload": "seconds of overload",
    }
    for name, text in told.items():
        usual, full = _SIZES[name]
        parser.add_argument(f"--{name}", type=float, help=f"{text} (default {usual:g}; with --full {full:g})")
    options = parser.parse_args()
    for name, sizes in _SIZES.items():
        if getattr(options, name) is None:
            setattr(options, name, float(sizes[options.full]))
    return options


def _print(run: Run, took: float) -> None:
    machine, versions = run.machine, ", ".join(f"{name} {version}" for name, version in run.versions.items())
    print_rows(f"Tallystick on {os.cpu_count()} cores; {versions}", run.rows)
    Console(width=182).print(
        f"machine: fdatasync of 64 KiB p50 {machine.sync_p50_ms:.2f} ms, p99 {machine.sync_p99_ms:.2f} ms, "
        f"{machine.write_sync_mib_s:,.0f} MiB/s written and synced; SHA-256 {machine.sha256_events_s:,.0f} events/s; "
        f"untyped msgspec decode {machine.decode_events_s:,.0f} events/s; AES-256-GCM {machine.encrypt_mib_s:,.0f} MiB/s\n"
        f"{took / 60:.0f} minutes; results in {run.results_path}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
