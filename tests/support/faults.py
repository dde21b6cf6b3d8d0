"""Means of hurting a running server: its processes, signals, limits, and disks that are full, cut off or swapped."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from support.ledger import LedgerError
from support.server import Server, wait_for
from support.trace import TraceError

STANDINS = Path(__file__).parents[1] / "fault" / "standins"
CLOCK_SOURCE = Path(__file__).parents[1] / "fault" / "clock.c"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and tracing need root")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")


def standin(name: str) -> dict[str, str]:
    """The environment of a server that is broken in that way (`fault/standins`)."""
    paths = [str(STANDINS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "TALLYSTICK_STANDIN": name}


@contextmanager
def goes_red() -> Iterator[None]:
    """The block must end in a broken promise; anything else fails."""
    with pytest.raises((LedgerError, TraceError)):
        yield


def children(pid: int) -> list[int]:
    """Child processes of one process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def role_pid(server: Server, role: str) -> int:
    """The process of one role, as soon as it runs."""

    def find() -> int:
        assert server.process is not None
        for child in children(server.process.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"\0%s\0" % role.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
        return 0

    return int(wait_for(find, f"a process of role {role}", 60))


def pids(server: Server) -> list[int]:
    """The supervisor and all roles."""
    assert server.process is not None
    return [server.process.pid, *children(server.process.pid)]


def signal_all(everybody: list[int], number: int) -> None:
    """A signal to each of these processes that is still there."""
    for pid in everybody:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_at_random(
    server: Server, chance: random.Random, rounds: int, life_s: float = 1.0, roles: Sequence[str] = ("intake",)
) -> None:
    """kill -9 of everything or of one of ``roles`` alone, ``rounds`` times; every fifth time while it starts."""
    for number in range(rounds):
        if number % 5 != 4:
            wait_intake(server)
        time.sleep(chance.uniform(0, life_s))
        if number % 3 == 2 or (number % 3 == 1 and len(roles) > 1):
            os.kill(role_pid(server, chance.choice(roles)), signal.SIGKILL)  # the supervisor starts it again
        else:
            server.kill()
            server.start(wait=False)
    wait_intake(server)


def wait_intake(server: Server, timeout_s: float = 120.0, status: int = 200) -> None:
    """Until ready answers ``status``, whatever the api process does."""

    def is_so() -> bool:
        assert server.process is not None
        if server.process.poll() is not None:
            raise LedgerError(f"the server ended with {server.process.returncode}:\n{server.tail()}")
        with contextlib.suppress(httpx.TransportError):
            return server.http.get("/healthz/ready").status_code == status
        return False

    wait_until(is_so, f"ready to answer {status}\n{server.tail(1500)}", timeout_s)


class FakeClock:
    """The wall clock of every process that runs in ``environment``; it jumps at once in all of them."""

    def __init__(self, directory: Path) -> None:
        library, self._file = directory / "clock.so", directory / "clock"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(CLOCK_SOURCE), "-ldl"], check=True)
        self._file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "TALLYSTICK_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """Jump to ``seconds`` after the real time."""
        with self._file.open("r+b") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


@contextmanager
def mounted(place: Path, *arguments: str) -> Iterator[Path]:
    """`mount ARGUMENTS PLACE`, and its end, also when the block fails."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *arguments, str(place)], check=True, capture_output=True)
    try:
        yield place
    finally:
        _unmount(place)


def _unmount(place: Path) -> None:
    def is_gone() -> bool:
        return subprocess.run(["umount", str(place)], capture_output=True).returncode == 0

    wait_for(is_gone, f"{place} to be unmounted", 30, 0.2)


def make_ext4(image: Path, size_mib: int) -> None:
    """An empty ext4 in a sparse file."""
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)], check=True)


def cut_power(server: Server, image: Path, snapshot: Path) -> None:
    """Copy the disk as it is under a stopped server, then kill it: what was not synced is not in the copy."""
    everybody = pids(server)
    signal_all(everybody, signal.SIGSTOP)
    subprocess.run(["cp", "--sparse=always", str(image), str(snapshot)], check=True)
    signal_all(everybody, signal.SIGKILL)  # one that was stopped while it started does not die with its parent yet
    server.kill()


def fill(place: Path, leave: int = 0) -> Path:
    """A ballast file over all free bytes of a file system but ``leave``."""
    ballast = place / "ballast"
    with ballast.open("ab") as file:
        while (free := _free(place)) > leave:
            try:
                os.posix_fallocate(file.fileno(), 0, file.seek(0, 2) + min(free - leave, 1 << 20))
            except OSError:
                break
    return ballast


def _free(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    """As `wait_for`, but what does not come is a broken promise."""
    try:
        wait_for(condition, what, timeout_s)
    except AssertionError as error:
        raise LedgerError(str(error)) from None
