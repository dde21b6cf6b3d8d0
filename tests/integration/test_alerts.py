"""Alert rules on a real server that is killed while it judges: each alert once, searchable, and delivered like any event."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support.faults import role_pid, wait_intake
from support.server import Server, wait_for
from support.target import event

CONFIGURATION = """
[seal]
interval = "50ms"
root_interval = "500ms"
[alerts]
rules = ["rules.toml"]
[destinations.pager]
type = "file"
path = "pager.jsonl"
where = "action:tallystick.alert AND severity:>=4"
"""
RULES = """
[[rules]]
name = "export"
title = "Everything was exported"
severity = "high"
query = "action:data.export"
kind = "match"
[[rules]]
name = "denials"
title = "Five denials of one person"
severity = "low"
query = "outcome:denied"
kind = "threshold"
group = ["actor"]
count = 5
window = "1h"
"""
ROUNDS = 6


@pytest.mark.timeout(240)
def test_each_alert_is_there_once_over_kills(tmp_path: Path) -> None:
    """Whatever is killed between the events that make up an alert: its rule remembers, and a repeat after the crash is merged."""
    (tmp_path / "rules.toml").write_text(RULES)
    server = Server(tmp_path, CONFIGURATION).start()
    try:
        for turn in range(ROUNDS):
            send(server, [event(action="data.export", actor=f"u_{turn}"), *denials(turn, 3)])
            if turn % 2:
                server.kill()
                server.start(wait=False)
            else:
                os.kill(role_pid(server, "archiver"), signal.SIGKILL)  # which has the follower of the rules
            wait_intake(server)
            send(server, denials(turn, 2))
        expected = Counter({"export": ROUNDS, "denials": ROUNDS})
        wait_for(lambda: rules_of(alerts(server)) == expected, f"the alerts; there are {rules_of(alerts(server))}", 60)
        exports = [alert for alert in alerts(server) if alert["metadata"]["rule"] == "export"]
        assert {alert["metadata"]["actor"]["id"] for alert in exports} == {f"u_{turn}" for turn in range(ROUNDS)}
        wait_for(lambda: len(paged(server)) == ROUNDS, "the severe ones at their destination")
        assert rules_of(paged(server)) == Counter({"export": ROUNDS})
        wait_for(lambda: server.verify(check=None).returncode == 0, "verify to pass", 60, 1)
    finally:
        server.close()


def denials(turn: int, count: int) -> list[dict[str, Any]]:
    return [event(action="file.read", actor=f"d_{turn}", outcome="denied") for _ in range(count)]


def send(server: Server, events: list[dict[str, Any]]) -> None:
    """Until it is accepted; the events' own ids make a repeat harmless."""
    body = "\n".join(map(json.dumps, events)).encode()
    wait_for(lambda: server.send(body).status_code == 200, "the events to be accepted", 60)


def alerts(server: Server) -> list[dict[str, Any]]:
    answer = server.http.get("/v1/events", params={"query": "action:tallystick.alert", "limit": "100", "tenant": "default"})
    return list(answer.json().get("events", []))


def paged(server: Server) -> list[dict[str, Any]]:
    path = server.directory / "pager.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rules_of(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(alert["metadata"]["rule"] for alert in found)
