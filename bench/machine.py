"""The machine's own limits, measured in the same run as everything beside them."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.load import ndjson


@dataclass(frozen=True, slots=True)
class Machine:
    """Latencies in milliseconds, rates per second on one core."""

    sync_p50_ms: float
    sync_p99_ms: float
    write_sync_mib_s: float
    sha256_events_s: float
    decode_events_s: float
    encrypt_mib_s: float


def measure_machine(directory: Path) -> Machine:
    """fdatasync of 64 KiB, SHA-256 and JSON decoding of the benchmark's events, AES-256-GCM."""
    p50, p99, rate = _sync(directory)
    body = ndjson(1000)
    lines = body.split(b"\n")
    decoder = msgspec.json.Decoder()
    cipher, block = AESGCM(bytes(32)), bytes(2**20)
    return Machine(
        p50,
        p99,
        rate,
        1000 / _best(lambda: [hashlib.sha256(b"\0" + line).digest() for line in lines]),
        1000 / _best(lambda: decoder.decode_lines(body)),
        1 / _best(lambda: cipher.encrypt(bytes(12), block, b"")),
    )


def _best(call: Callable[[], object], rounds: int = 9) -> float:
    """Seconds of the quickest of a few rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def _sync(directory: Path, rounds: int = 400, size: int = 64 * 2**10) -> tuple[float, float, float]:
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, rounds * size)
        os.fsync(file.fileno())
        times = []
        block = os.urandom(size)
        begin = time.perf_counter()
        for number in range(rounds):
            os.pwrite(file.fileno(), block, number * size)
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1000)
        total = time.perf_counter() - begin
    times.sort()
    return times[rounds // 2], times[int(rounds * 0.99)], rounds * size / 2**20 / total
