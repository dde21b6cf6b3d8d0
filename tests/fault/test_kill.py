"""kill -9 at random under load, and at the Nth system call of the intake."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest

from fault.conftest import MakeServer
from support.faults import goes_red, kill_at_random, needs_strace, pids, role_pid, standin, wait_intake
from support.ledger import Ledger, Load
from support.server import Server, wait_for
from support.trace import strace

Note = Callable[[str, int, str], None]
SMALL_SEGMENTS = '[journal]\nsegment_size = "1MiB"\n'


def run_kills(server: MakeServer, rounds: int, note: Note, seed: int, workers: int = 1, **environment: str) -> None:
    ledger = Ledger()
    target = server(SMALL_SEGMENTS, environment=environment, workers=workers).start(wait=False)
    wait_intake(target)
    roles = ["intake", *(f"worker-{number}" for number in range(1, workers + 1) if workers > 1)]
    with Load(target, ledger, seed=seed, senders=2 + workers):
        kill_at_random(target, random.Random(seed), rounds, roles=roles)
    ledger.judge(target)
    among = " of the server, its writer or one of its workers" if workers > 1 else ""
    note(f"kill -9 at random under load{among}", rounds, f"{ledger.count()} events accepted, answers {dict(ledger.statuses)}")


@pytest.mark.timeout(600)
def test_kill_at_random(fault_server: MakeServer, note: Note) -> None:
    """Ten kill -9 of the whole server or of the intake, some while it starts: nothing is lost, repeated or out of order."""
    run_kills(fault_server, 10, note, seed=20261)


@pytest.mark.timeout(600)
def test_kill_at_random_with_workers(fault_server: MakeServer, note: Note) -> None:
    """Ten kill -9 of the server, of the writer or of one of two workers: nothing is lost, repeated, out of order, or refused and stored."""
    run_kills(fault_server, 10, note, seed=20264, workers=2)


@pytest.mark.slow_fault
@pytest.mark.timeout(3600)
def test_kill_at_random_with_workers_60(fault_server: MakeServer, note: Note) -> None:
    """Sixty."""
    run_kills(fault_server, 60, note, seed=20265, workers=2)


@pytest.mark.timeout(600)
def test_kill_at_random_with_workers_goes_red(fault_server: MakeServer, note: Note) -> None:
    """A writer that tells its workers before it writes is caught by the same suite."""
    with goes_red():
        run_kills(fault_server, 6, note, seed=20266, workers=2, **standin("early_answer"))
    note("kill -9 at random with workers, stand-in `early_answer`", 6, "goes red")


@pytest.mark.slow_fault
@pytest.mark.timeout(7200)
def test_kill_at_random_200(fault_server: MakeServer, note: Note) -> None:
    """Two hundred kills."""
    run_kills(fault_server, 200, note, seed=20262)


@pytest.mark.timeout(600)
def test_kill_at_random_goes_red(fault_server: MakeServer, note: Note) -> None:
    """A server that answers before it writes is caught by the same suite."""
    with goes_red():
        run_kills(fault_server, 2, note, seed=20263, **standin("early_answer"))
    note("kill -9 at random, stand-in `early_answer`", 2, "goes red")


def is_gone(server: Server, pid: int) -> bool:
    return pid not in pids(server)


NTH = [
    ("fdatasync", [2]),
    ("fdatasync", [1, 3, 5, 8]),
    ("pwrite64", [1, 3, 8]),
    ("rename,renameat,renameat2", [1, 2, 4]),
    ("fsync", [1, 3]),
]


def run_nth(fault_server: MakeServer, call: str, places: list[int], **environment: str) -> Ledger:
    ledger = Ledger()
    target = fault_server(SMALL_SEGMENTS, environment=environment).start(wait=False)
    wait_intake(target)
    with Load(target, ledger, batch=60, pad=400):
        for place in places:
            pid = role_pid(target, "intake")
            wait_intake(target)
            # `when` counts per thread: with renames and fsyncs in several, the first to get there dies for all.
            with strace([pid], "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={place}"):
                wait_for(partial(is_gone, target, pid), f"{call} {place} to kill the intake", 120)
        wait_intake(target)
    ledger.judge(target)
    return ledger


@needs_strace
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("call", "places"), [pytest.param(*NTH[0]), *(pytest.param(*row, marks=pytest.mark.slow_fault) for row in NTH[1:])]
)
def test_kill_at_nth_call(fault_server: MakeServer, note: Note, call: str, places: list[int]) -> None:
    """The intake dies in the middle of a write, sync or rename; the supervisor starts it again, and the oracle holds."""
    ledger = run_nth(fault_server, call, places)
    note(
        f"SIGKILL at {call.partition(',')[0]} number {', '.join(map(str, places))}",
        len(places),
        f"{ledger.count()} events accepted",
    )


@needs_strace
@pytest.mark.slow_fault
@pytest.mark.timeout(900)
def test_kill_at_nth_call_goes_red(fault_server: MakeServer, note: Note) -> None:
    """The same with a server that answers before it writes."""
    with goes_red():
        run_nth(fault_server, "fdatasync", [1, 2], **standin("early_answer"))
    note("SIGKILL at fdatasync, stand-in `early_answer`", 2, "goes red")
