"""Power cuts: a server on an ext4 image of its own, frozen, copied without what was not synced, and started on the copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fault.conftest import MakeServer
from support.faults import cut_power, goes_red, make_ext4, mounted, needs_root, standin, wait_intake, wait_until
from support.ledger import Ledger, Load

Note = Callable[[str, int, str], None]
pytestmark = [needs_root, pytest.mark.slow_fault, pytest.mark.timeout(1800)]
IMAGE_MIB = 512


def run_cuts(fault_server: MakeServer, tmp_path: Path, options: str, rounds: int, **environment: str) -> Ledger:
    """Each round begins on the disk that the last cut left. ``commit=600`` keeps the file system from syncing by itself."""
    ledger = Ledger()
    image, disk = tmp_path / "disk.img", tmp_path / "disk"
    make_ext4(image, IMAGE_MIB)
    for number in range(rounds + 1):
        with mounted(disk, "-o", f"loop,commit=600{options}", str(image)):
            try:
                target = fault_server('[journal]\nsegment_size = "1MiB"\n', directory=disk / "t", environment=environment)
                target.start(wait=False)
                wait_intake(target)
                if number == rounds:
                    ledger.judge(target)
                    break
                with Load(target, ledger, seed=number, batch=60, pad=300):
                    before = ledger.count()
                    wait_until(lambda before=before: ledger.count() > before + 2000, "events to be accepted")  # type: ignore[misc]
                    time.sleep(number * 0.37 % 1)
                    cut_power(target, image, tmp_path / "snapshot.img")
            finally:
                fault_server.end()
        (tmp_path / "snapshot.img").replace(image)
    return ledger


@pytest.mark.parametrize("options", ["", ",noauto_da_alloc"], ids=["default", "noauto_da_alloc"])
def test_power_cut(fault_server: MakeServer, tmp_path: Path, note: Note, options: str) -> None:
    """Five cuts in a row under load: what was accepted is on the disk that the cut left."""
    ledger = run_cuts(fault_server, tmp_path, options, 5)
    note(f"power cut, ext4 commit=600{options}", 5, f"{ledger.count()} events accepted")


def test_power_cut_goes_red(fault_server: MakeServer, tmp_path: Path, note: Note) -> None:
    """A server whose syncs do nothing is caught."""
    with goes_red():
        run_cuts(fault_server, tmp_path, "", 1, **standin("lying_sync"))
    note("power cut, stand-in `lying_sync`", 1, "goes red")
