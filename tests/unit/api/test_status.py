"""Status, limits and metrics."""

from __future__ import annotations

from support.api_rig import Rig, event
from tallystick.telemetry import publish_status

ROW = {
    "state": "running",
    "reason": "",
    "delivered": 5,
    "filtered": {"where": 2},
    "dead_lettered": 1,
    "pending": 2,
    "lag_seconds": 1.5,
    "tenants": {
        "acme": {"delivered": 3, "filtered": {"where": 1}, "dead_lettered": 1, "pending": 0},
        "globex": {"delivered": 2, "filtered": {"where": 1}, "dead_lettered": 0, "pending": 2},
    },
}


async def test_the_page_has_the_agreed_shape(rig: Rig) -> None:
    """Every member that DESIGN section 5 names is there, with its type."""
    await rig.send("acme", [event(1), event(2)])
    publish_status(rig.config.data_dir, "dispatcher", {"destinations": {"disk": ROW, "hook": ROW}, "reasons": []})
    async with rig.client() as client:
        page = (await client.get("/v1/status")).json()
    assert page["ready"] is True
    assert page["reasons"] == []
    assert isinstance(page["durable"], int)
    assert page["tenants"]["acme"] == {"accepted": 2, "sealed": 2, "archived": 0}
    disk = page["destinations"]["disk"]
    assert {name: disk[name] for name in ("state", "delivered", "filtered", "dead_lettered", "pending", "lag_seconds")} == {
        "state": "running",
        "delivered": 5,
        "filtered": {"where": 2},
        "dead_lettered": 1,
        "pending": 2,
        "lag_seconds": 1.5,
    }
    assert page["sources"] == {"events": {"accepted": 3}}


async def test_a_tenants_key_sees_its_own_account_alone(rig: Rig) -> None:
    """Counts of other tenants are in none of the sums."""
    publish_status(rig.config.data_dir, "dispatcher", {"destinations": {"disk": ROW}, "reasons": []})
    async with rig.client(rig.key("read", tenants=["acme"])) as client:
        page = (await client.get("/v1/status")).json()
    disk = page["destinations"]["disk"]
    assert (disk["delivered"], disk["filtered"], disk["dead_lettered"], disk["pending"]) == (3, {"where": 1}, 1, 0)
    assert page["sources"] == {}


async def test_trouble_is_named(rig: Rig) -> None:
    """A dead intake, a retrying destination and a complaining archiver are each a reason in words."""
    rig.door.is_down = True
    publish_status(rig.config.data_dir, "archiver", {"reason": "the store is down"})
    publish_status(
        rig.config.data_dir,
        "dispatcher",
        {"destinations": {"hook": {**ROW, "state": "retrying", "reason": "refused"}}, "reasons": []},
    )
    async with rig.client() as client:
        page = (await client.get("/v1/status")).json()
    assert page["ready"] is False
    text = "\n".join(page["reasons"])
    assert "intake: the intake process does not answer" in text
    assert "archiver: the store is down" in text
    assert "destination hook: retrying, refused" in text
    assert "destination disk: unknown" in text


async def test_silence_is_not_health(rig: Rig) -> None:
    """A role that stopped renewing its page, or never had one, is a reason."""
    (rig.config.data_dir / "run" / "status-sealer.json").unlink()
    (rig.config.data_dir / "run" / "status-archiver.json").write_text('{"role":"archiver","at":1}')
    async with rig.client() as client:
        text = "\n".join((await client.get("/v1/status")).json()["reasons"])
    assert "sealer: has not reported" in text
    assert "archiver: silent for" in text


async def test_limits_are_numbers(rig: Rig) -> None:
    """Every limit of ingest and query is listed, sizes in bytes and times in seconds."""
    async with rig.client() as client:
        limits = (await client.get("/v1/limits")).json()
    assert limits["ingest"]["body"] == 16 * 2**20
    assert limits["ingest"]["head_time"] == 10.0
    assert (limits["ingest"]["key_events_per_second"], limits["ingest"]["bodies_in_flight"]) == (None, 256 * 2**20)
    assert limits["query"]["limit"] == rig.config.query.limit


async def test_metrics_are_for_operators_of_the_server(rig: Rig) -> None:
    """Prometheus text for a server-wide key; a tenant's key is refused."""
    async with rig.client() as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    async with rig.client(rig.key("operate", tenants=["acme"])) as client:
        assert (await client.get("/metrics")).status_code == 403
