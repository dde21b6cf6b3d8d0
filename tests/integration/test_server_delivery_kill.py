"""kill -9 of a process that delivers to a database or a broker: after the last restart every event is there exactly once, in order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from contract.servers import SERVERS, make_server_harness

CHILD = Path(__file__).parents[1] / "support" / "server_delivery_child.py"
STEPS = ["durable:4", "before:2", "after:1", "after:3", "durable:9"]
EVENTS = 15


def run_child(directory: Path, kind: str, events: int, step: str, settings: str) -> int:
    command = [sys.executable, str(CHILD), str(directory), kind, str(events), step, settings]
    return subprocess.run(command, timeout=60).returncode


@pytest.mark.parametrize("kind", SERVERS)
def test_killed_at_any_step_it_delivers_exactly_once(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """Killed before the cut is stored, before and after the other side took it, and before its outcome is; nothing is missing or doubled."""
    harness = make_server_harness(kind, tmp_path, request.getfixturevalue(SERVERS[kind]))
    for life, step in enumerate(STEPS, 1):
        assert run_child(tmp_path, kind, EVENTS * life, step, harness.table()) == -9, step
    assert run_child(tmp_path, kind, EVENTS * len(STEPS), "none", harness.table()) == 0
    found = harness.ids()
    for tenant in ("acme", "umbra"):
        ids = [name for name in found if name.startswith(tenant)]
        assert ids == [f"{tenant}-{index}" for index in range(EVENTS * len(STEPS))]
