"""Damaged, missing and old state files: work may be repeated, nothing is lost, and nobody has to help."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fault.conftest import MakeServer
from support.faults import goes_red, standin, wait_intake, wait_until
from support.ledger import Ledger, Load

Note = Callable[[str, int, str], None]
pytestmark = [pytest.mark.slow_fault, pytest.mark.timeout(900)]
CUTS = '[journal]\nsegment_size = "1MiB"\n'


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def garble(path: Path) -> None:
    path.write_bytes(b"\xa5" * path.stat().st_size)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path: Path) -> None:
    path.unlink()


def tear_last_line(path: Path) -> None:
    """What a crash in the middle of an append leaves."""
    with path.open("ab") as file:
        file.write(b'{"mark":')


def tear_leaves(path: Path) -> None:
    """Part of a leaf that no head covers."""
    with path.open("ab") as file:
        file.write(b"\xa5" * 45)


# name of the case: (files, what is done to each)
HURT: dict[str, tuple[str, Callable[[Path], None]]] = {
    "cursors of sealer and archiver flipped": ("cursors/[as]*er.?", flip),
    "cursors of sealer and archiver missing": ("cursors/[as]*er.?", remove),
    "numbering cut": ("cursors/numbering.?", cut),
    "numbering missing": ("cursors/numbering.?", remove),
    "newer copy of the tenants flipped": ("tenants.b", flip),
    "MARK missing": ("journal/MARK", remove),
    "MARK garbled": ("journal/MARK", garble),
    "catalog garbled": ("catalog.sqlite*", garble),
    "catalog missing": ("catalog.sqlite*", remove),
    "delivery state flipped": ("cursors/delivery-*", flip),
    "delivery state missing": ("cursors/delivery-*", remove),
    "delivery history garbled": ("cursors/deliveries-*", garble),
    "delivery history missing": ("cursors/deliveries-*", remove),
    "dedupe runs garbled": ("dedupe/*", garble),
    "last line of the heads torn": ("trees/heads", tear_last_line),
    "leaves of an unfinished append": ("trees/*/level-?", tear_leaves),
    "locks missing": ("locks/*", remove),
}
OLD = {
    "old cursors": "cursors/[as]*er.?",
    "old numbering": "cursors/numbering.?",
    "old catalog": "catalog.sqlite*",
    "old delivery state": "cursors/delivery-*",
    "old delivery history": "cursors/deliveries-*",
}


def run_state(fault_server: MakeServer, hurt: Callable[[Path, Path], None], **environment: str) -> Ledger:
    """Some events, a kill, some more, a kill; then ``hurt(data, an earlier copy of it)``, and some more."""
    ledger = Ledger()
    target = fault_server(CUTS, environment=environment)
    earlier = target.directory / "earlier"
    for part in range(3):
        target.start(wait=False)
        wait_intake(target)
        with Load(target, ledger, seed=part, pad=200):
            before = ledger.count()
            wait_until(lambda before=before: ledger.count() > before + 1500, "events to be accepted")  # type: ignore[misc]
            target.wait_api()
            wait_until(lambda: _is_archived(target), "something to be archived and delivered")
            target.kill()
        if part == 0:
            shutil.copytree(target.data, earlier, ignore=shutil.ignore_patterns("*.sock", "*.seg", "*.tmp"))
        if part == 1:
            hurt(target.data, earlier)
    target.start(wait=False)
    wait_intake(target)
    ledger.judge(target, may_repeat=True)
    return ledger


def _is_archived(target) -> bool:  # type: ignore[no-untyped-def]
    page = target.status()
    return page["tenants"]["default"]["archived"] > 0 and page["destinations"]["disk"]["delivered"] > 0


def hurt_all(pattern: str, what: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    def hurt(data: Path, _: Path) -> None:
        found = [path for path in data.glob(pattern) if path.stat().st_size]
        assert found, pattern
        for path in found:
            what(path)

    return hurt


@pytest.mark.parametrize("case", HURT)
def test_hurt_state(fault_server: MakeServer, note: Note, case: str) -> None:
    """The state file is rebuilt, its older copy used, or its work done again."""
    ledger = run_state(fault_server, hurt_all(*HURT[case]))
    note(f"state: {case}", 1, f"{ledger.count()} events accepted")


@pytest.mark.parametrize("case", OLD)
def test_old_state(fault_server: MakeServer, note: Note, case: str) -> None:
    """A state file from before the last crash is put in the place of the newest."""

    def hurt(data: Path, earlier: Path) -> None:
        for path in data.glob(OLD[case]):
            path.unlink()
        found = list(earlier.glob(OLD[case]))
        assert found, case
        for path in found:
            shutil.copy(path, data / path.relative_to(earlier))

    ledger = run_state(fault_server, hurt)
    note(f"state: {case}", 1, f"{ledger.count()} events accepted")


def test_hurt_state_goes_red(fault_server: MakeServer, note: Note) -> None:
    """A server that goes on at the journal's end when a cursor is damaged is caught."""
    with goes_red():
        run_state(fault_server, hurt_all("cursors/[as]*er.?", flip), **standin("skip_to_end"))
    note("state: cursors, stand-in `skip_to_end`", 1, "goes red")
