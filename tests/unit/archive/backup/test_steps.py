"""A real SIGKILL in the two steps that decide, as in the table of docs/backup.md; all of the table is made by `make backups`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(("verb", "step", "place"), [("backup", "note", "inside"), ("restore", "data", "inside")])
def test_killed_where_it_counts_nothing_is_half(tmp_path: Path, verb: str, step: str, place: str) -> None:
    """The cell is the one that the page shows, and it names no damage."""
    command = [sys.executable, "-m", "support.backup_steps", str(tmp_path), verb, step, place]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=True, timeout=250)
    cell = done.stdout.strip().split("\n")[-1]
    row = next(
        line for line in (ROOT / "docs" / "backup.md").read_text("utf-8").split("\n") if line.startswith(f"| {verb}: {step} |")
    )
    assert row.split(" | ")[2].rstrip(" |") == cell
    assert cell == cell.lower()


def test_the_table_has_no_empty_cell() -> None:
    """Every step of both verbs is there, and nothing in it is damage or a try that fails."""
    from tallystick.archive.backup import restore, take

    text = (ROOT / "docs" / "backup.md").read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.split("\n") if line.startswith(("| backup: ", "| restore: "))]
    assert [row[0] for row in rows] == [f"backup: {name}" for name in take.STEPS] + [f"restore: {name}" for name in restore.STEPS]
    assert all(len(row) == 3 and all(cell and cell == cell.lower() for cell in row) for row in rows)
