"""Where the CPU of an accepted batch goes: the functions on its way, called on the same batch outside the server.

What the server spends beyond their sum (HTTP, event loop, framing, system calls of the network) is the rest of the row ``cpu``.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import zstandard

from bench.load import ndjson
from bench.run import Run
from bench.table import Row
from tallystick.event.codec import EventReader, Limits, Stamp, encode_lines
from tallystick.event.model import Source
from tallystick.event.times import format_utc
from tallystick.journal.commit import ZSTD_LEVEL
from tallystick.journal.frame import FrameEncoder, FrameType, events_payload
from tallystick.journal.group import compress_lines

BATCH = 1_000
_ROUNDS = 60


def run(run: Run) -> None:
    """CPU time, user and system, the least of some rounds."""
    parts = _measure(run.directory)
    total = run.value("cpu")
    shown = dict(parts)
    if total:
        shown["the rest: HTTP, event loop, dedupe's tables, system calls"] = max(0.0, total - sum(parts.values()))
    run.series["shares"] = shown
    whole = sum(shown.values())
    run.add(
        Row(
            "shares",
            "CPU of an accepted event, by what is done",
            ", ".join(f"{name} {value:.2f} µs ({value / whole:.0%})" for name, value in shown.items()),
            None,
            f"together {whole:.2f} µs",
            conditions="each step alone on one batch of 1,000 with warm caches; in the server they share them",
        )
    )


def _measure(directory: Path) -> dict[str, float]:
    """Microseconds of CPU for each event."""
    body = ndjson(BATCH)
    reader = EventReader(Limits())
    source = Source(name="http", type="http")

    def stamp() -> Stamp:
        return Stamp("default", format_utc(datetime.now(UTC)), source)

    batch = reader.read(body, "ndjson")
    lines = encode_lines(batch.events, stamp(), Limits(), batch.said)
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    payload = events_payload(b"\0", compress_lines(lines, compressor))
    encoder = FrameEncoder(bytes(16), bytes(32), 1)
    return {
        "check": _cpu(lambda: reader.read(body, "ndjson")),
        "encode": _cpu(lambda: encode_lines(batch.events, stamp(), Limits(), batch.said)),
        "hash": _cpu(lambda: [hashlib.sha256(b"\0" + line).digest() for line in lines]),
        "compress": _cpu(lambda: compress_lines(lines, compressor)),
        "encrypt": _cpu(lambda: encoder.encode(FrameType.EVENTS, payload, first_seq=1, handle="a" * 16, count=BATCH)),
        "write and sync": _sync_cpu(directory, payload),
    }


def _cpu(call: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.process_time_ns()
        call()
        best = min(best, time.process_time_ns() - start)
    return best / 1000 / BATCH


def _sync_cpu(directory: Path, payload: bytes) -> float:
    """System time of pwrite and fdatasync into a file of zeros, the mean: what the disk itself takes is no CPU."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, _ROUNDS * len(payload))
        os.fsync(file.fileno())
        start = time.process_time_ns()
        for number in range(_ROUNDS):
            os.pwrite(file.fileno(), payload, number * len(payload))
            os.fdatasync(file.fileno())
        return (time.process_time_ns() - start) / _ROUNDS / 1000 / BATCH
