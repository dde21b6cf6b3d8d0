"""Schema contracts on a running server: a breach is refused with its place, quarantined, or only marked."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.server import Server, wait_for

_NDJSON = {"Content-Type": "application/x-ndjson"}
_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "properties": {
        "metadata": {"properties": {"amount": {"type": "integer"}}, "required": ["amount"]},
        "targets": {"minItems": 1},
    },
    "required": ["metadata", "targets"],
}
_CONFIGURATION = """
[seal]
interval = "50ms"
[catalog.contracts.refunds]
action = "invoice.refunded"
schema = "../refund.json"
[catalog.contracts.exports]
action = "export.*"
schema = "../refund.json"
shadow = true
[sources.billing]
type = "http"
mapping = "../billing.toml"
"""
_MAPPING = """
[envelope]
action = ["event"]
[actor]
type = [{ const = "user" }]
id = ["who"]
"""


@pytest.fixture
def server(make_server: Callable[[str], Server], tmp_path: Path) -> Server:
    (tmp_path / "refund.json").write_text(json.dumps(_SCHEMA))
    (tmp_path / "billing.toml").write_text(_MAPPING)
    return make_server(_CONFIGURATION).start()


def line(action: str, **members: Any) -> bytes:
    return json.dumps({"action": action, "actor": "u", **members}).encode() + b"\n"


_GOOD = line("invoice.refunded", metadata={"amount": 1}, targets=[{"type": "invoice", "id": "7"}])
_BAD = line("invoice.refunded", metadata={"amount": "s3cret"}, targets=[{"type": "invoice", "id": "8"}])


def test_a_breach_is_refused_with_its_place(server: Server) -> None:
    """422 at once, line and pointer, nothing stored, and the value that was sent is not in the answer."""
    answer = server.http.post("/v1/events", content=_GOOD + _BAD, headers=_NDJSON)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["line"], error["pointer"], error["code"]) == (2, "/metadata/amount", "contract_breach")
    assert "s3cret" not in answer.text
    good = server.http.post("/v1/events", content=_GOOD, headers=_NDJSON).json()
    assert (good["accepted"], good["receipts"][0]["ranges"]) == (1, [[0, 1]])


def test_a_breach_is_quarantined_where_that_is_the_way(server: Server) -> None:
    """By parameter, and at every mapped source; the good ones are stored."""
    answer = server.http.post("/v1/events?on_invalid=quarantine", content=_BAD + _GOOD, headers=_NDJSON).json()
    assert (answer["accepted"], [row["code"] for row in answer["quarantined"]]) == (1, ["contract_breach"])
    records = b'{"event":"invoice.refunded","who":"ann","amount":1}\n{"event":"invoice.sent","who":"ann"}\n'
    mapped = server.http.post("/v1/in/billing", content=records, headers=_NDJSON).json()
    assert (mapped["accepted"], [row["code"] for row in mapped["quarantined"]]) == (1, ["contract_breach"])
    kept = wait_for(lambda: server.http.get("/v1/quarantine").json()["records"], "quarantined records")
    assert {row["code"] for row in kept} == {"contract_breach"}


def test_a_shadow_contract_only_marks(server: Server) -> None:
    """The event is stored, can be found by the mark, and counted."""
    answer = server.http.post("/v1/events", content=line("export.done") + line("login"), headers=_NDJSON).json()
    assert answer["accepted"] == 2
    marked = wait_for(
        lambda: server.http.get("/v1/events", params={"query": 'ingest.flags:"contract:exports"'}).json()["events"],
        "the marked event",
    )
    assert [event["action"] for event in marked] == ["export.done"]
    assert 'tallystick_contract_breaches_total{contract="exports",mode="shadow"} 1.0' in server.http.get("/metrics").text


def test_a_quarantine_is_emptied_when_the_mapping_was_mended(server: Server, tmp_path: Path) -> None:
    """Counted by reason, replayed with one command after a reload, and once more without storing anything twice."""
    records = b'{"event":"invoice.sent","by":"ann"}\n{"event":"invoice.paid","by":"bob"}\n{"who":"ann"}\n'
    assert server.http.post("/v1/in/billing", content=records, headers=_NDJSON).json()["accepted"] == 0
    rows = wait_for(lambda: [json.loads(row) for row in server.cli("quarantine", "counts").stdout.splitlines()], "the counts")
    assert [(row["source"], row["mapping"], row["code"], row["waiting"]) for row in rows] == [
        ("billing", "../billing.toml", "field_missing", 3)
    ]
    (tmp_path / "billing.toml").write_text(_MAPPING.replace('["who"]', '["who", "by"]'))
    before = server.status()["config"]["hash"]
    server.config.write_text(server.config.read_text() + "# the mapping was mended\n")
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.status()["config"]["hash"] != before, "the reload")
    report = json.loads(server.cli("quarantine", "replay", "--source", "billing", check=1).stdout)
    assert (report["tried"], report["accepted"], len(report["failed"])) == (3, 2, 1)
    again = json.loads(server.cli("quarantine", "replay", "--source", "billing", "--code", "field_missing", check=1).stdout)
    assert (again["tried"], again["accepted"], len(again["failed"])) == (1, 0, 1)
    found = server.http.get("/v1/events", params={"query": "source.name:billing"}).json()["events"]
    assert {event["actor"]["id"] for event in found} == {"ann", "bob"}


def test_drift_is_told_by_source(server: Server) -> None:
    """The command line compares what a source sent before with what it sent since."""
    earlier = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    body = line("invoice.sent", occurred_at=earlier, metadata={"old": 1}) + line("invoice.paid", metadata={"new": 1})
    server.send_ok(body)
    wait_for(lambda: len(server.http.get("/v1/events", params={"query": "source.name:events"}).json()["events"]) == 2, "both")
    report = json.loads(server.cli("drift", "events", "--last", "1h", "--before", "1d").stdout)
    assert (report["new_fields"], report["vanished_fields"]) == ({"/metadata/new": 1.0}, {"/metadata/old": 1.0})
    assert (report["new_actions"], report["vanished_actions"]) == ({"invoice.paid": 1.0}, {"invoice.sent": 1.0})
    assert server.cli("drift", "nobody").stdout.startswith('{"source":"nobody","events_before":0')
