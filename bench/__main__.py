"""`make bench`: measure, and print the table. `python -m bench --seconds 5` for a quick look."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from rich.console import Console

from bench import accept, whole
from bench.machine import measure_machine
from bench.table import print_rows


def main() -> None:
    """Run everything in a scratch directory below the working directory, so that it uses the same disk."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each load run")
    parser.add_argument("--only", choices=("accept", "whole"), help="only these rows")
    options = parser.parse_args()
    console = Console(stderr=True)
    directory = Path(tempfile.mkdtemp(prefix=".bench-", dir=Path.cwd()))
    try:
        console.print("the machine's limits …")
        machine = measure_machine(directory)
        rows = []
        if options.only != "whole":
            console.print("acceptance …")
            rows += accept.rows(directory, machine, options.seconds)
        if options.only != "accept":
            console.print("the whole way …")
            rows += whole.rows(directory, machine, options.seconds)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    cores = os.cpu_count()
    print_rows(f"Tallystick on {cores} cores, {whole.versions()}", rows)
    Console(width=170).print(
        f"machine: fdatasync of 64 KiB p50 {machine.sync_p50_ms:.2f} ms, p99 {machine.sync_p99_ms:.2f} ms, "
        f"{machine.write_sync_mib_s:,.0f} MiB/s written and synced; SHA-256 {machine.sha256_events_s:,.0f} events/s; "
        f"untyped msgspec decode {machine.decode_events_s:,.0f} events/s; AES-256-GCM {machine.encrypt_mib_s:,.0f} MiB/s",
        highlight=False,
    )


if __name__ == "__main__":
    main()
