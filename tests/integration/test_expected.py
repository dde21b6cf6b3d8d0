"""A source that is expected and says nothing, on a real server: in status, metrics and the console, over a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.server import Server, wait_for
from support.target import event_text

TABLE = """
[sources.payroll]
type = "http"
tenant = "acme"
expect_every = "2s"
"""


def test_a_silent_source_is_told(make_server: Callable[[str], Server]) -> None:
    """Silent from the start, heard, silent again since its last event, and after a restart still since that."""
    server = make_server(TABLE).start()

    def row() -> dict[str, Any]:
        return dict(server.status()["sources"]["payroll"])

    wait_for(lambda: row()["silent_since"], "the silence")
    assert metric(server) > 2
    server.http.post("/v1/in/payroll", content=event_text(), headers={"Content-Type": "application/x-ndjson"}).raise_for_status()
    wait_for(lambda: row()["silent_since"] is None, "the source to be heard")
    last_at = row()["last_at"]
    wait_for(lambda: row()["silent_since"], "the next silence")
    assert row()["silent_since"] == last_at
    said = f"source payroll: silent since {last_at}, expected every 2 s"
    assert said in server.status()["reasons"]
    assert said in server.http.get("/status").text
    assert server.status()["ready"]
    server.stop()
    server.start()
    wait_for(lambda: row()["silent_since"], "the silence to be known")
    assert row()["silent_since"] == last_at


def metric(server: Server) -> float:
    lines = server.http.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith('tallystick_source_silent_seconds{source="payroll"}')).split()[1])
