"""Secure defaults of a running server: who may do what, asked of every endpoint that `/openapi.json` lists."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.server import ADMIN_KEY, Server, wait_for
from support.target import Target, event, event_text, run_target
from support.webhook_receiver import SECRET, run_webhook_receiver

PERMISSIONS = ("ingest", "read", "open", "verify", "operate", "keys", "approve")

ALLOWED = {
    "getLive": None,
    "getReady": None,
    "getCheckpoint": "verify",
    "getAccountCheckpoint": "verify",
    "getTile": "verify",
    "getAccountTile": "verify",
    "getMetrics": "operate",
    "listDeadLetters": "read operate",
    "getDeadLetter": "read",
    "discardDeadLetter": "operate",
    "replayDeadLetter": "operate",
    "listDestinations": "read operate",
    "pauseDestination": "operate",
    "probeDestination": "operate",
    "replayDestination": "operate",
    "reconcileDestination": "operate",
    "resumeDestination": "operate",
    "searchEvents": "read",
    "postEvents": "ingest",
    "getEvent": "read",
    "explainEvent": "read",
    "proveEvent": "read verify",
    "exportEvents": "read",
    "countValues": "read",
    "countOverTime": "read",
    "postSource": "ingest",
    "exportLogs": "ingest",
    "exportAudit": "ingest",
    "postKubernetesAudit": "ingest",
    "postCollectorEvent": "ingest",
    "postCollectorRaw": "ingest",
    "postCollectorAck": "ingest",
    "getCollectorHealth": None,
    "listKeys": "keys",
    "createKey": "keys",
    "revokeKey": "keys",
    "getLimits": " ".join(PERMISSIONS),
    "listQuarantine": "read operate",
    "countQuarantine": "read operate",
    "getQuarantined": "read",
    "replayQuarantined": "operate",
    "replayManyQuarantined": "operate",
    "listStatements": "read verify",
    "getStatus": "read operate",
    "tailEvents": "read",
    "listTenants": "read verify operate keys",
    "getRetention": "read operate",
    "resumeRetention": "operate",
    "listHolds": "read operate",
    "placeHold": "operate",
    "getHold": "read",
    "reviewHold": "operate",
    "liftHold": "approve",
    "listReviews": "read operate",
    "startReview": "read",
    "getReview": "read operate",
    "signReview": "approve",
    "listErasures": "operate approve",
    "requestErasure": "operate",
    "getErasure": "operate approve",
    "approveErasure": "approve",
    "cancelErasure": "operate approve",
    "makeReport": "read",
    "createTenant": "operate",
    "listAlerts": "read",
    "getAlert": "read",
    "acknowledgeAlert": "operate",
    "closeAlert": "operate",
    "reopenAlert": "operate",
}
"""Operation → permissions of which one is enough; None: open to strangers. A new operation must be put here."""

BODIES: dict[str, Any] = {
    "createKey": {"owner": "x", "permissions": ["approve"]},
    "createTenant": {"name": "acme"},
    "placeHold": {"tenants": ["acme"], "reason": "a case", "owner": "ana", "review": "2030-01-01"},
    "reviewHold": {"note": "goes on", "review": "2030-01-01"},
    "liftHold": {"reason": "case closed"},
    "acknowledgeAlert": {"note": "on it"},
    "closeAlert": {"note": "a test"},
    "reopenAlert": {"note": "not yet"},
    "startReview": {"tenant": "acme"},
    "requestErasure": {"tenant": "acme", "subject": "nobody", "basis": "request"},
    "signReview": {"outcome": "clean", "note": "nothing found"},
    "replayDestination": {"tenant": "acme", "first_index": 0, "last_index": 0},
    "reconcileDestination": {"tenant": "acme"},
    "discardDeadLetter": {"reason": "a test"},
    "exportLogs": {"resourceLogs": []},
    "exportAudit": {"resourceLogs": []},
    "postKubernetesAudit": {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": []},
    "postCollectorEvent": {"event": "x"},
    "postCollectorRaw": "x",
    "postCollectorAck": {"acks": [0]},
}
QUERIES = {"replayManyQuarantined": {"source": "nobody"}, "makeReport": {"framework": "soc2"}}
OWN_FORM = frozenset(
    {"exportLogs", "exportAudit", "postKubernetesAudit", "postCollectorEvent", "postCollectorRaw", "postCollectorAck"}
)
"""Operations of protocols with refusals of their own form."""
CHANNEL = {"X-Splunk-Request-Channel": "11111111-2222-3333-4444-555555555555"}


@dataclass
class Site:
    """A server with two tenants and, for each, one of every thing that has an id. ``names`` by tenant, then by parameter."""

    target: Target
    document: dict[str, Any]
    names: dict[str, dict[str, str]]

    @property
    def http(self) -> httpx.Client:
        return self.target.server.http

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                yield method.upper(), path, operation

    def call(
        self, secret: str | None, method: str, path: str, operation: dict[str, Any], names: dict[str, str], **query: str
    ) -> httpx.Response:
        """One call of an operation with the things of ``names``; only the head of an endless answer is read."""
        name = operation["operationId"]
        url = re.sub(r"{(\w+)}", lambda match: names[match[1] if match[1] != "name" or "/log/" not in path else "tile"], path)
        headers = {"Authorization": f"Bearer {secret}"} if secret else {"Authorization": ""}
        options: dict[str, Any] = {"params": {**QUERIES.get(name, {}), **query}, "headers": headers}
        if name in ("postEvents", "postSource"):
            options |= {"content": event_text(), "headers": {**headers, "Content-Type": "application/x-ndjson"}}
        elif name in BODIES:
            options |= {"json": BODIES[name], "headers": {**headers, **(CHANNEL if name == "postCollectorAck" else {})}}
        with self.http.stream(method, url, **options) as answer:
            if name != "tailEvents" or answer.status_code != 200:
                answer.read()
        return answer

    def key(self, *permissions: str, tenants: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
        document = {"owner": "test", "permissions": list(permissions), "tenants": list(tenants), **more}
        answer = self.http.post("/v1/keys", json=document)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


CONFIGURATION = """
[limits]
failed_logins = 1000
[data]
reserve = "1MiB"
[journal]
segment_size = "4MiB"
[seal]
interval = "50ms"
[privacy.acme]
seal = ["context.user_agent"]
[privacy.other]
seal = ["context.user_agent"]
[sources.github]
type = "http"
mapping = "github_audit"
[destinations.hook]
type = "webhook"
url = "{url}"
secret = "{secret}"
allow_private = true
[alerts]
builtin = ["tallystick"]
[delivery]
retry_min = "100ms"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with run_webhook_receiver() as receiver:
        receiver.dial(status=422, times=10_000)
        configuration = CONFIGURATION.format(url=receiver.url, secret=SECRET)
        with run_target(tmp_path_factory.mktemp("access"), configuration) as target:
            yield Site(
                target, target.server.http.get("/openapi.json").json(), {name: _fill(target, name) for name in ("acme", "other")}
            )


def _fill(target: Target, tenant: str) -> dict[str, str]:
    """One event, quarantined record, dead letter, key, hold and review of a tenant."""
    http = target.server.http
    secret = http.post("/v1/keys", json={"owner": tenant, "permissions": ["ingest"], "tenants": [tenant]}).json()
    sent = event(tenant=tenant, metadata={"secret": f"of {tenant}"})
    target.accept(
        json.dumps(sent).encode() + b"\n{}", headers={"Authorization": f"Bearer {secret['secret']}"}, on_invalid="quarantine"
    )
    letters = wait_for(lambda: http.get("/v1/dead-letters", params={"tenant": tenant}).json()["dead_letters"], "a dead letter")
    records = wait_for(lambda: http.get("/v1/quarantine", params={"tenant": tenant}).json()["records"], "a quarantined record")
    handle = next(row["handle"] for row in http.get("/v1/tenants").json()["tenants"] if row["name"] == tenant)
    hold = http.post("/v1/holds", json={**BODIES["placeHold"], "tenants": [tenant]}).json()
    alerts = wait_for(lambda: http.get("/v1/alerts", params={"tenant": tenant}).json()["alerts"], "the alert of the new key")
    review = http.post("/v1/reviews", json={"tenant": tenant}).json()
    asked = {"tenant": tenant, "subject": sent["actor"], "basis": "request"}
    erasure = http.post("/v1/erasures", json=asked).json()
    return {
        "event_id": sent["id"],
        "erasure_id": erasure["id"],
        "hold_id": hold["id"],
        "review_id": review["id"],
        "alert_id": alerts[0]["id"],
        "record_id": str(records[0]["id"]),
        "letter_id": letters[0]["id"],
        "key_id": secret["id"],
        "handle": handle,
        "tile": "0/000.p/1",
        "name": "hook",
        "source": "github",
    }


MISSING = {
    "event_id": "missing",
    "erasure_id": "missing",
    "hold_id": "missing",
    "review_id": "missing",
    "alert_id": "missing",
    "record_id": "999999999",
    "letter_id": "hook:999999",
    "key_id": "missing00000",
    "handle": "a" * 16,
    "tile": "0/000.p/1",
    "name": "missing",
    "source": "missing",
}


def test_every_operation_is_in_the_table(site: Site) -> None:
    """What may be done with which permission is decided here for every operation of the document."""
    assert {operation["operationId"] for _, _, operation in site.operations()} == set(ALLOWED)


def test_strangers_see_only_health(site: Site) -> None:
    """Without a key every other operation, the document, its page and the console answer 401; so they do with a wrong key."""
    for method, path, operation in site.operations():
        for secret in (None, "ts_testadmin01_" + "0" * 43, "ts_nobody_" + "a" * 43):
            answer = site.call(secret, method, path, operation, site.names["acme"])
            if ALLOWED[operation["operationId"]] is None:
                assert answer.status_code == 200
            else:
                # The collector tells an unknown token with 403 (its code 4).
                collector = "/services/collector" in path and secret is not None
                assert (answer.status_code, path) == (403 if collector else 401, path)
                assert operation["operationId"] in OWN_FORM or "bearer" in answer.headers["www-authenticate"].lower()
    for path in ("/openapi.json", "/docs", "/", "/events", "/delivery", "/integrity", "/status", "/v1/nowhere", "/nowhere"):
        assert site.http.get(path, headers={"Authorization": ""}).status_code == 401, path


def test_the_matrix_of_permissions(site: Site) -> None:
    """Each operation with each single permission: 403 exactly where the permission is not one of those that are enough."""
    keys = {name: site.key(name)["secret"] for name in PERMISSIONS}
    for method, path, operation in site.operations():
        allowed = ALLOWED[operation["operationId"]]
        for permission, secret in keys.items():
            answer = site.call(
                secret, method, path, operation, {**site.names["acme"], "key_id": MISSING["key_id"]}, **_tenant_of(operation)
            )
            assert answer.status_code < 500, (path, permission, answer.text)
            is_refused = answer.status_code == 403
            if operation["operationId"] == "createKey" and permission == "keys":
                assert is_refused  # it may make keys, and gives away only what it has
                continue
            assert is_refused == (allowed is not None and permission not in allowed.split()), (path, permission, answer.status_code)
            assert not is_refused or operation["operationId"] in OWN_FORM or answer.json()["code"] == "permission_missing"


def _tenant_of(operation: dict[str, Any]) -> dict[str, str]:
    names = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"}
    return {"tenant": "acme"} if "tenant" in names else {}


def test_another_tenants_things_do_not_exist(site: Site) -> None:
    """A key of one tenant with every permission: each id of another tenant gets the answer of a missing id, word for word."""
    secret = site.key(*PERMISSIONS, tenants=("acme",))["secret"]
    compared = 0
    for method, path, operation in site.operations():
        inside = set(re.findall(r"{(\w+)}", path)) - {"name", "source"}
        if not inside:
            continue
        theirs = site.call(
            secret, method, path, operation, {**site.names["acme"], **{name: site.names["other"][name] for name in inside}}
        )
        nobodys = site.call(secret, method, path, operation, {**site.names["acme"], **{name: MISSING[name] for name in inside}})
        own = site.call(secret, method, path, operation, site.names["acme"])
        assert theirs.status_code == 404, (path, theirs.text)
        assert _without_request_id(theirs) == _without_request_id(nobodys), path
        assert own.status_code != 404, (path, own.text)
        compared += 1
    assert compared >= 12


def test_another_tenants_name_does_not_exist(site: Site) -> None:
    """The same for every call with a parameter ``tenant``."""
    secret = site.key(*PERMISSIONS, tenants=("acme",))["secret"]
    for method, path, operation in site.operations():
        if _tenant_of(operation):
            theirs = site.call(secret, method, path, operation, site.names["other"], tenant="other")
            nobodys = site.call(secret, method, path, operation, site.names["other"], tenant="nobody")
            assert theirs.status_code == 404, (path, theirs.text)
            assert _without_request_id(theirs) == _without_request_id(nobodys), path
    header = {"Authorization": f"Bearer {secret}"}
    bodies = [{**BODIES["replayDestination"], "tenant": name} for name in ("other", "nobody")]
    theirs, nobodys = (site.http.post("/v1/destinations/hook/replay", json=body, headers=header) for body in bodies)
    assert theirs.status_code == 404
    assert _without_request_id(theirs) == _without_request_id(nobodys)


def _without_request_id(answer: httpx.Response) -> dict[str, Any]:
    problem = answer.json()
    assert problem.pop("request_id")
    return {"status": answer.status_code, "type": answer.headers["content-type"], **problem}


def test_a_bound_key_sees_only_its_tenant(site: Site) -> None:
    """In no answer to a key of one tenant does the other tenant's name, handle, id or content appear."""
    secret = site.key(*PERMISSIONS, tenants=("acme",))["secret"]
    other = site.names["other"]
    for method, path, operation in site.operations():
        if method != "GET" or operation["operationId"] == "tailEvents":
            continue
        text = site.call(secret, method, path, operation, site.names["acme"]).text
        for mark in ('"other"', "of other", other["handle"], other["key_id"], f'"{other["event_id"]}"'):
            assert mark not in text, (path, mark)


def test_a_cursor_of_another_tenant_is_refused(site: Site) -> None:
    """A cursor is bound to its tenants and its query, and cannot be altered."""
    for _ in range(2):
        site.target.accept(event_text(tenant="other"))
    page = site.http.get("/v1/events", params={"tenant": "other", "limit": "1"}).json()
    secret = {"Authorization": f"Bearer {site.key('read', tenants=('acme',))['secret']}"}
    assert site.http.get("/v1/events", params={"cursor": page["next"]}, headers=secret).status_code == 400
    altered = page["next"][:-4] + ("AAAA" if page["next"][-4:] != "AAAA" else "BBBB")
    for cursor in (altered, "x", page["next"] * 2):
        assert site.http.get("/v1/events", params={"tenant": "other", "limit": "1", "cursor": cursor}).status_code == 400


def test_an_expired_key(site: Site) -> None:
    """Works until its expiry, then 401 on both processes; one that would be expired is not made."""
    made = site.key("read", "ingest", expires_at=(datetime.now(UTC) + timedelta(seconds=1.5)).isoformat())
    header = {"Authorization": f"Bearer {made['secret']}"}
    assert site.http.get("/v1/status", headers=header).status_code == 200
    wait_for(lambda: site.http.get("/v1/status", headers=header).status_code == 401, "the key to expire", 5)
    refused = site.http.post("/v1/events", content=b"[]", headers={**header, "Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["code"]) == (401, "key_expired")
    past = {"owner": "x", "permissions": ["read"], "expires_at": "2020-01-01T00:00:00Z"}
    assert site.http.post("/v1/keys", json=past).status_code == 400


def test_revocation_takes_effect_within_five_seconds(site: Site) -> None:
    """At the intake, at the api and on an open tail."""
    made = site.key("read", "ingest")
    header = {"Authorization": f"Bearer {made['secret']}"}
    media = {**header, "Content-Type": "application/json"}
    with (
        httpx.Client(base_url=site.target.server.url, headers=header, timeout=15) as client,
        client.stream("GET", "/v1/tail") as tail,
    ):
        lines = tail.iter_lines()
        assert next(lines).startswith(":")
        assert site.http.post("/v1/events", content=b"[]", headers=media).status_code == 200
        assert site.http.delete(f"/v1/keys/{made['id']}").status_code == 204
        revoked_at = time.monotonic()
        wait_for(lambda: site.http.post("/v1/events", content=b"[]", headers=media).status_code == 401, "the intake to refuse", 5)
        wait_for(lambda: site.http.get("/v1/status", headers=header).status_code == 401, "the api to refuse", 5)
        assert any("revoked" in line for line in lines)
        assert time.monotonic() - revoked_at < 7  # the tail looks at its key with each event, and every five seconds
    assert site.http.delete(f"/v1/keys/{made['id']}").status_code == 204


def test_secrets_are_shown_once_and_stored_nowhere(site: Site) -> None:
    """Neither in the list of keys, nor in the data directory, nor in the log; the key directory holds only hashes and the admin key."""
    made = site.key("read")
    secret = made["secret"].rpartition("_")[2]
    listed = next(row for row in site.http.get("/v1/keys").json()["keys"] if row["id"] == made["id"])
    assert "secret" not in listed
    server = site.target.server
    for directory in (server.data, server.keys, server.log):
        assert subprocess.run(["grep", "-raq", secret, str(directory)]).returncode == 1, directory
    admin = ADMIN_KEY.rpartition("_")[2]
    found = subprocess.run(["grep", "-ral", admin, str(server.directory)], capture_output=True, text=True).stdout.split()
    assert found == [str(server.keys / "admin.key")]


def test_key_management_is_on_record(site: Site) -> None:
    """Making and revoking a key are events in the log of the tenant it concerns, by whom and without the secret."""
    made = site.key("read", tenants=("acme",))
    site.http.delete(f"/v1/keys/{made['id']}")
    found = site.http.get("/v1/events", params={"tenant": "acme", "query": "action:tallystick.key.*", "limit": "2"}).json()[
        "events"
    ]
    assert [row["action"] for row in found] == ["tallystick.key.revoke", "tallystick.key.create"]
    assert all(row["actor"]["id"] == "admin" for row in found)
    assert made["secret"] not in json.dumps(found)


def test_failed_logins_are_limited_at_every_door_and_on_record(tmp_path: Path) -> None:
    """Intake and api each answer 429 with advice after the limit; a sender cannot shift its address; the right key gets in."""
    server = Server(tmp_path, "[limits]\nfailed_logins = 5\n").start()
    try:
        for number, (method, path) in enumerate((("POST", "/v1/events"), ("GET", "/v1/status"))):
            wrong = f"ts_guess{number:05}_" + "a" * 43
            answers = [
                server.http.request(
                    method, path, headers={"Authorization": f"Bearer {wrong}", "X-Forwarded-For": f"198.51.100.{attempt}"}
                )
                for attempt in range(10)
            ]
            assert [answer.status_code for answer in answers[:5]] == [401] * 5
            assert answers[-1].status_code == 429, path
            assert answers[-1].json()["code"] == "too_many_logins"
            assert int(answers[-1].headers["retry-after"]) >= 1
        server.send_ok(b'{"action":"a.b","actor":"u"}')

        def recorded() -> str:
            found = server.http.get("/v1/events", params={"tenant": "_tallystick", "query": "action:tallystick.login_failed"})
            return found.text if found.status_code == 200 and len(found.json()["events"]) >= 2 else ""

        text = wait_for(recorded, "the failed logins to be on record")
        assert '"ip":"127.0.0.1"' in text.replace(" ", "")
        assert "guess00000" in text
        assert "guess00001" in text
        assert "a" * 43 not in text
        assert "a" * 43 not in server.tail(10**7)
    finally:
        server.close()
