"""`tallystick doctor durability`: the real product, hurt on the user's own disk, in a scratch directory that is removed.

Three kinds of rounds, each under load and each judged by the same ledger (`trial`):

- **kill**: kill -9 at random moments, restart, go on.
- **fill**: the quota is reached, intake must refuse with `disk_full`; with more room it must go on, and have nothing lost.
- **cut**: a file system of our own in a file; the server is frozen, the file copied without what was not synced, and the
  server is started on the copy, as after a power cut. Needs root and loop devices. It runs in a mount namespace of its own
  (`unshare --mount`), so nothing stays mounted however it ends. Before each cut the doctor itself writes a block that it does not
  sync, and waits for one answer more: a cut that did not lose that block could not have shown a server that does not sync
  either, and is made again.

What this cannot show: whether the device itself keeps what it says it has. For that the plug has to be pulled.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tallystick.errors import ConfigError, TallystickError
from tallystick.pipeline.finding import Finding, fail, not_run, ok
from tallystick.pipeline.trial import BrokenPromiseError, Trial

_EVENTS_A_ROUND = 1_000
_FILL_QUOTA = "40MiB"
_IMAGE_BYTES = 384 << 20
_NEEDED_BYTES = 1 << 30
_TOOLS = ("unshare", "mount", "umount", "mkfs.ext4", "cp", "sync")
_CUTS_A_ROUND = 5
_BLOCK_BYTES = 4096
_HINT = "Report it with the scratch directory, which was kept: {}"


def try_durability(directory: Path, rounds: int) -> Iterator[Finding]:
    """All kinds of rounds in a new directory under ``directory``. Raises ConfigError when that cannot be used."""
    if not directory.is_dir():
        raise ConfigError("this is no directory", place=str(directory), hint="Name one on the disk that the data will be on")
    free = shutil.disk_usage(directory).free
    if free < _NEEDED_BYTES:
        raise ConfigError(f"{free:,} bytes are free there; the rounds need {_NEEDED_BYTES:,}", place=str(directory))
    scratch = Path(tempfile.mkdtemp(prefix="tallystick-doctor-", dir=directory))
    is_good = True
    try:
        for kind in (kill_rounds, fill_round, cut_rounds):
            finding = kind(scratch, rounds)
            is_good &= finding.state != "fail"
            yield finding
    finally:
        if is_good:
            shutil.rmtree(scratch, ignore_errors=True)


def kill_rounds(scratch: Path, rounds: int) -> Finding:
    """kill -9 under load, ``rounds`` times."""
    trial, chance = Trial(scratch / "kill"), random.SystemRandom()
    try:
        trial.start()
        for _ in range(rounds):
            with trial.load():
                _wait_accepted(trial)
                time.sleep(chance.uniform(0, 0.5))
                trial.kill()
            trial.start()
        trial.judge()
    except TallystickError as error:
        return fail("kill -9", str(error), _HINT.format(scratch))
    finally:
        trial.kill()
    return ok("kill -9", f"{rounds} rounds under load: {_balance(trial)}")


def fill_round(scratch: Path, rounds: int) -> Finding:
    """Up to the quota, and beyond it with a larger one. Once, whatever ``rounds`` says."""
    trial = Trial(scratch / "fill", quota=_FILL_QUOTA)
    try:
        trial.start()
        with trial.load():
            trial.wait(lambda: trial.refusals["disk_full"] > 3, "a refusal with disk_full")
        if odd := set(trial.refusals) - {"disk_full"}:
            raise BrokenPromiseError(f"refused with {', '.join(odd)} instead of disk_full")
        trial.kill()
        trial.configure("10GiB")
        trial.start()
        with trial.load():
            _wait_accepted(trial)
        trial.judge()
    except TallystickError as error:
        return fail("full disk", str(error), _HINT.format(scratch))
    finally:
        trial.kill()
    return ok("full disk", f"refused at a quota of {_FILL_QUOTA}, went on with more: {_balance(trial)}")


def cut_rounds(scratch: Path, rounds: int) -> Finding:
    """Power cuts on a file system in a file, in a process and mount namespace of their own."""
    if os.geteuid() != 0:
        return not_run("power cut", "needs root")
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return not_run("power cut", f"needs {', '.join(missing)}")
    if not Path("/dev/loop-control").exists():
        return not_run("power cut", "needs loop devices")
    command = ["unshare", "--mount", sys.executable, "-m", __name__, str(scratch / "cut"), str(rounds)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        return Finding(**json.loads(done.stdout))
    except (ValueError, TypeError):
        return not_run("power cut", f"could not be tried: {done.stderr.strip()[-300:] or done.returncode}")


def _cut_here(place: Path, rounds: int) -> Finding:
    """Inside the namespace. Each round goes on with the disk that the cut before it left."""
    place.mkdir()
    image, snapshot, disk = place / "disk.img", place / "snapshot.img", place / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    try:
        _run("mkfs.ext4", "-q", "-F", str(image))
        _mount(image, disk)
    except subprocess.CalledProcessError as error:
        return not_run("power cut", str(error.stderr).strip())
    trial = Trial(disk / "trial")
    control = disk / "control"
    control.write_bytes(bytes(_BLOCK_BYTES))
    _run("sync", "-f", str(disk))  # by a program of its own: what the doctor needs must not depend on what is tried here
    good = bad = 0
    try:
        trial.start()
        while good < rounds:
            with trial.load():
                _wait_accepted(trial)
                unsynced = _overwrite(control)
                _wait_accepted(trial, 1)
                trial.freeze()
                _run("cp", "--sparse=always", str(image), str(snapshot))
                trial.kill()
            _unmount(disk)
            snapshot.replace(image)
            _mount(image, disk)
            is_lost = control.read_bytes() != unsynced
            good, bad = good + is_lost, bad + (not is_lost)
            if bad >= _CUTS_A_ROUND * rounds:
                return not_run("power cut", "the file system writes by itself what nobody synced: no cut was sharp enough")
            trial.start()
        trial.judge()
    except TallystickError as error:
        return fail("power cut", str(error), _HINT.format(place.parent))
    except subprocess.CalledProcessError as error:
        return not_run("power cut", f"{error.cmd[0]}: {str(error.stderr).strip()}")
    except OSError as error:
        return fail("power cut", f"what the server had made is not there after the cut: {error}", _HINT.format(place.parent))
    finally:
        trial.kill()  # the mount goes with this namespace
    return ok("power cut", f"{rounds} cuts on ext4: {_balance(trial)}; the device's own cache is not tested by this")


def _overwrite(control: Path) -> bytes:
    """In place and without a sync: what a power cut must take."""
    block = os.urandom(_BLOCK_BYTES)
    with control.open("r+b") as file:
        file.write(block)
    return block


def _mount(image: Path, disk: Path) -> None:
    """commit=600: the file system syncs nothing by itself in the meantime."""
    _run("mount", "-o", "loop,commit=600", str(image), str(disk))


def _unmount(disk: Path) -> None:
    """Tried for a while: the killed server's files close a moment after it. Raises BrokenPromiseError."""
    for _ in range(100):
        if subprocess.run(["umount", str(disk)], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise BrokenPromiseError("the scratch file system cannot be unmounted", place=str(disk))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _wait_accepted(trial: Trial, count: int = _EVENTS_A_ROUND) -> None:
    before = len(trial.accepted)
    trial.wait(lambda: len(trial.accepted) >= before + count, "events to be accepted")


def _balance(trial: Trial) -> str:
    return f"{len(trial.accepted):,} events accepted, none lost, none twice; verify passes"


def main(arguments: list[str]) -> int:
    """The process inside the mount namespace: one finding as JSON."""
    finding = _cut_here(Path(arguments[0]), int(arguments[1]))
    fields = {"check": finding.check, "state": finding.state, "detail": finding.detail, "hint": finding.hint}
    sys.stdout.write(json.dumps(fields))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
