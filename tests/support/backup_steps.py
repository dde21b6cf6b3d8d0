"""Backup and restore, killed by SIGKILL in every step: what is there afterwards, and whether the next try comes to its end.

`python -m support.backup_steps DIR` prints the table of docs/backup.md. Every try is a forked child of a process without threads, so that
nothing of the killed one is cleaned up: no lock released, no temporary file removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pyrage

from tallystick.archive.backup import restore as restoring
from tallystick.archive.backup import take
from tallystick.durable import set_observer
from tallystick.errors import TallystickError
from tallystick.pipeline.backup import make_backup, open_backups
from tallystick.pipeline.restoring import RestoreOptions, restore_backup
from unit.archive.backup.rig import Rig

POINTS = ("killed as it begins", "killed in its first durable write")


def table(base: Path) -> list[str]:
    """The rows of the table, as Markdown."""
    rows = [f"| step | {' | '.join(POINTS)} |", "| --- | --- | --- |"]
    for verb, steps, run in (("backup", take.STEPS, backup_cell), ("restore", restoring.STEPS, restore_cell)):
        for step in steps:
            cells = [run(base / f"{verb}-{step}-{place}", step, is_inside=bool(place)) for place in range(len(POINTS))]
            rows.append(f"| {verb}: {step} | {' | '.join(cells)} |")
    return rows


def backup_cell(base: Path, step: str, *, is_inside: bool) -> str:
    """What a backup that is killed there leaves."""
    _child(lambda: _prepare(base))
    killed = _child(lambda: _killing(step, is_inside, lambda hook: make_backup(_rig(base).installation, hook)))
    found = "no backup"
    if _child(lambda: _expect(len(_good(base)) == 1)) == 0:
        found = "the whole backup"
    if _child(lambda: (make_backup(_rig(base).installation), None)[1]) != 0:
        found += "; THE NEXT ONE FAILS"
    if _child(lambda: _expect(bool(_good(base)) and all(_checks(base)))) != 0:
        found += "; A BACKUP IS DAMAGED"
    shutil.rmtree(base)
    return _told(killed, found + ", the next one is whole")


def restore_cell(base: Path, step: str, *, is_inside: bool) -> str:
    """What a restore that is killed there leaves."""
    _child(lambda: _prepare(base))
    _child(lambda: (make_backup(_rig(base).installation), None)[1])
    data, keys = base / "new", base / "new.keys"
    options = RestoreOptions(str(base / "store"), data, keys, identity=base / "identity", is_last=True)
    killed = _child(lambda: _killing(step, is_inside, lambda hook: restore_backup(options, hook)))
    found = "everything in place" if data.exists() else "the keys in place" if keys.exists() else "nothing in place"
    if not data.exists() and _child(lambda: (restore_backup(options), None)[1]) != 0:
        found += "; THE NEXT ONE FAILS"
    shutil.rmtree(base)
    return _told(killed, found if found == "everything in place" else found + ", the next one comes to its end")


def _told(killed: int, found: str) -> str:
    return found if killed == -signal.SIGKILL else f"writes nothing durable ({found})"


def _prepare(base: Path) -> None:
    base.mkdir()
    (base / "identity").write_text(str(pyrage.x25519.Identity.generate()))
    rig = _rig(base)
    rig.write(20)
    rig.seal()
    rig.archive()
    rig.write(3)
    rig.seal()


def _rig(base: Path) -> Rig:
    identity = pyrage.x25519.Identity.from_str((base / "identity").read_text())
    return Rig(base, recipients=[str(identity.to_public())])


def _good(base: Path) -> list[take.BackupNote]:
    return [item.note for item in open_backups(_rig(base).installation).listed() if item.note is not None]


def _checks(base: Path) -> list[bool]:
    backups = open_backups(_rig(base).installation)
    return [backups.check(note) == note.bytes for note in _good(base)]


def _killing(step: str, is_inside: bool, run: Callable[[Callable[[str], None]], object]) -> None:
    """Kill this process at the step, or at the first durable operation within it."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(name: str) -> None:
        set_observer(None)
        if name == step:
            if not is_inside:
                die()
            set_observer(die)

    run(hook)


def _expect(holds: bool) -> None:
    if not holds:
        raise TallystickError("it does not hold")


def _child(work: Callable[[], object]) -> int:
    """Run in a fork; its exit code, negative for a signal."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 1)
            work()
            code = 0
        except TallystickError as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    directory, *chosen = sys.argv[1:]
    if chosen:
        verb, step, place = chosen
        run = backup_cell if verb == "backup" else restore_cell
        print(run(Path(directory) / "cell", step, is_inside=place == "inside"))
    else:
        print("\n".join(table(Path(directory))))
