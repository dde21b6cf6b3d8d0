"""The order of system calls before an answer, from a trace of the running intake: P1 as the kernel saw it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from fault.conftest import MakeServer
from support.faults import goes_red, needs_strace, role_pid, standin, wait_intake
from support.ledger import Ledger
from support.server import ADMIN_KEY
from support.trace import Judged, judge_trace, traced

Note = Callable[[str, int, str], None]
pytestmark = needs_strace
CONNECTIONS = 4


def run_order(fault_server: MakeServer, trace: Path, requests: int, **environment: str) -> Judged:
    ledger = Ledger()
    target = fault_server('[journal]\nsegment_size = "1MiB"\n', environment=environment).start(wait=False)
    wait_intake(target)

    def send(sender: str) -> None:
        with httpx.Client(base_url=target.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=60) as client:
            for _ in range(requests // CONNECTIONS):
                assert ledger.send(client, *ledger.make(sender, 2, pad=4000)) == 200

    with traced(role_pid(target, "intake"), trace):
        threads = [threading.Thread(target=send, args=(f"o{number}",)) for number in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    judged = judge_trace(trace)
    trace.unlink()
    assert judged.answers == requests
    assert judged.new_segments >= requests // 500
    return judged


def check_order(fault_server: MakeServer, tmp_path: Path, note: Note, requests: int) -> None:
    judged = run_order(fault_server, tmp_path / "trace", requests)
    note(
        "order of system calls before each 2xx",
        requests,
        f"{judged.answers} answers, {judged.syncs} syncs, {judged.new_segments} new segments: frame written, fdatasync returned, "
        "name synced, then the answer",
    )


@pytest.mark.timeout(600)
def test_order_of_calls(fault_server: MakeServer, tmp_path: Path, note: Note) -> None:
    """Before each of 600 answers: last write of its frame, completed fdatasync of that file, and directory fsync of a new one."""
    check_order(fault_server, tmp_path, note, 600)


@pytest.mark.slow_fault
@pytest.mark.timeout(3600)
def test_order_of_calls_10000(fault_server: MakeServer, tmp_path: Path, note: Note) -> None:
    """The same for 10,000 answers."""
    check_order(fault_server, tmp_path, note, 10_000)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["lying_sync", pytest.param("early_answer", marks=pytest.mark.slow_fault)])
def test_order_of_calls_goes_red(fault_server: MakeServer, tmp_path: Path, note: Note, name: str) -> None:
    """A server that does not sync, or answers first, is seen in its trace."""
    with goes_red():
        run_order(fault_server, tmp_path / "trace", 20, **standin(name))
    note(f"order of system calls, stand-in `{name}`", 20, "goes red")
