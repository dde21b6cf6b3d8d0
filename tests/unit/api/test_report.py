"""`/v1/report`: counts as searches give them, proofs that check, parts as they are on record, and what it cannot show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from support.api_rig import Rig, event
from tallystick.evidence.entry import event_hashes
from tallystick.evidence.proof import check_proof, parse_proof
from tallystick.reports.framework import built_in
from tallystick.reports.page import assemble, render


async def make(rig: Rig, key: str | None = "admin", **params: Any) -> dict[str, Any]:
    async with rig.client(key) as client:
        answer = await client.get("/v1/report", params={"framework": "soc2", **params})
    assert answer.status_code == 200, answer.text
    lines = [msgspec.json.decode(line) for line in answer.text.splitlines()]
    assert lines[0]["parts"] == len(lines) - 1
    return assemble(lines)


def codes(report: dict[str, Any]) -> set[str]:
    return {one["code"] for one in report["limits"]}


async def test_counts_and_proofs(rig: Rig) -> None:
    """Each control counts what a search of its query finds; each sample is proved by its own text and the log's key."""
    await rig.send("acme", [event(n, category="authentication", outcome="failure" if n % 3 else "success") for n in range(1, 10)])
    report = await make(rig, tenant="acme", samples=2)
    assert [one["id"] for one in report["controls"]] == [one.id for one in built_in()["soc2"].controls]
    counts = {one["id"]: one["count"] for one in report["controls"]}
    assert (counts["CC6.1"], counts["CC6.1-denied"], counts["PI1.5"], counts["CC8.1"]) == (3, 6, 9, 0)
    vkeys = [one["vkey"] for one in report["parts"]["log"]["logs"]]
    samples = [one for control in report["controls"] for one in control["samples"]]
    assert len(samples) >= 6
    for sample in samples:
        checkpoint = check_proof(parse_proof(sample["proof"]), event_hashes([sample["line"].encode()]), vkeys)
        assert checkpoint.size > sample["index"]
    assert {"not_witnessed", "no_sequence", "no_statement", "no_drill", "no_review", "no_events", "clock"} <= codes(report)
    assert "gaps" not in codes(report)
    assert "CC6.1-denied" in render(report)
    async with rig.client() as client:
        found = (await client.get("/v1/events", params={"tenant": "acme", "query": "action:tallystick.export"})).json()["events"]
    assert [(one["metadata"]["format"], one["metadata"]["framework"]) for one in found] == [("report", "soc2")]
    assert rig.deps.open_exports == 0


async def test_what_was_done_in_the_period(rig: Rig) -> None:
    """Holds, reviews, keys and uses stand in it; another period has none of them."""
    await rig.send("acme", [event(1)])
    async with rig.client() as client:
        body = {"tenants": ["acme"], "query": "action:user.*", "reason": "case 7", "owner": "legal", "review": "2999-01-31"}
        hold = (await client.post("/v1/holds", json=body)).json()
        review = (await client.post("/v1/reviews", json={"tenant": "acme"})).json()
        await client.post(f"/v1/reviews/{review['id']}/sign", json={"outcome": "clean", "note": "nothing found"})
    report = await make(rig, tenant="acme")
    parts = report["parts"]
    assert [(one["id"], one["events"]) for one in parts["holds"]["holds"]] == [(hold["id"], 1)]
    assert [(one["id"], one["outcome"]) for one in parts["reviews"]["reviews"]] == [(review["id"], "clean")]
    uses = {one["action"]: one for one in parts["access"]["uses"]}
    assert uses["tallystick.hold.place"]["actors"] == {"root": 1}
    assert {one["owner"] for one in parts["access"]["keys"]} == {"root"}
    assert "no_review" not in codes(report)
    before = await make(rig, tenant="acme", **{"from": "2020-01-01T00:00:00Z", "to": "2020-02-01T00:00:00Z"})
    assert (before["parts"]["holds"]["holds"], before["parts"]["reviews"]["reviews"], before["parts"]["access"]["keys"]) == (
        [],
        [],
        [],
    )
    assert all(one["count"] == 0 for one in before["controls"])


async def test_what_the_accounts_say_of_backups_expiries_and_gaps(rig: Rig) -> None:
    """Entries of the period are in it, those of the server's own account too; a backup alone does not show that it can be restored."""
    await rig.send("acme", [event(1)])
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    old = "2020-01-01T00:00:00Z"
    for number, (tenant, entry) in enumerate(
        [
            ("_tallystick", {"type": "backup", "id": "b1", "at": now}),
            ("_tallystick", {"type": "backup", "id": "b0", "at": old}),
            (
                "acme",
                {"type": "expiry", "at": now, "class": "noise", "period": "1m", "count": 30, "ranges": [[0, 30]], "root": "x"},
            ),
            ("acme", {"type": "expiry", "at": now, "class": "noise", "month": "2020-01", "key": "destroyed"}),
            ("acme", {"type": "gap", "source": "network", "reason": "udp_dropped", "count": 5, "since": old, "until": now}),
            ("globex", {"type": "gap", "source": "network", "reason": "udp_dropped", "count": 7, "since": old, "until": now}),
        ]
    ):
        await rig.door.append_entry(tenant, f"test:{number}", entry)
    rig.sealer.seal()
    report = await make(rig, tenant="acme")
    parts = report["parts"]
    assert [one["id"] for one in parts["drills"]["entries"]] == ["b1"]
    assert (parts["retention"]["expired_events"], parts["retention"]["keys_destroyed"]) == (30, 1)
    assert parts["gaps"]["gaps"] == [{"tenant": "acme", "source": "network", "reason": "udp_dropped", "records": 5}]
    assert {"expired", "gaps", "no_drill"} <= codes(report)
    assert "no_backup" not in codes(report)
    assert "30 events expired" in render(report)


async def test_a_key_of_one_tenant_sees_that_tenant_alone(rig: Rig) -> None:
    """Neither the other's events nor the server's own log nor keys, and the report says what is left out."""
    await rig.send("acme", [event(1)])
    await rig.send("globex", [event(2, action="secret.thing", category="authentication")])
    report = await make(rig, rig.key("read", tenants=["acme"]))
    text = msgspec.json.encode(report).decode()
    assert report["tenants"] == ["acme"]
    assert "globex" not in text
    assert "secret.thing" not in text
    assert {"no_keys", "no_server_log"} <= codes(report)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"framework": "nosuch"},
        {"framework": "soc2", "samples": "26"},
        {"framework": "soc2", "from": "soon"},
        {"framework": "soc2", "from": "2999-01-01T00:00:00Z", "to": "2999-02-01T00:00:00Z"},
    ],
)
async def test_what_is_refused(rig: Rig, params: dict[str, str]) -> None:
    """With 400 and the parameter's name."""
    async with rig.client() as client:
        answer = await client.get("/v1/report", params=params)
    assert answer.status_code == 400, answer.text
