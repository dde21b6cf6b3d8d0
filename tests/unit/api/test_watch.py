"""The watcher of the pipeline on real parts: alarms in the server's own log, each once over crashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from support.api_rig import CONFIGURATION, Rig
from tallystick.api.watch import AlarmWatch
from tallystick.telemetry import publish_status, read_status

QUICK = CONFIGURATION + '\n[alarms]\nraise_after = "0s"\nclear_after = "0s"\n'


async def own_events(rig: Rig) -> list[dict[str, Any]]:
    async with rig.client() as client:
        answer = await client.get(
            "/v1/events", params={"tenant": "_tallystick", "query": "action:tallystick.alarm.*", "order": "asc"}
        )
    return [event for event in answer.json()["events"] if event["metadata"]["alarm"] == "destination disk"]


def dispatcher(rig: Rig, state: str, reason: str = "") -> None:
    rows = {name: {"state": "running", "reason": ""} for name in ("disk", "hook")}
    publish_status(
        rig.config.data_dir, "dispatcher", {"reason": None, "destinations": rows | {"disk": {"state": state, "reason": reason}}}
    )


async def test_a_parked_destination_is_an_alarm_until_it_runs(tmp_path: Path) -> None:
    """Raised with what is wrong, cleared when it is over; both for whoever sees the server, in status too."""
    rig = Rig.open(tmp_path, QUICK)
    try:
        dispatcher(rig, "parked", "HTTP 403")
        watch = AlarmWatch(rig.deps)
        await watch.step()
        await watch.step()
        (raised,) = await own_events(rig)
        assert (raised["action"], raised["severity"], raised["reason"]) == ("tallystick.alarm.raised", 4, "parked, HTTP 403")
        async with rig.client() as client:
            assert "destination disk" in (await client.get("/v1/status")).json()["alarms"]
        async with rig.client(rig.key("read", tenants=["acme"])) as client:
            assert (await client.get("/v1/status")).json()["alarms"] == {}
        dispatcher(rig, "running")
        await watch.step()
        assert [event["action"] for event in await own_events(rig)] == ["tallystick.alarm.raised", "tallystick.alarm.cleared"]
    finally:
        await rig.close()


async def test_an_alarm_waits_for_the_intake_and_a_repeat_is_stored_once(tmp_path: Path) -> None:
    """Nothing takes events, the process dies, and dies again between handing over and noting it: the same event, once."""
    rig = Rig.open(tmp_path, QUICK)
    try:
        dispatcher(rig, "parked", "x")
        watch = AlarmWatch(rig.deps)
        rig.door.is_down = True
        await watch.step()
        assert "wait for the intake" in (read_status(rig.config.data_dir, "alarms") or {})["reason"]
        rig.door.is_down = False
        assert await own_events(rig) == []
        saved = msgspec.json.encode(AlarmWatch(rig.deps).alarms.state)
        await AlarmWatch(rig.deps).step()
        late = AlarmWatch(rig.deps)
        late.alarms.state = msgspec.json.decode(saved, type=type(late.alarms.state))
        await late.step()
        assert len(await own_events(rig)) == 1
    finally:
        await rig.close()
