"""Keys and tenants."""

from __future__ import annotations

from typing import Any

import pytest

from support.api_rig import Rig


async def test_the_secret_is_shown_once_and_works(rig: Rig) -> None:
    """The creation's answer has the secret; no list has it; with it one gets in."""
    async with rig.client() as client:
        made = await client.post("/v1/keys", json={"owner": "payments", "permissions": ["read"], "tenants": ["acme"]})
        listed = await client.get("/v1/keys")
    secret = made.json()["secret"]
    assert made.status_code == 201
    assert secret not in listed.text
    assert "secret" not in listed.text
    async with rig.client(secret) as client:
        assert (await client.get("/v1/limits")).status_code == 200


async def test_creation_and_revocation_are_events_of_the_tenant(rig: Rig) -> None:
    """Both are in the log of the tenant that the key is bound to, and name no secret."""
    async with rig.client() as client:
        made = (await client.post("/v1/keys", json={"owner": "payments", "permissions": ["read"], "tenants": ["acme"]})).json()
        await client.delete(f"/v1/keys/{made['id']}")
        found = (await client.get("/v1/events", params={"tenant": "acme", "query": "action:tallystick.key.*"})).text
    assert "tallystick.key.create" in found
    assert "tallystick.key.revoke" in found
    assert made["secret"] not in found


@pytest.mark.parametrize(
    "body",
    [
        {"owner": "x", "permissions": ["read"]},
        {"owner": "x", "permissions": ["read"], "tenants": ["globex"]},
        {"owner": "x", "permissions": ["read"], "tenants": ["acme", "globex"]},
        {"owner": "x", "permissions": ["open"], "tenants": ["acme"]},
    ],
)
async def test_a_key_gives_away_only_what_it_has(rig: Rig, body: dict[str, Any]) -> None:
    """A key bound to acme makes none without tenant, for another tenant, or with more permissions."""
    async with rig.client(rig.key("keys", "read", tenants=["acme"])) as client:
        answer = await client.post("/v1/keys", json=body)
    assert answer.status_code == 403


async def test_a_tenants_key_manages_only_keys_of_that_tenant(rig: Rig) -> None:
    """The admin's key is neither listed for it nor can it be revoked by it: a missing key gives the same answer."""
    admin_id = rig.admin.split("_")[1]
    async with rig.client(rig.key("keys", tenants=["acme"])) as client:
        listed = (await client.get("/v1/keys")).json()["keys"]
        answers = [await client.delete(f"/v1/keys/{key_id}") for key_id in (admin_id, "nosuch")]
    assert all(key["tenants"] == ["acme"] for key in listed)
    assert [answer.status_code for answer in answers] == [404, 404]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"owner": "x"}, 400),
        ({"owner": "", "permissions": ["read"]}, 400),
        ({"owner": "a\nb", "permissions": ["read"]}, 400),
        ({"owner": "x", "permissions": ["admin"]}, 400),
        ({"owner": "x", "permissions": []}, 400),
        ({"owner": "x", "permissions": ["read"], "tenants": ["../x"]}, 400),
        ({"owner": "x", "permissions": ["read"], "tenants": ["acme\n"]}, 400),
        ({"owner": "x", "permissions": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, 400),
        ({"owner": "x", "permissions": ["read"], "expires_at": "soon"}, 400),
        ({"owner": "x", "permissions": ["read"], "surprise": 1}, 400),
        ([], 400),
        (42, 400),
    ],
)
async def test_bad_bodies_are_refused_with_their_place(rig: Rig, body: Any, status: int) -> None:
    """Each is a problem document, and nothing was made."""
    async with rig.client() as client:
        before = len((await client.get("/v1/keys")).json()["keys"])
        answer = await client.post("/v1/keys", json=body)
        after = len((await client.get("/v1/keys")).json()["keys"])
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert before == after


async def test_other_media_and_large_bodies(rig: Rig) -> None:
    """A form is 415, two megabytes are 413, broken JSON is 400."""
    async with rig.client() as client:
        assert (await client.post("/v1/tenants", data={"name": "x"})).status_code == 415
        big = await client.post("/v1/tenants", content=b'"' + b"x" * 2_000_000 + b'"', headers={"content-type": "application/json"})
        assert big.status_code == 413
        broken = await client.post("/v1/tenants", content=b"{", headers={"content-type": "application/json"})
        assert broken.status_code == 400


async def test_a_tenant_is_made_once(rig: Rig) -> None:
    """The answer has its handle; the second creation is a 409; its creation is in the server's own log."""
    async with rig.client() as client:
        made = await client.post("/v1/tenants", json={"name": "initech"})
        again = await client.post("/v1/tenants", json={"name": "initech"})
        listed = (await client.get("/v1/tenants")).json()["tenants"]
        found = (
            await client.get("/v1/events", params={"tenant": "_tallystick", "query": "action:tallystick.tenant.create"})
        ).json()
    assert made.status_code == 201
    assert made.json()["origin"] == f"audit.example.com/log/{made.json()['handle']}"
    assert again.status_code == 409
    assert made.json() in listed
    assert [item["targets"][0]["id"] for item in found["events"]] == ["initech"]


async def test_a_tenants_key_makes_no_tenants(rig: Rig) -> None:
    """Tenants concern the whole server."""
    async with rig.client(rig.key("operate", tenants=["acme"])) as client:
        assert (await client.post("/v1/tenants", json={"name": "mine"})).status_code == 403


async def test_nothing_changes_when_it_cannot_be_recorded(rig: Rig) -> None:
    """With the intake down no key is made and none is revoked."""
    secret = rig.key("read")
    async with rig.client() as client:
        rig.door.is_down = True
        made = await client.post("/v1/keys", json={"owner": "x", "permissions": ["read"]})
        revoked = await client.delete(f"/v1/keys/{secret.split('_')[1]}")
    assert made.status_code == revoked.status_code == 503
    async with rig.client(secret) as client:
        assert (await client.get("/v1/limits")).status_code == 200
