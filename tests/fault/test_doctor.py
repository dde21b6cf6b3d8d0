"""`tallystick doctor durability` over the real product, and over broken ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.faults import needs_root, standin

Note = Callable[[str, int, str], None]
pytestmark = [pytest.mark.slow_fault, pytest.mark.timeout(1800)]


def run_doctor(directory: Path, rounds: int, **environment: str) -> tuple[int, dict[str, str]]:
    """Exit code, and state by check."""
    command = [sys.executable, "-c", "from tallystick.cli.main import run; run()", "doctor", "durability"]
    command += ["--dir", str(directory), "--rounds", str(rounds), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=1500)
    return done.returncode, {row["check"]: row["state"] for row in map(json.loads, done.stdout.splitlines())}


@needs_root
def test_the_product_passes(tmp_path: Path, note: Note) -> None:
    """Kills, a full quota and power cuts on this disk: everything ok, exit 0, nothing left in the directory."""
    code, states = run_doctor(tmp_path, 3)
    assert (code, states) == (0, {"kill -9": "ok", "full disk": "ok", "power cut": "ok"})
    assert list(tmp_path.iterdir()) == []
    note("`doctor durability` on this disk", 3, "kill -9, full disk and power cut: ok, exit 0")


@needs_root
@pytest.mark.parametrize(("name", "check"), [("early_answer", "kill -9"), ("lying_sync", "power cut"), ("yes_to_all", "full disk")])
def test_a_broken_one_fails(tmp_path: Path, note: Note, name: str, check: str) -> None:
    """Each kind of rounds finds the fault that it is there for; the scratch directory is kept."""
    code, states = run_doctor(tmp_path, 2, **standin(name))
    assert code == 1
    assert states[check] == "fail"
    assert list(tmp_path.glob("tallystick-doctor-*"))
    note(f"`doctor durability`, stand-in `{name}`", 2, f"{check}: goes red")


DULL = """
import sys
from tallystick.pipeline import durability
durability._mount = lambda image, disk: durability._run("mount", "-o", "loop,sync", str(image), str(disk))
sys.exit(durability.main(sys.argv[1:]))
"""


@needs_root
def test_a_cut_that_loses_nothing_is_no_proof(tmp_path: Path, note: Note) -> None:
    """On a file system that writes everything at once no cut can show whether the server syncs: the verdict is `not run`."""
    command = ["unshare", "--mount", sys.executable, "-c", DULL, str(tmp_path / "cut"), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    finding = json.loads(done.stdout)
    assert finding["state"] == "not run", finding
    assert "nobody synced" in finding["detail"]
    note("`doctor durability` on a file system that loses nothing", 1, "power cut: not run, since it could show nothing")
