"""The faults that every source which reads from a broker or a database must stand: our server is killed while it reads."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

from support.ledger import Ledger
from support.server import Server, wait_for

KILLS = 4
BATCHES = 40
BATCH = 250


def kill_while_reading(server: Server, ledger: Ledger, publish: Callable[[list[bytes]], None], source: str, seed: int) -> None:
    """``publish`` puts 10,000 events into the broker, in parts; meanwhile the server is killed and started again, and ends drained.

    What the broker took counts as accepted: nobody but us could lose it any more.
    """
    chance = random.Random(seed)
    kill_after = sorted(chance.sample(range(2, BATCHES), KILLS))
    server.start()
    for number in range(BATCHES):
        before = _taken(server, source) if number in kill_after else 0
        ids, body = ledger.make("s", BATCH)
        publish(body.split(b"\n"))
        for name in ids:
            ledger.events[name].is_accepted = True
        if number in kill_after:
            wait_for(lambda before=before: _taken(server, source) > before, "the source to read", every_s=0.005)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.05))
            server.kill()
            server.start(wait=False)
            server.wait_ready()
    wait_for(lambda: _stored(server) >= BATCHES * BATCH, "the source to read all", timeout_s=90)
    ledger.judge(server)


def _taken(server: Server, source: str) -> int:
    row = server.status()["sources"][source]
    return int(row["accepted"]) + int(row["duplicates"])


def _stored(server: Server) -> int:
    """Events in the log, whatever life of the server took them; a repeat is stored once."""
    return sum(int(row["accepted"]) for name, row in server.status()["tenants"].items() if not name.startswith("_"))


def exported(server: Server, query: str = "NOT action:tallystick.*") -> list[dict[str, object]]:
    """All events, in order."""
    with server.http.stream("GET", "/v1/export", params={"query": query}, timeout=60) as answer:
        assert answer.status_code == 200
        return [json.loads(line) for line in answer.iter_lines() if line]
