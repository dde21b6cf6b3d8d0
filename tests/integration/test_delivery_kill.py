"""kill -9 before durable steps of a delivering process: after the last restart every event is there exactly once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).parents[1] / "support" / "delivery_child.py"
STEPS = [3, 8, 11, 14, 19]


def run_child(directory: Path, kind: str, events: int, step: int) -> int:
    return subprocess.run([sys.executable, str(CHILD), str(directory), kind, str(events), str(step)], timeout=60).returncode


def delivered(directory: Path, kind: str) -> list[str]:
    if kind == "file":
        bodies = [(directory / "out.jsonl").read_bytes()]
    else:
        bodies = [path.read_bytes() for path in sorted((directory / "lake").rglob("*.jsonl"))]
    return [json.loads(line)["id"] for body in bodies for line in body.splitlines()]


@pytest.mark.parametrize("kind", ["file", "object_store"])
def test_killed_at_durable_steps_it_delivers_exactly_once(tmp_path: Path, kind: str) -> None:
    """Each life is killed at another step and each next one has more to deliver; nothing is missing, doubled or out of order."""
    deaths = 0
    for life, step in enumerate(STEPS):
        deaths += run_child(tmp_path, kind, 20 * (life + 1), step) == -9
    assert run_child(tmp_path, kind, 20 * len(STEPS), 0) == 0
    assert deaths >= len(STEPS) - 1
    assert delivered(tmp_path, kind) == [f"acme-{index}" for index in range(20 * len(STEPS))]
    assert not list(tmp_path.rglob("*.salvage"))
