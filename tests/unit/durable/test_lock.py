"""Role locks: one process per role, however the last one ended."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tallystick.durable import RoleLock, set_observer
from tallystick.errors import LockedError

HOLDER = """
import sys, time
from pathlib import Path
from tallystick.durable import RoleLock
print(RoleLock(Path(sys.argv[1]), "writer").acquire(), flush=True)
time.sleep(60)
"""


def test_the_epoch_rises_with_every_start(tmp_path: Path) -> None:
    """It is in the file before the role does anything."""
    for expected in (1, 2, 3):
        lock = RoleLock(tmp_path, "writer")
        assert lock.acquire() == lock.epoch == expected
        assert int((tmp_path / "locks" / "writer").read_text()) == expected
        lock.release()
    lock.release()


def test_a_second_holder_is_refused_at_once(tmp_path: Path) -> None:
    """With the role, the place, and what to do; another role is free."""
    lock = RoleLock(tmp_path, "writer")
    lock.acquire()
    with pytest.raises(LockedError, match="writer"):
        RoleLock(tmp_path, "writer").acquire()
    RoleLock(tmp_path, "sealer").acquire()
    lock.release()
    assert RoleLock(tmp_path, "writer").acquire() == 2


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """While it lives its lock holds over processes; kill -9 lets it go, and no file needs to be removed."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"1\n"
    with pytest.raises(LockedError):
        RoleLock(tmp_path, "writer").acquire()
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    holder.stdout.close()
    assert RoleLock(tmp_path, "writer").acquire() == 2


def test_the_lock_is_not_inherited(tmp_path: Path) -> None:
    """A child that outlives its parent does not hold the parent's role."""
    lock = RoleLock(tmp_path, "writer")
    lock.acquire()
    program = "import time; print('here', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", program], close_fds=False, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"here\n"
    lock.release()
    try:
        assert RoleLock(tmp_path, "writer").acquire() == 2
    finally:
        child.kill()
        child.wait(10)
        child.stdout.close()


def test_a_deleted_lock_file_lets_no_second_one_in_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is looked at again after locking: a file that lost its name meanwhile does not count."""
    path = tmp_path / "locks" / "writer"
    flock, calls = fcntl.flock, []

    def lose_the_name(fd: int, how: int) -> None:
        flock(fd, how)
        calls.append(fd)
        if len(calls) == 1:
            path.unlink()

    monkeypatch.setattr("tallystick.durable.lock.fcntl.flock", lose_the_name)
    lock = RoleLock(tmp_path, "writer")
    lock.acquire()
    assert len(calls) == 2
    monkeypatch.undo()
    with pytest.raises(LockedError):
        RoleLock(tmp_path, "writer").acquire()


def test_whoever_starts_the_roles_locks_the_directory_too(tmp_path: Path) -> None:
    """With its lock file deleted meanwhile, a second one still finds the first; released, all is free."""
    first = RoleLock(tmp_path, "supervisor", whole=True)
    first.acquire()
    first.path.unlink()
    with pytest.raises(LockedError) as refused:
        RoleLock(tmp_path, "supervisor", whole=True).acquire()
    assert refused.value.place == str(tmp_path)
    first.release()
    second = RoleLock(tmp_path, "supervisor", whole=True)
    assert second.acquire() == 1
    second.release()


def test_a_lock_that_cannot_be_written_is_let_go(tmp_path: Path) -> None:
    """The epoch must be durable first; when it cannot be, the role is free for another try."""

    def fail(operation: str, path: Path | None, fd: int) -> None:
        if operation == "sync_data":
            raise OSError(28, "No space left on device")

    lock = RoleLock(tmp_path, "writer")
    set_observer(fail)
    try:
        with pytest.raises(OSError, match="No space"):
            lock.acquire()
    finally:
        set_observer(None)
    assert RoleLock(tmp_path, "writer").acquire() == 2


def test_a_damaged_epoch_does_not_stop_a_start(tmp_path: Path) -> None:
    """Whatever lies in the file, the role can be taken."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "writer").write_bytes(b"\xffgarbage")
    assert RoleLock(tmp_path, "writer").acquire() == 1
