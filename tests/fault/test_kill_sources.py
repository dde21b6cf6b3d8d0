"""kill -9 of the server while HEC, the Kubernetes webhook and signed hooks send, at each point of a request's way."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from functools import partial

import pytest

from fault.conftest import MakeServer
from support.faults import goes_red, needs_strace, pids, role_pid, standin, wait_intake, wait_until
from support.ledger import OURS, LedgerError
from support.server import ADMIN_KEY, Server
from support.source_ledger import CHANNEL, CLIENTS, CONFIGURATION, SourceLedger
from support.trace import strace

Note = Callable[[str, int, str], None]
POINTS = {
    "at random": "",
    "in the journal's write": "pwrite64:signal=KILL:when=2",
    "before the sync returns": "fdatasync:signal=KILL:when=2",
    "while answers are written": "write,writev,sendto,sendmsg:signal=KILL:when=30",
}


def run_points(fault_server: MakeServer, seed: int, **environment: str) -> list[tuple[str, str, str]]:
    """All clients at once; one kill at each point, after every source had records accepted. The judged table."""
    server = fault_server(CONFIGURATION, environment=environment).start(wait=False)
    wait_intake(server)
    ledger = SourceLedger(list(POINTS), next(iter(POINTS)))
    chance = random.Random(seed)
    with ledger.load(server, seed):
        for number, (point, fault) in enumerate(POINTS.items()):
            ledger.point = point
            wait_until(partial(_is_at_work, ledger, point), f"every source to be at work: {ledger.odd}")
            _kill(server, fault, chance)
            wait_intake(server)
            ledger.point = list(POINTS)[min(number + 1, len(POINTS) - 1)]
    return _judge(server, ledger)


def _is_at_work(ledger: SourceLedger, point: str) -> bool:
    accepted = ledger.accepted(point)
    return all(accepted.get(source, 0) >= 20 for source in CLIENTS)


def _kill(server: Server, fault: str, chance: random.Random) -> None:
    if not fault:
        time.sleep(chance.uniform(0, 0.5))
        server.kill()
        server.start(wait=False)
        return
    pid = role_pid(server, "intake")
    with strace([pid], "-e", f"trace={fault.partition(':')[0]}", "-e", f"inject={fault}"):
        wait_until(partial(_is_gone, server, pid), f"{fault} to kill the intake")


def _is_gone(server: Server, pid: int) -> bool:
    return pid not in pids(server)


def _judge(server: Server, ledger: SourceLedger) -> list[tuple[str, str, str]]:
    server.wait_api()
    with server.http.stream("GET", "/v1/export", params={"query": OURS}, timeout=300) as answer:
        lines = [json.loads(line) for line in answer.iter_lines() if line]
    table = ledger.judge(lines)
    asked = server.http.post(
        f"/services/collector/ack?channel={CHANNEL}", json={"acks": ledger.acks}, headers={"Authorization": f"Splunk {ADMIN_KEY}"}
    )
    known = asked.json()["acks"]
    if not ledger.acks or not all(known.values()):
        raise LedgerError(f"{len(ledger.acks)} acknowledgement ids, not all of them known after the kills")
    return table


@needs_strace
@pytest.mark.timeout(600)
def test_each_source_survives_each_kill(fault_server: MakeServer, note: Note) -> None:
    """Nothing accepted is lost, repeats are merged where an id allows, acknowledgements given out stay true; no cell is empty."""
    table = run_points(fault_server, seed=20264)
    assert {(source, point) for source, point, _ in table} == {(source, point) for source in CLIENTS for point in POINTS}
    print("\n".join(f"| {source} | {point} | {result} |" for source, point, result in table))
    note(
        "kill -9 while HEC, Kubernetes webhook and signed hooks send",
        len(POINTS),
        "; ".join(f"{source}, {point}: {result}" for source, point, result in table),
    )


@needs_strace
@pytest.mark.slow_fault
@pytest.mark.timeout(600)
def test_each_source_goes_red(fault_server: MakeServer, note: Note) -> None:
    """A server that answers before it writes is caught by the same suite."""
    with goes_red():
        run_points(fault_server, seed=20265, **standin("early_answer"))
    note("kill -9 while HEC and hooks send, stand-in `early_answer`", len(POINTS), "goes red")
