"""Dedupe alone, in a process of its own, filled to the size of its window: memory, stalls, exactness, time to start.

``python -m bench.dedupe_child DIRECTORY EVENTS PACE TABLE_ROWS`` gives it that many ids and a tenth more, ``PACE`` a second (0: as fast as
it goes), with ``TABLE_ROWS`` of them in a table, and prints one JSON object. Ids are random but come from their batch's number, so that any of them can be asked again.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

from tallystick.errors import OverloadedError
from tallystick.journal.dedupe import Dedupe
from tallystick.privacy.keys import KeyStore

BATCH = 1_000
_HANDLE = "benchbenchbench2"
_LEAVES = [bytes(32)] * BATCH


def main() -> None:
    directory, events, pace, rows = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    keys = KeyStore.create(directory / "keys")
    dedupe = Dedupe.open(directory / "data", keys, events, table_rows=rows)
    base = resident_mib()
    watch = _Watch(base)
    filled = _fill(dedupe, events * 11 // 10 // BATCH, pace)
    dedupe.close()
    quiet = resident_mib() - base
    watch.stop()
    # The start of a server: the files alone, nothing to replay.
    begin = time.perf_counter()
    dedupe = Dedupe.open(directory / "data", keys, events, table_rows=rows)
    start_s = time.perf_counter() - begin
    probed = _probe(dedupe, events // BATCH, filled["batches"])
    dedupe.close()
    print(json.dumps({**filled, **probed, "resident_mib": quiet, "peak_mib": watch.peak, "start_s": start_s}))


def resident_mib() -> float:
    """This process's resident memory."""
    for line in Path("/proc/self/status").read_text().split("\n"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


class _Watch:
    """The highest resident memory over a base, looked at fifty times a second."""

    def __init__(self, base: float) -> None:
        self.peak = 0.0
        self._base = base
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(0.02):
            self.peak = max(self.peak, resident_mib() - self._base)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def _fill(dedupe: Dedupe, batches: int, pace: float) -> dict[str, float]:
    stalls, refused, began, used = [], 0, time.monotonic(), time.thread_time()
    for batch in range(batches):
        ids, contents = _digests(batch)
        start = time.perf_counter()
        while True:
            try:
                claim = dedupe.claim(_HANDLE, ids, contents)
                break
            except OverloadedError:
                refused += 1
                time.sleep(0.01)
        dedupe.commit(claim, batch * BATCH + 1, batch * BATCH, _LEAVES)
        stalls.append(time.perf_counter() - start)
        if pace:
            time.sleep(max(0.0, began + (batch + 1) * BATCH / pace - time.monotonic()))
    stalls.sort()
    return {
        "batches": batches,
        "refused": refused,
        "stall_max_ms": stalls[-1] * 1000,
        "stall_p99_ms": stalls[int(len(stalls) * 0.99)] * 1000,
        "cpu_us_per_event": (time.thread_time() - used) / (batches * BATCH) * 1e6,
    }


def _probe(dedupe: Dedupe, window: int, batches: int) -> dict[str, int]:
    """Ask for a hundred batches of the window, for some of them with other content, and for as many ids that were never there."""
    wrong = missed = invented = asked = 0
    for batch in np.linspace(batches - window, batches - 1, 100, dtype=int).tolist():
        ids, contents = _digests(batch)
        told = dedupe.claim(_HANDLE, ids, contents)
        wrong += sum(told.duplicates[place].seq != batch * BATCH + 1 + place for place in told.duplicates)
        missed += BATCH - len(told.duplicates)
        dedupe.release(told)
        told = dedupe.claim(_HANDLE, ids, contents[::-1])
        missed += BATCH - len(told.conflicts) - len(told.duplicates)
        wrong += len(told.duplicates)
        dedupe.release(told)
        ids, contents = _digests(batches + 1 + batch)
        told = dedupe.claim(_HANDLE, ids, contents)
        invented += BATCH - len(told.new)
        dedupe.release(told)
        asked += 3 * BATCH
    return {"asked": asked, "missed": missed, "wrong": wrong, "invented": invented}


def _digests(batch: int) -> tuple[list[bytes], list[bytes]]:
    data = np.random.default_rng(batch).bytes(32 * BATCH)
    half = 16 * BATCH
    return [data[at : at + 16] for at in range(0, half, 16)], [data[at : at + 16] for at in range(half, 2 * half, 16)]


if __name__ == "__main__":
    main()
