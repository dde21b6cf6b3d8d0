"""`/v1/reviews`: what is fixed at the start, who may sign, that each step is on record, and what becomes overdue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.api_rig import CONFIGURATION, Rig, event

SCHEDULES = """
[reviews.logins]
tenant = "acme"
query = "action:user.*"
every = "1s"
owner = "ana"
[reviews.later]
tenant = "acme"
every = "30d"
[reviews.nobody]
tenant = "unborn"
every = "1s"
"""


@pytest.fixture
async def scheduled(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig.open(tmp_path, CONFIGURATION + SCHEDULES)
    yield made
    await made.close()


async def test_a_review_from_start_to_sign_off(rig: Rig) -> None:
    """Counts what was received in its period; each step is an event and an entry, which holds neither query nor note."""
    await rig.send("acme", [event(1), event(2), event(3, action="other.thing")])
    async with rig.client() as client:
        body = {"tenant": "acme", "query": "action:user.*"}
        made = (await client.post("/v1/reviews", json=body)).json()
        assert (made["events"], made["sealed"], made["started_by"], made["signed_at"]) == (2, 3, "root", None)
        sign = {"outcome": "findings", "note": "u_2 has left", "next": "2020-01-31"}
        signed = (await client.post(f"/v1/reviews/{made['id']}/sign", json=sign)).json()
        assert (signed["outcome"], signed["note"], signed["signed_by"]) == ("findings", "u_2 has left", "root")
        assert (await client.post(f"/v1/reviews/{made['id']}/sign", json=sign)).status_code == 409
        assert (await client.get(f"/v1/reviews/{made['id']}")).json() == signed
        page = (await client.get("/v1/reviews")).json()
        assert page["reviews"] == [signed]
        assert [(one["query"], one["is_overdue"]) for one in page["due"]] == [("action:user.*", True)]
        assert any("review action:user.* (acme): due since" in one for one in (await client.get("/v1/status")).json()["reasons"])
        again = (await client.post("/v1/reviews", json=body)).json()
        assert (again["from"], again["events"]) == (signed["to"], 0)
        await client.post(f"/v1/reviews/{again['id']}/sign", json={"outcome": "clean", "note": "nothing new"})
        assert (await client.get("/v1/reviews")).json()["due"] == []
        found = (await client.get("/v1/events", params={"tenant": "acme", "query": "action:tallystick.review.*"})).json()["events"]
    assert [one["action"].rpartition(".")[2] for one in found] == ["sign", "start", "sign", "start"]
    rig.sealer.seal()
    tenant = rig.deps.tenants.get("acme")
    assert tenant is not None
    entries = (rig.config.data_dir / "trees" / tenant.handle / "account" / "entries").read_text()
    assert entries.count('"type":"review"') == 4
    assert "user." not in entries
    assert "u_2" not in entries
    assert b"u_2 has left" not in (rig.config.data_dir / "reviews" / "steps").read_bytes()


async def test_a_scheduled_review_becomes_overdue(scheduled: Rig) -> None:
    """A schedule counts from its tenant's making, then from its last sign-off; one of a tenant that is not there waits."""
    async with scheduled.client() as client:
        await scheduled.send("acme", [event(1)])
        due = {one["schedule"]: one for one in (await client.get("/v1/reviews")).json()["due"]}
        assert due["nobody"]["due_at"] is None
        assert (due["later"]["is_overdue"], due["later"]["every_seconds"]) == (False, 30 * 86_400)
        assert due["logins"]["due_at"] is not None
        made = (await client.post("/v1/reviews", json={"schedule": "logins"})).json()
        assert (made["query"], made["tenant"]) == ("action:user.*", "acme")
        refused = await client.post(
            f"/v1/reviews/{made['id']}/sign", json={"outcome": "clean", "note": "x y z", "next": "2030-01-01"}
        )
        assert refused.status_code == 422
        signed = (await client.post(f"/v1/reviews/{made['id']}/sign", json={"outcome": "clean", "note": "all known"})).json()
        due = {one["schedule"]: one for one in (await client.get("/v1/reviews")).json()["due"]}
        assert (due["logins"]["last_review"], due["logins"]["last_signed_at"]) == (made["id"], signed["signed_at"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"schedule": "nosuch"}, 404),
        ({"schedule": "logins", "tenant": "acme"}, 422),
        ({"tenant": "nosuch"}, 404),
        ({"tenant": "acme", "query": "(("}, 400),
        ({"tenant": "acme", "from": "yesterday"}, 400),
        ({"tenant": "acme", "from": "2999-01-01T00:00:00Z"}, 422),
    ],
)
async def test_what_is_no_review(scheduled: Rig, body: dict[str, str], status: int) -> None:
    """Each is refused with its reason, and nothing is begun."""
    async with scheduled.client() as client:
        answer = await client.post("/v1/reviews", json=body)
        assert answer.status_code == status, answer.text
        assert (await client.get("/v1/reviews")).json()["reviews"] == []


async def test_another_tenants_review_does_not_exist(rig: Rig) -> None:
    """It is not listed, not shown, and cannot be signed."""
    async with rig.client() as client:
        made = (await client.post("/v1/reviews", json={"tenant": "acme"})).json()
    async with rig.client(rig.key("read", "approve", tenants=["globex"])) as client:
        assert (await client.get("/v1/reviews")).json() == {"due": [], "reviews": []}
        assert (await client.get(f"/v1/reviews/{made['id']}")).status_code == 404
        sign = {"outcome": "clean", "note": "not mine"}
        assert (await client.post(f"/v1/reviews/{made['id']}/sign", json=sign)).status_code == 404
        assert (await client.post("/v1/reviews", json={"tenant": "acme"})).status_code == 404


async def test_a_step_that_is_not_on_record_does_not_count(rig: Rig) -> None:
    """With an intake that does not answer, neither a start nor a sign-off comes about."""
    async with rig.client() as client:
        made = (await client.post("/v1/reviews", json={"tenant": "acme"})).json()
        rig.door.is_down = True
        assert (await client.post("/v1/reviews", json={"tenant": "acme"})).status_code == 503
        sign = {"outcome": "clean", "note": "nothing found"}
        assert (await client.post(f"/v1/reviews/{made['id']}/sign", json=sign)).status_code == 503
        rig.door.is_down = False
        (only,) = (await client.get("/v1/reviews")).json()["reviews"]
    assert (only["id"], only["signed_at"]) == (made["id"], None)
