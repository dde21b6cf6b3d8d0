"""Drills really restore and really tamper; status says what is overdue; entries wait for the server."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tallystick.api.backups import overdue
from tallystick.archive.backup.ledger import Ledger, LedgerFile
from tallystick.evidence.backup_note import backup_key_name
from tallystick.evidence.note import open_note, vkey
from tallystick.pipeline import backup_watch
from tallystick.pipeline.backup import make_backup
from tallystick.pipeline.drill import drill_restore, drill_tamper
from unit.archive.backup.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    made = Rig(tmp_path)
    made.write(30)
    made.seal()
    made.archive()
    made.write(3)
    made.seal()
    return made


def test_a_restore_drill_measures_and_signs(rig: Rig) -> None:
    """Recovery time and point are there, every event is verified, and the report opens with the backup key."""
    make_backup(rig.installation)
    report = drill_restore(rig.installation, rig.base)
    assert (report["problems"], report["events"]) == ([], 33)
    assert report["compared"] > 0
    assert report["recovery_seconds"] > 0
    assert report["recovery_point_seconds"] >= 0
    name = backup_key_name(rig.installation.server_name)
    key = vkey(name, rig.installation.keys.signing_key(name).public_key())
    assert open_note(Path(report["report"]).read_text(), [key]).startswith("tallystick.drill/v1\n")
    ledger = LedgerFile(rig.config.data_dir).load()
    assert ledger.drills["restore"]["backup"] == report["backup"]
    assert [pending.entry["type"] for pending in ledger.pending] == ["backup", "drill"]
    assert not list(rig.base.glob("tallystick-drill-*"))


def test_a_restore_drill_over_a_damaged_store_fails(rig: Rig) -> None:
    """The report names the damage, and is on record all the same."""
    make_backup(rig.installation)
    victim = max(
        (path for path in (rig.base / "store" / "objects").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    victim.write_bytes(b"\0" * victim.stat().st_size)
    report = drill_restore(rig.installation, rig.base)
    assert "damaged" in report["problems"][0]
    assert LedgerFile(rig.config.data_dir).load().drills["restore"]["problems"]


def test_every_tampering_is_found(rig: Rig) -> None:
    """Flip, drop, reorder, truncate, back-date: verify names each one, and the data itself is as it was."""
    report = drill_tamper(rig.installation, rig.base)
    assert report["problems"] == []
    assert all(row["found"] and not row["found"].startswith("not tried") for row in report["tried"])
    assert {"flip", "drop", "reorder", "truncate", "back-date"} <= {row["name"] for row in report["tried"]}


def test_what_is_overdue_is_told(rig: Rig) -> None:
    """A backup after twice its schedule, a drill after its period, and a failed drill until one passes."""
    config, now = rig.config, 2e9
    assert overdue(config, {}, {}, now, now) == []
    late = overdue(config, {}, {}, now - 40 * 86_400, now)
    assert ["backup" in line or "never made" in line for line in late] == [True, True]
    failed: dict[str, dict[str, Any]] = {"restore": {"at": "2033-05-18T00:00:00Z", "problems": ["a piece is missing"]}}
    assert overdue(config, {"at": "2033-05-18T00:00:00Z"}, failed, now, now) == [
        "drill: the last restore drill failed: a piece is missing"
    ]


def test_the_schedule_makes_a_backup_and_names_what_fails(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is made at once when there is none, none before its time, and a failure is the role's reason."""
    stop = threading.Event()
    pages: list[dict[str, Any]] = []

    def publish(_data_dir: Path, _role: str, page: dict[str, Any]) -> None:
        pages.append(page)
        if len(pages) >= 2:
            stop.set()

    monkeypatch.setattr(backup_watch, "publish_status", publish)
    monkeypatch.setattr(backup_watch, "_LOOK_S", 0.01)
    backup_watch.watch_backups(rig.installation, stop)
    ledger = LedgerFile(rig.config.data_dir).load()
    assert len(list((rig.base / "store" / "backups").iterdir())) == 1
    assert ledger.since > 0
    assert [pending.entry["type"] for pending in ledger.pending] == ["backup"]  # no intake runs here
    assert pages[-1]["reason"] == ""
    assert backup_watch.next_due(Ledger(), 10) == 0
