"""`/v1/retention`: the policy as configured, and the plan, each for who may see it."""

from __future__ import annotations

from pathlib import Path

from support.api_rig import CONFIGURATION, Rig, event
from tallystick.archive.archiver import Archiver
from tallystick.archive.expiry import RESUME
from tallystick.durable import StateFile
from tallystick.evidence.manifest import manifest_key_name
from tallystick.telemetry import publish_status

OWN = """
[retention.classes.standard]
period = "2s"
[tenants.acme]
retention = { standard = "9s" }
"""


async def test_the_plan_says_what_goes_when(tmp_path: Path) -> None:
    """Events, bytes and times by tenant, class and month; a bound key sees its tenant's alone."""
    rig = Rig.open(tmp_path, CONFIGURATION + OWN)
    try:
        await rig.send("acme", [event(1), event(2)])
        await rig.send("globex", [event(3)])
        rig.keys.signing_key(manifest_key_name(rig.config.server.name), create=True)
        archiver = Archiver(rig.config, rig.keys)
        archiver.start()
        while archiver.step():
            pass
        archiver.flush()
        async with rig.client() as client:
            page = (await client.get("/v1/retention", params={"tenant": "acme"})).json()
        async with rig.client(rig.key("read", tenants=["globex"])) as client:
            bound = (await client.get("/v1/retention")).json()
    finally:
        await rig.close()
    (standard,) = page["classes"]
    assert (standard["period"], standard["tenants"]) == ("2s", {"acme": "9s"})
    (line,) = page["plan"]
    assert (line["tenant"], line["class"], line["events"], line["first_index"], line["last_index"]) == ("acme", "standard", 2, 0, 1)
    assert line["bytes"] > 0
    assert line["expires_at"] is not None
    assert page["due_events"] == 0
    assert [found["tenant"] for found in bound["plan"]] == ["globex"]
    assert bound["classes"][0]["tenants"] == {}


async def test_a_released_brake_is_on_record_before_it_is_released(rig: Rig) -> None:
    """Only a key of the whole server, only while there is a brake, and never without its record."""
    state = StateFile(rig.config.data_dir / "cursors" / RESUME)
    async with rig.client() as client:
        assert (await client.post("/v1/retention/resume")).status_code == 409
        brake = {"id": "b7", "reason": "9 of 9 events", "at": 7.0, "due": 9, "kept": 9}
        publish_status(rig.config.data_dir, "retention", {"brake": brake})
        rig.door.is_down = True
        assert (await client.post("/v1/retention/resume")).status_code == 503
        assert state.load() is None
        rig.door.is_down = False
        answer = await client.post("/v1/retention/resume")
        assert (answer.status_code, answer.json()["reason"]) == (200, "9 of 9 events")
        found = (
            await client.get("/v1/events", params={"tenant": "_tallystick", "query": "action:tallystick.retention.resume"})
        ).text
    assert state.load() == b'{"brake":"b7","by":"root"}'
    assert "9 of 9 events" in found
    async with rig.client(rig.key("operate", tenants=["acme"])) as client:
        assert (await client.post("/v1/retention/resume")).status_code == 403
