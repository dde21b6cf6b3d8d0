"""Retention of a running server, in seconds: what is past its period goes, with a certificate, and verify holds."""

from __future__ import annotations

import json
from pathlib import Path

from support.server import Server, wait_for
from support.target import event

CONFIGURATION = """
[data]
reserve = "1MiB"
free_min = "1MiB"
[journal]
segment_size = "4MiB"
[seal]
root_interval = "100ms"
heartbeat = "300ms"
[archive]
max_age = "500ms"
[retention]
interval = "300ms"
brake_percent = 100
[retention.classes.standard]
period = "3s"
[retention.classes.long]
period = "400d"
where = "action:keep.*"
"""


def test_what_is_past_its_period_goes_and_verify_holds(tmp_path: Path) -> None:
    """Search finds only what is kept, over a kill; the certificate counts what went; the journal's copy is no excuse to fail."""
    server = Server(tmp_path, CONFIGURATION).start()
    try:
        lines = [event(action="gone.soon"), event(action="keep.this"), event(action="gone.soon")]
        server.send_ok("\n".join(json.dumps(line) for line in lines).encode())

        def found() -> list[str]:
            page = server.http.get("/v1/events", params={"tenant": "default", "query": "action:(gone.* OR keep.*)"}).json()
            return sorted(item["action"] for item in page["events"])

        assert found() == ["gone.soon", "gone.soon", "keep.this"]
        server.kill()
        server.start()
        wait_for(lambda: found() == ["keep.this"], "expiry")
        page = server.http.get("/v1/retention", params={"tenant": "default"}).json()
        assert [line["events"] for line in page["plan"] if line["class"] == "long"] == [1]
        # The sums are told at the next look, a moment after the events are gone.
        wait_for(lambda: server.http.get("/v1/retention").json()["expired_events"] >= 2, "the sums")
        assert page["brake"] is None
    finally:
        server.stop()
    server.verify()
    server.close()
