"""Producers' numbers in a real server: what is missing, repeated and restarted is in the account, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from support.faults import role_pid, wait_intake
from support.server import Server, wait_for

_SETTINGS = """workers = {workers}
[completeness]
patience = "1s"
[transforms.quiet]
type = "filter"
drop = "action:noise.heard"
[pipeline]
transforms = ["quiet"]
"""


def numbered(numbers: list[int], *, producer: str = "billing", epoch: int = 1, **changes: Any) -> bytes:
    """One event for each number, named by it; ``changes`` are of all of them."""
    events = [
        {
            "id": f"{producer}-{epoch}-{number}",
            "action": "invoice.paid",
            "actor": {"type": "service", "id": "billing"},
            "producer": {"id": producer, "epoch": epoch, "seq": number},
            **changes,
        }
        for number in numbers
    ]
    return b"\n".join(json.dumps(event).encode() for event in events)


def gaps(server: Server) -> list[dict[str, Any]]:
    """The gap entries in all account trees."""
    found = []
    for path in server.data.glob("trees/*/account/entries"):
        found += [json.loads(line) for line in path.read_bytes().splitlines()]
    return [entry for entry in found if entry["type"] == "gap"]


def told(server: Server) -> list[tuple[str, str, int, list[list[int]]]]:
    return sorted((entry["producer"], entry["reason"], entry["epoch"], entry.get("ranges", [])) for entry in gaps(server))


def send(server: Server, body: bytes) -> None:
    """As a careful client: again and again until it is accepted."""

    def is_accepted() -> bool:
        try:
            answer = server.http.post(
                "/v1/events?on_invalid=quarantine", content=body, headers={"Content-Type": "application/x-ndjson"}
            )
        except httpx.TransportError:
            return False
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200

    wait_for(is_accepted, "a request to be accepted", 60)


@pytest.mark.parametrize("workers", [1, 2])
def test_findings_are_in_account_status_metrics_and_console(make_server: Callable[[str], Server], workers: int) -> None:
    """Holes, a repeat under another id, and a restart; what a filter took away or the quarantine holds is not missing."""
    server = make_server(_SETTINGS.format(workers=workers)).start()
    send(server, numbered([1, 2, 3, 7]))
    send(server, numbered([4], action="noise.heard"))
    send(server, numbered([5], action=""))
    send(server, numbered([7], id="another"))
    send(server, numbered([1, 2], epoch=2))
    send(server, numbered([1, 2], epoch=2))  # a retry: the same ids, merged
    expected = [("billing", "repeat", 1, [[7, 7]]), ("billing", "restart", 2, []), ("billing", "sequence", 1, [[6, 6]])]
    wait_for(lambda: told(server) == expected, f"the entries; there are {gaps(server)}", 60)
    found = {"default": {"repeat": 1, "restart": 1, "sequence": 1}}
    wait_for(lambda: server.status()["completeness"]["found"] == found, "the status page to say so")
    page = server.status()
    assert {entry["reason"] for entry in page["completeness"]["recent"]} == {"repeat", "restart", "sequence"}
    metrics = server.http.get("/metrics").text
    assert 'tallystick_producer_findings_total{reason="sequence"} 1.0' in metrics
    assert page["reasons"] == []
    server.drain(page["tenants"]["default"]["accepted"])
    # The root log introduces the tenant's keys with its next round; until then verify says that it cannot prove them.
    wait_for(lambda: server.verify(check=None).returncode == 0, "verify to pass", 60, 1)


@pytest.mark.timeout(240)
def test_kills_neither_hide_nor_invent_a_gap(make_server: Callable[[str], Server]) -> None:
    """Forty requests with known holes while everything, the intake alone, or the archiver alone is killed (-9), twelve times."""
    server = make_server(_SETTINGS.format(workers=1)).start()
    chance = random.Random(20260402)
    expected: list[tuple[str, str, int, list[list[int]]]] = []
    next_number = 1
    for request in range(40):
        send(server, numbered(list(range(next_number, next_number + 5))))
        next_number += 5
        if request % 4 == 3:
            expected.append(("billing", "sequence", 1, [[next_number, next_number + 1]]))
            next_number += 2
        if request % 10 in (2, 5, 8):
            victim = chance.choice(["all", "intake", "archiver"])
            if victim == "all":
                server.kill()
                server.start(wait=False)
            else:
                os.kill(role_pid(server, victim), signal.SIGKILL)
            wait_intake(server)
    send(server, numbered([next_number]))

    def numbers() -> set[int]:
        return {number for entry in gaps(server) for first, last in entry.get("ranges", []) for number in range(first, last + 1)}

    holes = {number for _, _, _, ranges in expected for first, last in ranges for number in range(first, last + 1)}
    wait_for(lambda: numbers() >= holes, f"every hole to be on record; there are {numbers()} of {holes}", 60, 0.2)
    assert numbers() == holes
    assert {entry["reason"] for entry in gaps(server)} == {"sequence"}
    assert sum(entry["count"] for entry in gaps(server)) == len(holes)
    server.kill()
    server.start()
    found = {"default": {"sequence": len(holes)}}
    wait_for(lambda: server.status()["completeness"]["found"] == found, "the status page to say so")
