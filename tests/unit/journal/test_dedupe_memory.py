"""The memory of dedupe, at a small part of its size and with tables smaller in proportion (docs/formats/dedupe.md has the sum)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EVENTS, TABLE_ROWS = 300_000, 4_096


def test_memory_is_bounded_and_every_id_is_known(tmp_path: Path) -> None:
    """With a merge on the way, fed as fast as it goes, memory stays within the sum of its parts; ids are told exactly, also after a restart."""
    command = [sys.executable, "-m", "bench.dedupe_child", str(tmp_path), str(EVENTS), "0", str(TABLE_ROWS)]
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=120)
    found = json.loads(done.stdout)
    assert found["asked"] == 300_000
    assert (found["missed"], found["wrong"], found["invented"]) == (0, 0, 0)
    ids = EVENTS * 11 // 10 + 64 * TABLE_ROWS
    filters, tables, pieces = 2.04 * ids, 6 * 210 * TABLE_ROWS, 16 * 2**20
    assert found["peak_mib"] * 2**20 < filters + tables + pieces
