"""`/v1/alerts`: states told by the log, changes on record, and nobody else's alerts."""

from __future__ import annotations

from typing import Any

from support.api_rig import Rig, event
from tallystick.api import alerts as api_alerts


def alert(number: int, **members: Any) -> dict[str, Any]:
    """An alert as the follower of the rules appends it."""
    return {
        "id": f"alert:denials:{number}",
        "action": "tallystick.alert",
        "category": "system",
        "severity": 4,
        "actor": {"type": "system", "id": "tallystick", "name": "Tallystick"},
        "targets": [{"type": "rule", "id": "denials", "name": "Denied twenty times"}],
        "reason": "Somebody tries.",
        "metadata": {
            "rule": "denials", "kind": "threshold", "severity": "high", "group": {"actor": f"u_{number}"}, "count": 20,
            "first_at": "2026-03-04T05:06:07Z", "last_at": "2026-03-04T05:16:07Z", "events": ["e1", "e2"], "attack": ["T1078"],
            "actor": {"type": "user", "id": f"u_{number}"}, "action": "file.read",
        },
        **members,
    }  # fmt: skip


async def raised(rig: Rig, tenant: str, *numbers: int) -> None:
    await rig.door.append_events(tenant, [alert(number) for number in numbers])


async def test_an_alert_from_raising_to_reopening(rig: Rig) -> None:
    """Each step changes what is listed, is an event in the tenant's log with note and person, and is refused a second time."""
    await raised(rig, "acme", 1, 2)
    async with rig.client() as client:
        listed = (await client.get("/v1/alerts")).json()
        assert [(one["id"], one["state"], one["changed_at"]) for one in listed["alerts"]] == [
            ("alert:denials:2", "open", None),
            ("alert:denials:1", "open", None),
        ]
        assert listed["alerts"][0]["group"] == {"actor": "u_2"}
        path = "/v1/alerts/alert:denials:1"
        acked = (await client.post(f"{path}/acknowledge", json={"note": "on it"})).json()
        assert (acked["state"], acked["by"], acked["note"]) == ("acknowledged", "root", "on it")
        again = await client.post(f"{path}/acknowledge", json={})
        assert (again.status_code, again.json()["code"], again.json()["detail"]) == (
            409,
            "alert_state",
            "this alert is acknowledged, by root",
        )
        for state, ids in (("open", [2]), ("acknowledged", [1]), ("closed", [])):
            found = (await client.get("/v1/alerts", params={"state": state})).json()
            assert [one["id"] for one in found["alerts"]] == [f"alert:denials:{number}" for number in ids]
        assert (await client.post(f"{path}/close", json={"note": "a test of ours"})).json()["state"] == "closed"
        assert (await client.post(f"{path}/reopen", json={})).json()["state"] == "open"
        shown = (await client.get(path)).json()
        assert [(step["state"], step["note"]) for step in shown["history"]] == [
            ("acknowledged", "on it"),
            ("closed", "a test of ours"),
            ("open", ""),
        ]
        events = (await client.get("/v1/events", params={"tenant": "acme", "query": "action:tallystick.alert.*"})).json()["events"]
    closing = events[1]
    assert (closing["action"], closing["reason"], closing["actor"]["id"]) == ("tallystick.alert.close", "a test of ours", "root")
    assert (closing["severity"], closing["metadata"]["rule"], closing["metadata"]["group"]) == (4, "denials", {"actor": "u_1"})


async def test_what_a_sender_calls_an_alert_is_none(rig: Rig) -> None:
    """Neither an alert nor a change of state can be sent in: the source is the server's to name."""
    await raised(rig, "acme", 1)
    await rig.send("acme", [alert(7), event(8, action="tallystick.alert.close", metadata={"alert": "alert:denials:1"})])
    async with rig.client() as client:
        listed = (await client.get("/v1/alerts")).json()["alerts"]
        assert [(one["id"], one["state"]) for one in listed] == [("alert:denials:1", "open")]
        assert (await client.get("/v1/alerts/alert:denials:7")).status_code == 404
        assert (await client.post("/v1/alerts/e8/close", json={})).status_code == 404


async def test_another_tenants_alert_does_not_exist(rig: Rig) -> None:
    """Not to be listed, shown or closed; the answers are those of a missing one."""
    await raised(rig, "globex", 1)
    async with rig.client(rig.key("read", "operate", tenants=["acme"])) as client:
        assert (await client.get("/v1/alerts")).json()["alerts"] == []
        for path in ("alert:denials:1", "alert:denials:1?tenant=globex", "nosuch"):
            assert (await client.get(f"/v1/alerts/{path}")).status_code == 404
        assert (await client.post("/v1/alerts/alert:denials:1/close", json={})).json()["detail"] == "no such alert"
    async with rig.client() as client:
        assert (await client.get("/v1/alerts/alert:denials:1")).json()["state"] == "open"


async def test_alerts_of_the_server_itself_are_there_for_who_sees_the_server(rig: Rig) -> None:
    """In its own log, listed without naming it."""
    await raised(rig, "_tallystick", 1)
    async with rig.client() as client:
        assert [one["tenant"] for one in (await client.get("/v1/alerts")).json()["alerts"]] == ["_tallystick"]
        assert (await client.post("/v1/alerts/alert:denials:1/close", json={})).json()["state"] == "closed"


async def test_pages_with_a_state_miss_none_and_repeat_none(rig: Rig, monkeypatch: Any) -> None:
    """Every second is closed; page by page, with a bound on what one call looks through, each open one comes once."""
    monkeypatch.setattr(api_alerts, "SCANNED_MAX", 5)
    await raised(rig, "acme", *range(20))
    async with rig.client() as client:
        for number in range(0, 20, 2):
            await client.post(f"/v1/alerts/alert:denials:{number}/close", json={})
        found, cursor = [], None
        for _ in range(50):
            params = {"state": "open", "limit": "3", **({"cursor": cursor} if cursor else {})}
            page = (await client.get("/v1/alerts", params=params)).json()
            found += [one["id"] for one in page["alerts"]]
            cursor = page["next"]
            if cursor is None:
                break
    assert found == [f"alert:denials:{number}" for number in range(19, 0, -2)]


async def test_filters_and_bad_ones(rig: Rig) -> None:
    """Rule and severity; a note too long, an unknown state and an unknown member are refused."""
    await raised(rig, "acme", 1)
    async with rig.client() as client:
        for params, count in (
            ({"rule": "denials"}, 1),
            ({"rule": 'x" OR action:*'}, 0),
            ({"severity": "high"}, 1),
            ({"severity": "critical"}, 0),
        ):
            assert len((await client.get("/v1/alerts", params=params)).json()["alerts"]) == count, params
        assert (await client.get("/v1/alerts", params={"state": "asleep"})).status_code == 400
        for body in ({"note": "x" * 2_049}, {"notes": "x"}):
            assert (await client.post("/v1/alerts/alert:denials:1/close", json=body)).status_code == 400


async def test_nothing_changes_when_it_cannot_be_put_on_record(rig: Rig) -> None:
    """The intake does not answer: 503, and the alert is as it was."""
    await raised(rig, "acme", 1)
    async with rig.client() as client:
        rig.door.is_down = True
        assert (await client.post("/v1/alerts/alert:denials:1/close", json={})).status_code == 503
        rig.door.is_down = False
        assert (await client.get("/v1/alerts")).json()["alerts"][0]["state"] == "open"
