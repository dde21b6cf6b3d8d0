"""Two instances, locks, signals under load, limits of descriptors and memory, jumps of the clock, crashes while starting."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fault.conftest import MakeServer
from support.faults import FakeClock, goes_red, needs_compiler, pids, role_pid, standin, wait_intake, wait_until
from support.ledger import Ledger, LedgerError, Load

Note = Callable[[str, int, str], None]
GRACE_S = 10.0


def run_second(fault_server: MakeServer, *, unlocked: bool = False, **environment: str) -> Ledger:
    """A second one is started while the first runs; ``unlocked``: after somebody deleted the lock files."""
    ledger = Ledger()
    target = fault_server(environment=environment).start(wait=False)
    wait_intake(target)
    with Load(target, ledger):
        if unlocked:
            shutil.rmtree(target.data / "locks")
        log = (target.directory / "second.log").open("wb")
        command = [sys.executable, "-c", "from tallystick.cli.main import run; run()", "up", "--config", str(target.config)]
        second = subprocess.Popen(command, stdout=log, stderr=log, env=target.full_environment(), cwd=target.directory)
        try:
            code = second.wait(30)
        except subprocess.TimeoutExpired:
            raise LedgerError("a second instance runs on the same directory") from None
        finally:
            second.kill()
            second.wait()
            log.close()
        if code != 3:
            raise LedgerError(f"a second instance ended with {code}")
        wait_intake(target)
    target.kill()
    target.start(wait=False)  # the lock of a killed server is stale, and stops nobody
    ledger.judge(target)
    return ledger


@pytest.mark.timeout(600)
def test_two_instances(fault_server: MakeServer, note: Note) -> None:
    """A second `up` on the same directory ends with 3 and disturbs nothing; after kill -9 the lock holds nobody up."""
    run_second(fault_server)
    note("second instance on the same directory; stale lock after kill -9", 1, "exit 3; the first goes on; restart at once")


@pytest.mark.slow_fault
@pytest.mark.timeout(600)
def test_two_instances_without_lock_files(fault_server: MakeServer, note: Note) -> None:
    """With the lock files deleted under the first, the second still ends with 3: the data directory itself is locked."""
    run_second(fault_server, unlocked=True)
    note("second instance after `rm -r locks` under the first", 1, "exit 3; the first goes on; restart at once")


@pytest.mark.slow_fault
@pytest.mark.timeout(600)
def test_two_instances_goes_red(fault_server: MakeServer, note: Note) -> None:
    """Without locks the second one runs."""
    with goes_red():
        run_second(fault_server, **standin("no_lock"))
    note("second instance, stand-in `no_lock`", 1, "goes red")


def run_signal(fault_server: MakeServer, number: int, rounds: int, **environment: str) -> Ledger:
    ledger = Ledger()
    target = fault_server(environment=environment)
    for life in range(rounds):
        target.start(wait=False)
        wait_intake(target)
        assert target.process is not None
        with Load(target, ledger, seed=life, senders=6):
            before = ledger.count()
            wait_until(lambda before=before: ledger.count() > before + 200, "events to be accepted")  # type: ignore[misc]
            started = time.monotonic()
            target.process.send_signal(number)
            code = target.process.wait(60)
            seconds = time.monotonic() - started
        if code != 0 or seconds > GRACE_S + 2:
            raise LedgerError(f"ended with {code} after {seconds:.1f} s")
    target.start(wait=False)
    ledger.judge(target)
    return ledger


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow_fault)], ids=["TERM", "INT"])
def test_stopped_under_load(fault_server: MakeServer, note: Note, number: signal.Signals) -> None:
    """Each request in flight is accepted and durable, or refused; the exit comes within the grace period with code 0."""
    ledger = run_signal(fault_server, number, 2)
    note(f"{number.name} under load", 2, f"exit 0 within {GRACE_S:.0f} s; answers {dict(ledger.statuses)}")


@pytest.mark.slow_fault
@pytest.mark.timeout(600)
def test_stopped_under_load_goes_red(fault_server: MakeServer, note: Note) -> None:
    """A server that answers first and stores later loses what was in between."""
    with goes_red():
        run_signal(fault_server, signal.SIGTERM, 1, **standin("early_answer"))
    note("SIGTERM under load, stand-in `early_answer`", 1, "goes red")


@pytest.mark.slow_fault
@pytest.mark.timeout(600)
def test_second_signal(fault_server: MakeServer, note: Note) -> None:
    """Two SIGTERM at once end everything without waiting, as kill -9 would: the oracle holds."""
    ledger = Ledger()
    target = fault_server().start(wait=False)
    wait_intake(target)
    assert target.process is not None
    everybody = pids(target)
    with Load(target, ledger):
        wait_until(lambda: ledger.count() > 200, "events to be accepted")
        target.process.terminate()
        time.sleep(0.05)
        target.process.terminate()
        target.process.wait(30)
    assert not [pid for pid in everybody if Path(f"/proc/{pid}").exists()]
    target.start(wait=False)
    ledger.judge(target)
    note("second SIGTERM under load", 1, f"{ledger.count()} events accepted")


@pytest.mark.slow_fault
@pytest.mark.timeout(1800)
def test_crash_while_starting(fault_server: MakeServer, note: Note) -> None:
    """kill -9 within the first three seconds of thirty starts: recovery can be repeated, salvage is not doubled."""
    ledger = Ledger()
    chance = random.Random(3)
    target = fault_server().start(wait=False)
    wait_intake(target)
    with Load(target, ledger):
        wait_until(lambda: ledger.count() > 500, "events to be accepted")
        for _ in range(30):
            target.kill()
            target.start(wait=False)
            time.sleep(chance.uniform(0, 3))
        wait_intake(target)
    ledger.judge(target)
    salvaged = len(list((target.data / "salvage").glob("*"))) if (target.data / "salvage").exists() else 0
    assert salvaged <= 31
    note("kill -9 within 3 s of a start", 30, f"{ledger.count()} events accepted, {salvaged} files of salvage")


def run_limited(fault_server: MakeServer, limit: Callable[[int], None], free: Callable[[int], None], **environment: str) -> Ledger:
    """The intake alone gets into want, under load, and out of it again."""
    ledger = Ledger()
    target = fault_server('[journal]\nsegment_size = "1MiB"\n', environment=environment).start(wait=False)
    wait_intake(target)
    with Load(target, ledger, senders=4, pad=600):
        wait_until(lambda: ledger.count() > 300, "events to be accepted")
        pid = role_pid(target, "intake")
        limit(pid)
        with Load(target, ledger, senders=12, batch=400, pad=600, seed=2):
            time.sleep(6)
        if Path(f"/proc/{pid}").exists():
            free(pid)
        wait_intake(target)
        before = ledger.count()
        wait_until(lambda: ledger.count() > before + 200, "intake to go on by itself")
    ledger.judge(target, timeout_s=90, excused=frozenset({500}))
    return ledger


def _limit_files(pid: int) -> None:
    used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, hard))


def _free_files(pid: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def _limit_memory(pid: int) -> None:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 20), resource.RLIM_INFINITY))


def _free_memory(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _limit_file_size(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (256 << 10, resource.RLIM_INFINITY))  # a quarter of a segment: EFBIG


def _free_file_size(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


LIMITS = {
    "descriptors": (_limit_files, _free_files),
    "memory": (_limit_memory, _free_memory),
    "file size": (_limit_file_size, _free_file_size),
}


@pytest.mark.slow_fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", LIMITS)
def test_limits(fault_server: MakeServer, note: Note, kind: str) -> None:
    """The intake has no more descriptors, or no more memory, for some seconds: refusals at most, and it heals."""
    ledger = run_limited(fault_server, *LIMITS[kind])
    note(f"intake without free {kind} for 6 s", 1, f"answers {dict(ledger.statuses)}")


@pytest.mark.slow_fault
@pytest.mark.timeout(900)
def test_limits_go_red(fault_server: MakeServer, note: Note) -> None:
    """A server that says yes to what its journal could not open a file for is caught."""
    with goes_red():
        run_limited(fault_server, *LIMITS["descriptors"], **standin("yes_to_all"))
    note("intake without free descriptors, stand-in `yes_to_all`", 1, "goes red")


JUMPS = ("+2h", "-3h", "+40d", "-400d")


def run_jumps(fault_server: MakeServer, tmp_path: Path, **environment: str) -> Ledger:
    """The wall clock of all processes jumps while they run; the monotonic clock goes on."""
    ledger = Ledger()
    clock = FakeClock(tmp_path)
    target = fault_server(environment={**clock.environment, **environment}).start(wait=False)
    wait_intake(target)
    with Load(target, ledger):
        for jump in JUMPS:
            before = ledger.count()
            wait_until(lambda before=before: ledger.count() > before + 300, "events to be accepted", 60)  # type: ignore[misc]
            clock.set(int(jump[:-1]) * {"h": 3600, "d": 86_400}[jump[-1]])
            time.sleep(1.5)
    ledger.judge(target, timeout_s=60)  # with the clock set back
    return ledger


@needs_compiler
@pytest.mark.slow_fault
@pytest.mark.timeout(900)
def test_clock_jumps(fault_server: MakeServer, tmp_path: Path, note: Note) -> None:
    """Two hours ahead, three back, forty days ahead, four hundred back, under load: time is data, and nothing waits for it."""
    ledger = run_jumps(fault_server, tmp_path)
    note(f"jumps of the wall clock: {', '.join(JUMPS)}", len(JUMPS), f"{ledger.count()} events accepted")


@needs_compiler
@pytest.mark.slow_fault
@pytest.mark.timeout(900)
def test_clock_jumps_go_red(fault_server: MakeServer, tmp_path: Path, note: Note) -> None:
    """A server that measures its waits with the wall clock stands still."""
    with goes_red():
        run_jumps(fault_server, tmp_path, **standin("wall_clock"))
    note("jumps of the wall clock, stand-in `wall_clock`", len(JUMPS), "goes red")
