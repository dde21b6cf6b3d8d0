"""Who gets in, who may do what, and what every answer carries."""

from __future__ import annotations

from typing import Any

import pytest

from support.api_rig import CONFIGURATION, Rig, event
from tallystick.api.openapi import build_document
from tallystick.api.openapi_intake import intake_paths
from tallystick.http.access import PERMISSIONS

NEEDS: dict[tuple[str, str], set[str]] = {
    ("GET", "/v1/events"): {"read"},
    ("GET", "/v1/histogram"): {"read"},
    ("GET", "/v1/facets"): {"read"},
    ("GET", "/v1/export"): {"read"},
    ("GET", "/v1/tail"): {"read"},
    ("GET", "/v1/events/{event_id}"): {"read"},
    ("GET", "/v1/events/{event_id}/proof"): {"read", "verify"},
    ("GET", "/v1/events/{event_id}/explain"): {"read"},
    ("GET", "/v1/statements"): {"read", "verify"},
    ("GET", "/v1/status"): {"read", "operate"},
    ("GET", "/v1/limits"): set(PERMISSIONS),
    ("GET", "/metrics"): {"operate"},
    ("POST", "/v1/keys"): {"keys"},
    ("GET", "/v1/keys"): {"keys"},
    ("DELETE", "/v1/keys/{key_id}"): {"keys"},
    ("POST", "/v1/tenants"): {"operate"},
    ("GET", "/v1/tenants"): {"read", "verify", "operate", "keys"},
    ("GET", "/v1/destinations"): {"read", "operate"},
    ("POST", "/v1/destinations/{name}/pause"): {"operate"},
    ("POST", "/v1/destinations/{name}/resume"): {"operate"},
    ("POST", "/v1/destinations/{name}/probe"): {"operate"},
    ("POST", "/v1/destinations/{name}/replay"): {"operate"},
    ("POST", "/v1/destinations/{name}/reconcile"): {"operate"},
    ("GET", "/v1/dead-letters"): {"read", "operate"},
    ("GET", "/v1/dead-letters/{letter_id}"): {"read"},
    ("POST", "/v1/dead-letters/{letter_id}/replay"): {"operate"},
    ("POST", "/v1/dead-letters/{letter_id}/discard"): {"operate"},
    ("GET", "/v1/quarantine"): {"read", "operate"},
    ("GET", "/v1/quarantine/counts"): {"read", "operate"},
    ("GET", "/v1/quarantine/{record_id}"): {"read"},
    ("POST", "/v1/quarantine/replay"): {"operate"},
    ("POST", "/v1/quarantine/{record_id}/replay"): {"operate"},
    ("GET", "/v1/retention"): {"read", "operate"},
    ("POST", "/v1/retention/resume"): {"operate"},
    ("GET", "/v1/holds"): {"read", "operate"},
    ("POST", "/v1/holds"): {"operate"},
    ("GET", "/v1/holds/{hold_id}"): {"read"},
    ("POST", "/v1/holds/{hold_id}/review"): {"operate"},
    ("POST", "/v1/holds/{hold_id}/lift"): {"approve"},
    ("GET", "/v1/reviews"): {"read", "operate"},
    ("POST", "/v1/reviews"): {"read"},
    ("GET", "/v1/reviews/{review_id}"): {"read", "operate"},
    ("POST", "/v1/reviews/{review_id}/sign"): {"approve"},
    ("GET", "/v1/erasures"): {"operate", "approve"},
    ("POST", "/v1/erasures"): {"operate"},
    ("GET", "/v1/erasures/{erasure_id}"): {"operate", "approve"},
    ("POST", "/v1/erasures/{erasure_id}/approve"): {"approve"},
    ("POST", "/v1/erasures/{erasure_id}/cancel"): {"operate", "approve"},
    ("GET", "/v1/report"): {"read"},
    ("GET", "/v1/alerts"): {"read"},
    ("GET", "/v1/alerts/{alert_id}"): {"read"},
    ("POST", "/v1/alerts/{alert_id}/acknowledge"): {"operate"},
    ("POST", "/v1/alerts/{alert_id}/close"): {"operate"},
    ("POST", "/v1/alerts/{alert_id}/reopen"): {"operate"},
    ("GET", "/log/{handle}/checkpoint"): {"verify"},
    ("GET", "/log/{handle}/account/checkpoint"): {"verify"},
    ("GET", "/log/{handle}/tile/{name}"): {"verify"},
    ("GET", "/log/{handle}/account/tile/{name}"): {"verify"},
}
BODIES: dict[str, Any] = {
    "/v1/keys": {"owner": "x", "permissions": ["nosuch"]},
    "/v1/tenants": {"name": "acme"},
    "/v1/holds": {"tenants": ["acme"], "reason": "a case", "owner": "ana", "review": "2030-01-01"},
    "/v1/holds/{hold_id}/review": {"note": "goes on", "review": "2030-01-01"},
    "/v1/holds/{hold_id}/lift": {"reason": "case closed"},
    "/v1/reviews": {"tenant": "acme"},
    "/v1/erasures": {"tenant": "acme", "subject": "nobody", "basis": "request"},
    "/v1/reviews/{review_id}/sign": {"outcome": "clean", "note": "nothing found"},
    "/v1/destinations/{name}/replay": {"tenant": "acme", "first_index": 0, "last_index": 0},
    "/v1/destinations/{name}/reconcile": {"tenant": "acme"},
    "/v1/alerts/{alert_id}/acknowledge": {"note": "on it"},
    "/v1/alerts/{alert_id}/close": {"note": "a test"},
    "/v1/alerts/{alert_id}/reopen": {},
    "/v1/dead-letters/{letter_id}/discard": {"reason": "not needed"},
}

QUERIES = {"/v1/quarantine/replay": "?source=nosuch", "/v1/report": "?framework=soc2"}


def concrete(path: str) -> str:
    """The path with names that do not exist, but for a configured destination."""
    values = {
        "{name}": "disk",
        "{event_id}": "nosuch",
        "{key_id}": "nosuch",
        "{letter_id}": "disk:7",
        "{record_id}": "7",
        "{handle}": "nosuch",
        "{hold_id}": "nosuch",
        "{alert_id}": "nosuch",
        "{erasure_id}": "nosuch",
        "{review_id}": "nosuch",
    }
    if "/tile/" in path:
        values["{name}"] = "0/000.p/1"
    for name, value in values.items():
        path = path.replace(name, value)
    return path + QUERIES.get(path, "")


def own_operations(rig: Rig) -> set[tuple[str, str]]:
    """Every operation of the api process in the OpenAPI document."""
    intake = {(method.upper(), path) for path, item in intake_paths().items() for method in item}
    paths = build_document(rig.app)["paths"]
    return {(method.upper(), path) for path, item in paths.items() for method in item} - intake


async def test_the_table_of_permissions_is_complete(rig: Rig) -> None:
    """Every operation that the document describes is in this file's table, and no other."""
    assert own_operations(rig) == set(NEEDS)


async def test_without_credentials_nothing_is_answered(rig: Rig) -> None:
    """401 with a challenge for every operation, the document and the docs, and for paths that do not exist."""
    async with rig.client(None) as client:
        for method, path in [*NEEDS, ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/nosuch")]:
            answer = await client.request(method, concrete(path))
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["code"] == "unauthenticated"


async def test_permissions_are_exact(rig: Rig) -> None:
    """For each operation: a key with every other permission is refused, a key with a needed one is not."""
    for (method, path), needed in NEEDS.items():
        others = [name for name in PERMISSIONS if name not in needed]
        options = {"json": BODIES[path]} if path in BODIES else {}
        if others:
            async with rig.client(rig.key(*others)) as client:
                answer = await client.request(method, concrete(path), **options)
                assert answer.status_code == 403, (method, path, answer.text)
                assert answer.json()["code"] == "permission_missing"
        if path == "/v1/tail":
            continue
        for permission in sorted(needed):
            async with rig.client(rig.key(permission)) as client:
                answer = await client.request(method, concrete(path), **options)
                assert answer.status_code not in (401, 403), (method, path, permission, answer.text)
                assert answer.status_code < 500, (method, path, answer.text)


async def test_another_tenants_thing_is_answered_like_a_missing_one(rig: Rig) -> None:
    """The body differs in nothing but the request id."""
    await rig.send("globex", [event(1)])
    globex = rig.deps.tenants.get("globex")
    assert globex is not None
    pairs = [
        ("/v1/events/e1?tenant=globex", "/v1/events/e1?tenant=nosuch"),
        ("/v1/events/e1", "/v1/events/nosuch"),
        ("/v1/events/e1/proof", "/v1/events/nosuch/proof"),
        ("/v1/events/e1/explain", "/v1/events/nosuch/explain"),
        ("/v1/events?tenant=globex", "/v1/events?tenant=nosuch"),
        ("/v1/facets?tenant=globex", "/v1/facets?tenant=nosuch"),
        ("/v1/export?tenant=globex", "/v1/export?tenant=nosuch"),
        ("/v1/quarantine?tenant=globex", "/v1/quarantine?tenant=nosuch"),
        ("/v1/statements?tenant=globex", "/v1/statements?tenant=nosuch"),
        (f"/log/{globex.handle}/checkpoint", "/log/aaaaaaaaaaaaaaaa/checkpoint"),
        (f"/log/{globex.handle}/tile/0/000.p/1", "/log/aaaaaaaaaaaaaaaa/tile/0/000.p/1"),
        (f"/log/{globex.handle}/tile/entries/000.p/1", "/log/aaaaaaaaaaaaaaaa/tile/entries/000.p/1"),
    ]
    async with rig.client(rig.key("read", "verify", "operate", tenants=["acme"])) as client:
        for foreign, missing in pairs:
            answers = [await client.get(path) for path in (foreign, missing)]
            bodies = [{**answer.json(), "request_id": ""} for answer in answers]
            assert [answer.status_code for answer in answers] == [404, 404], foreign
            assert bodies[0] == bodies[1], foreign


async def test_a_key_of_one_tenant_needs_no_tenant_parameter_and_sees_no_other(rig: Rig) -> None:
    """Without `tenant` a search covers what the key sees, and nothing of others."""
    await rig.send("acme", [event(1)])
    await rig.send("globex", [event(2)])
    async with rig.client(rig.key("read", tenants=["acme"])) as client:
        found = (await client.get("/v1/events", params={"query": "action:user.login"})).json()
        status = (await client.get("/v1/status")).json()
    assert [item["id"] for item in found["events"]] == ["e1"]
    assert set(status["tenants"]) == {"acme"}


async def test_a_revoked_key_is_out_at_once(rig: Rig) -> None:
    """Revoking through the api ends the key for the next request."""
    secret = rig.key("read", tenants=["acme"])
    async with rig.client() as admin, rig.client(secret) as client:
        assert (await client.get("/v1/limits")).status_code == 200
        assert (await admin.delete(f"/v1/keys/{secret.split('_')[1]}")).status_code == 204
        assert (await client.get("/v1/limits")).status_code == 401


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer x", "Basic dTpw", "Bearer ts_nosuchkey000_" + "a" * 43, "ts_x", "Bearer ts_\xff"]
)
async def test_bad_credentials_are_401(rig: Rig, header: str) -> None:
    """Whatever is wrong with a key, the answer is the same status."""
    async with rig.client(None) as client:
        answer = await client.get("/v1/limits", headers={"authorization": header.encode("latin-1")})
    assert answer.status_code == 401


async def test_two_authorization_headers_are_refused(rig: Rig) -> None:
    """A second Authorization header could mean another caller to another reader."""
    async with rig.client(None) as client:
        value = f"Bearer {rig.admin}".encode()
        answer = await client.get("/v1/limits", headers=[(b"authorization", value), (b"authorization", value)])
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/limits", 200),
        ("GET", "/nosuch", 404),
        ("PUT", "/v1/limits", 405),
        ("TRACE", "/v1/limits", 405),
        ("FOO", "/v1/keys", 405),
    ],
)
async def test_every_answer_carries_the_security_headers(rig: Rig, method: str, path: str, status: int) -> None:
    """Success, missing and not allowed alike; a 405 names what is allowed."""
    async with rig.client() as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    if status == 405:
        assert answer.headers["allow"]
        assert answer.json()["code"] == "method_not_allowed"


async def test_head_is_get_without_a_body(rig: Rig) -> None:
    """Also for streams, which end at once; OPTIONS names the methods."""
    async with rig.client() as client:
        for path in ("/v1/limits", "/v1/export?tenant=acme", "/v1/tail?tenant=acme"):
            answer = await client.head(path)
            assert answer.status_code == 200, path
            assert answer.content == b""
        options = await client.options("/v1/keys")
    assert options.status_code == 204
    assert "POST" in options.headers["allow"]
    assert rig.deps.open_exports == 0


async def test_a_public_log_needs_no_key_but_its_entries_do(tmp_path: Any) -> None:
    """With [log] public the checkpoint is open to all; the events in its bundles are not."""
    rig = Rig.open(tmp_path, CONFIGURATION + "\n[log]\npublic = true\n")
    try:
        await rig.send("acme", [event(1)])
        tenant = rig.deps.tenants.get("acme")
        assert tenant is not None
        async with rig.client(None) as client:
            assert (await client.get(f"/log/{tenant.handle}/checkpoint")).status_code == 200
            assert (await client.get(f"/log/{tenant.handle}/tile/0/000.p/1")).status_code == 200
            assert (await client.get(f"/log/{tenant.handle}/tile/entries/000.p/1")).status_code == 401
            assert (await client.get("/v1/events")).status_code == 401
    finally:
        await rig.close()


async def test_our_own_failure_says_only_its_request_id(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen error is a 500 without path, type or traceback, and the process stays up."""

    def fail(*_: Any) -> None:
        raise RuntimeError("secret detail /var/lib")

    monkeypatch.setattr(rig.deps.engine, "search", fail)
    async with rig.client() as client:
        answer = await client.get("/v1/events", params={"tenant": "acme"})
        again = await client.get("/v1/limits")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"]
    assert again.status_code == 200
