"""`/v1/retention`: the policy as configured, and the plan, each for who may see it."""

from __future__ import annotations

from pathlib import Path

from support.api_rig import CONFIGURATION, Rig, event
from tallystick.archive.archiver import Archiver
from tallystick.evidence.manifest import manifest_key_name

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
