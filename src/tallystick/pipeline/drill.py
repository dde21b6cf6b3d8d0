"""Drills: the newest backup is really restored, and evidence is really tampered with, in scratch directories.

A report is a note signed by the backup key, kept in `DIR/backups/`; its facts go into the account of the server's own tenant, and into status.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tallystick.archive.backup.ledger import LedgerFile
from tallystick.archive.backup.restore import unpack
from tallystick.archive.backup.take import Backups, newest
from tallystick.archive.store import ArchiveStore
from tallystick.config import load_config
from tallystick.durable import make_dir, replace_file
from tallystick.errors import IntegrityError
from tallystick.event.times import format_utc
from tallystick.evidence.backup_note import backup_key_name
from tallystick.evidence.heads import Heads
from tallystick.evidence.note import sign_note
from tallystick.evidence.origin import ROOT
from tallystick.evidence.verify import Report
from tallystick.journal.tenants import TenantRegistry
from tallystick.pipeline.backup import HAND_WAIT_S, open_backups, put_on_record, writing
from tallystick.pipeline.context import Installation
from tallystick.pipeline.key_scratch import key_scratch
from tallystick.pipeline.tamper import TAMPERINGS
from tallystick.pipeline.verify import VerifyOptions, verify_directory
from tallystick.query.engine import QueryEngine

_SAMPLES = 8
_SAMPLE_EVENTS = 100


def drill_restore(installation: Installation, scratch: Path, step: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Restore the newest backup below ``scratch``, verify it, and compare it with the live data. The report; ``problems`` is empty when all holds."""
    began, wall = time.monotonic(), time.time()
    backups = open_backups(installation)
    note = newest(backups.listed())
    report: dict[str, Any] = {"drill": "restore", "at": _now(wall), "backup": note.id, "made": note.at, "problems": []}
    with (
        tempfile.TemporaryDirectory(dir=scratch, prefix="tallystick-drill-") as directory,
        key_scratch(installation.keys_dir) as keys,
    ):
        copy = Path(directory) / "data"
        try:
            report["bytes"] = unpack(backups, note, installation.keys, copy, step)
            step("verify")
            verified = _verify(installation, copy, keys)
            report["events"] = verified.events
            report["problems"] += [f"{problem.message} ({problem.place})" for problem in verified.problems]
            report["recovery_seconds"] = round(time.monotonic() - began, 3)
            step("compare")
            report["compared"] = _compare(installation, copy, report["problems"])
        except IntegrityError as error:
            report["problems"].append(str(error))
    report["recovery_point_seconds"] = round(wall - datetime.fromisoformat(note.at).timestamp(), 3)
    return _on_record(installation, report)


def drill_tamper(installation: Installation, scratch: Path, step: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Change a copy of the evidence in each of the ways that `TAMPERINGS` knows; verify must fail each time, and pass before."""
    report: dict[str, Any] = {"drill": "tamper", "at": _now(time.time()), "tried": [], "problems": []}
    with (
        tempfile.TemporaryDirectory(dir=scratch, prefix="tallystick-drill-") as directory,
        key_scratch(installation.keys_dir) as keys,
    ):
        whole = Path(directory) / "whole"
        step("copy")
        _copy(installation, whole, Path(directory) / "store")
        if _verify(installation, whole, keys).problems:
            report["problems"].append("the evidence does not verify before anything is changed")
        for name, (what, change) in TAMPERINGS.items():
            step(name)
            victim = Path(directory) / "victim"
            shutil.copytree(whole, victim)
            row = {"name": name, "what": what, "found": ""}
            if change(victim):
                problems = _verify(installation, victim, keys).problems
                row["found"] = problems[0].message if problems else ""
                if not problems:
                    report["problems"].append(f"{name}: verify did not notice")
            else:
                row["found"] = "not tried: there is too little evidence to change"
            report["tried"].append(row)
            shutil.rmtree(victim)
    return _on_record(installation, report)


def _copy(installation: Installation, target: Path, store: Path) -> None:
    """The present evidence, by way of a backup of its own: consistent also beside a running server."""
    backups = Backups(ArchiveStore(str(store), what="backup"), installation.keys, installation.server_name)
    taken = backups.take(installation.data_dir, ArchiveStore.open(installation.config), keep_s=0)
    unpack(backups, taken.note, installation.keys, target)


def _verify(installation: Installation, directory: Path, scratch: Path) -> Report:
    """As somebody would who has the keys and remembers the head that the copy was made with."""
    keys = scratch / "keys"
    if not keys.exists():
        shutil.copytree(installation.keys_dir, keys)
        head = Heads(directory, unpublished=True).state.heads[ROOT]
        (keys / "heads").write_text(head.note, "utf-8")
    return verify_directory(VerifyOptions(directory, keys=keys), lambda _: None)


def _compare(installation: Installation, copy: Path, problems: list[str]) -> int:
    """Sample lines of every tenant, from the copy and from the live data, byte by byte; returns how many events were compared."""
    config = load_config(
        None,
        {"server": {"name": installation.server_name}, "data": {"dir": str(copy)}, "keys": {"dir": str(installation.keys_dir)}},
    )
    restored, live = QueryEngine(config, installation.keys), QueryEngine(installation.config, installation.keys)
    sizes, compared = Heads(copy, unpublished=True).sealed_sizes(), 0
    for tenant in TenantRegistry(copy).all():
        size = sizes.get(tenant.handle, 0)
        for sample in range(_SAMPLES if size else 0):
            first = (size - 1) * sample // _SAMPLES
            count = min(_SAMPLE_EVENTS, size - first)
            found, kept = restored.lines(tenant.name, first, count), live.lines(tenant.name, first, count)
            if not set(kept) <= set(found):  # what expired since the backup was made is still in it
                problems.append(f"events of {tenant.name} from index {first} on are not as they are in the live data")
            compared += len(kept)
    return compared


@contextmanager
def _ledger(installation: Installation) -> Iterator[LedgerFile]:
    with writing(installation, HAND_WAIT_S):
        yield LedgerFile(installation.data_dir)


def _on_record(installation: Installation, report: dict[str, Any]) -> dict[str, Any]:
    """Sign the report, keep it, and let the running server put it into the account."""
    key_name = backup_key_name(installation.server_name)
    text = f"tallystick.drill/v1\n{msgspec.json.encode(report).decode()}\n"
    signed = sign_note(text, [(key_name, installation.keys.signing_key(key_name))])
    identity = f"{report['at'].replace(':', '').replace('-', '')}-{report['drill']}"
    with _ledger(installation) as file:
        ledger = file.load()
        facts = {name: value for name, value in report.items() if name != "tried"}
        ledger.drills = {**ledger.drills, report["drill"]: facts}
        put_on_record(ledger, f"drill:{identity}", {"type": "drill", **facts, "problems": len(report["problems"])})
        directory = make_dir_of(installation)
        # A crash between the two leaves a report that nothing counts; the drill is given again.
        replace_file(directory / f"{identity}.note", signed.encode())
        file.save(ledger)
    return {**report, "report": str(directory / f"{identity}.note")}


def make_dir_of(installation: Installation) -> Path:
    """Where reports lie."""
    directory = installation.data_dir / "backups"
    make_dir(directory)
    return directory


def _now(wall: float) -> str:
    return format_utc(datetime.fromtimestamp(wall, UTC))
