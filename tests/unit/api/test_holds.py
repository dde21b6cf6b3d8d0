"""`/v1/holds`: who may do what, that each step is on record, and that a placing counts before its answer is out."""

from __future__ import annotations

from typing import Any

import pytest

from support.api_rig import Rig, event
from tallystick.archive.hold import Holds

BODY: dict[str, Any] = {"tenants": ["acme"], "query": "action:user.*", "reason": "case 7", "owner": "legal", "review": "2020-01-31"}


async def test_a_hold_from_placing_to_lifting(rig: Rig) -> None:
    """Each step is an event of the tenant and an entry of its account tree, which names neither query nor reason."""
    await rig.send("acme", [event(1), event(2), event(3, action="other.thing")])
    async with rig.client() as client:
        made = (await client.post("/v1/holds", json=BODY)).json()
        assert (made["tenants"], made["is_active"], made["is_overdue"], made["placed_by"]) == (["acme"], True, True, "root")
        assert f"hold {made['id']}: its review was due on 2020-01-31" in (await client.get("/v1/status")).json()["reasons"]
        report = (await client.get(f"/v1/holds/{made['id']}")).json()
        assert report["events"] == {"acme": 2}
        body = {"note": "still needed", "review": "2999-01-31"}
        reviewed = (await client.post(f"/v1/holds/{made['id']}/review", json=body)).json()
        assert (reviewed["is_overdue"], reviewed["reviews"][0]["note"]) == (False, "still needed")
        lifted = (await client.post(f"/v1/holds/{made['id']}/lift", json={"reason": "closed"})).json()
        assert (lifted["is_active"], lifted["lift_reason"]) == (False, "closed")
        for verb, again in (("lift", {"reason": "closed"}), ("review", body)):
            assert (await client.post(f"/v1/holds/{made['id']}/{verb}", json=again)).status_code == 409
        assert [hold["id"] for hold in (await client.get("/v1/holds")).json()["holds"]] == [made["id"]]
        found = (await client.get("/v1/events", params={"tenant": "acme", "query": "action:tallystick.hold.*"})).text
    assert all(f"tallystick.hold.{done}" in found for done in ("place", "report", "review", "lift"))
    rig.sealer.seal()
    handle = rig.deps.tenants.get("acme")
    assert handle is not None
    entries = (rig.config.data_dir / "trees" / handle.handle / "account" / "entries").read_text()
    assert entries.count('"type":"hold"') == 3
    assert "case 7" not in entries
    assert "user." not in entries


async def test_a_placing_counts_before_it_is_on_record(rig: Rig) -> None:
    """With an intake that does not answer the caller is told so, and the hold stands all the same; a lifting then does not count."""
    async with rig.client() as client:
        rig.door.is_down = True
        assert (await client.post("/v1/holds", json=BODY)).status_code == 503
        (hold,) = Holds(rig.config.data_dir).load()
        assert hold.is_active
        assert (await client.post(f"/v1/holds/{hold.id}/lift", json={"reason": "closed"})).status_code == 503
    assert Holds(rig.config.data_dir).load()[0].is_active


async def test_another_tenants_hold_does_not_exist(rig: Rig) -> None:
    """It is neither listed nor reported, and no hold is placed on a tenant that the key does not see."""
    async with rig.client() as client:
        made = (await client.post("/v1/holds", json={**BODY, "tenants": ["acme", "globex"]})).json()
    async with rig.client(rig.key("read", "operate", "approve", tenants=["globex"])) as client:
        assert (await client.get("/v1/holds")).json() == {"holds": []}
        assert (await client.get(f"/v1/holds/{made['id']}")).status_code == 404
        assert (await client.post(f"/v1/holds/{made['id']}/lift", json={"reason": "closed"})).status_code == 404
        assert (await client.post("/v1/holds", json=BODY)).status_code == 404


@pytest.mark.parametrize("change", [{"review": "2020-02-31"}, {"query": "action:(a OR"}, {"tenants": []}, {"reason": "x"}])
async def test_a_hold_that_cannot_be_meant_is_refused(rig: Rig, change: dict[str, Any]) -> None:
    """And nothing is kept of it."""
    async with rig.client() as client:
        assert (await client.post("/v1/holds", json={**BODY, **change})).status_code in (400, 422)
    assert Holds(rig.config.data_dir).load() == []
