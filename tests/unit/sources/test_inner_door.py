"""The inner door: every call of the other processes, and what each is told when it goes wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tallystick.errors import DiskFullError
from tallystick.journal.frame import FrameType

from .conftest import Answer, Rig, event


async def call(rig: Rig, path: str, document: Any = None, method: str = "POST") -> Answer:
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return await rig.call(path, body, app=rig.inner, method=method, media="application/json")


async def test_events_of_a_tenant(rig: Rig) -> None:
    """The api's own events are stored under the source `tallystick`, in the tenant it names, the server's included."""
    for tenant in ("acme", "_tallystick"):
        answer = (await call(rig, "/events", {"tenant": tenant, "events": [event(action="tallystick.search")]})).json()
        assert (answer["accepted"], answer["receipts"][0]["ranges"]) == (1, [[0, 1]])
    (stored,) = rig.events("_tallystick")
    assert stored["source"] == {"name": "tallystick", "type": "internal"}


async def test_bad_events_are_refused_with_their_place(rig: Rig) -> None:
    """A fault in an event of ours is 422, stores nothing, and names the line."""
    answer = await call(rig, "/events", {"tenant": "acme", "events": [event(), {"action": "x"}]})
    assert (answer.status, answer.json()["errors"][0]["line"]) == (422, 2)
    assert rig.frames(FrameType.EVENTS) == []


async def test_an_event_of_another_tenant_is_forbidden(rig: Rig) -> None:
    """The call names the tenant; an event cannot leave it."""
    answer = await call(rig, "/events", {"tenant": "acme", "events": [event(tenant="globex")]})
    assert (answer.status, answer.json()["code"]) == (403, "tenant_forbidden")


async def test_records_go_through_their_mapping_again(rig: Rig) -> None:
    """A replay out of the quarantine: mapped as configured now; twice is a duplicate; what still fails is 422."""
    record = '{"@timestamp":1,"_document_id":"d","action":"repo.create","actor":"me"}'
    request = {"source": "github", "tenant": "northwind", "records": [record]}
    assert (await call(rig, "/records", request)).json()["accepted"] == 1
    again = (await call(rig, "/records", request)).json()
    assert (again["accepted"], again["duplicates"]) == (0, 1)
    assert (await call(rig, "/records", {**request, "records": ["no json"]})).status == 422
    assert (await call(rig, "/records", {**request, "source": "gone"})).status == 404


async def test_records_of_events_are_read_as_events(rig: Rig) -> None:
    """A bad line of `/v1/events`, mended by a later version, is sent in as it was; a conflict stays one."""
    request = {"source": "events", "tenant": "acme", "records": ['{"id":"x","action":"a.b","actor":"u"}']}
    assert (await call(rig, "/records", request)).json()["accepted"] == 1
    other = {**request, "records": ['{"id":"x","action":"a.c","actor":"u"}']}
    answer = await call(rig, "/records", other)
    assert (answer.status, answer.json()["code"]) == (409, "id_conflict")


async def test_account_entries_are_stored_for_a_known_tenant(rig: Rig) -> None:
    """Under its handle, with id and entry; an unknown tenant is 404 and stores none of the request."""
    rig.service.tenants.create("acme")
    entry = {"tenant": "acme", "id": "delivery:1", "entry": {"type": "delivery", "delivered": 3}}
    assert (await call(rig, "/account", {"entries": [entry, {**entry, "tenant": "nobody", "id": "2"}]})).status == 404
    assert rig.frames(FrameType.ACCOUNT) == []
    assert (await call(rig, "/account", {"entries": [entry]})).json() == {"accepted": 1}
    (stored,) = rig.records(FrameType.ACCOUNT)
    assert (stored["tenant"], stored["id"], stored["entry"]) == ("acme", "delivery:1", entry["entry"])


async def test_tenants_are_made_once(rig: Rig) -> None:
    """With their handle; a second time is 409; a name that cannot be one, or the server's own, is 422."""
    made = (await call(rig, "/tenants", {"name": "acme"})).json()
    assert made["handle"] == rig.service.tenants.create("acme").handle
    assert (await call(rig, "/tenants", {"name": "acme"})).status == 409
    for name in ("Acme", "", "a" * 64):
        assert (await call(rig, "/tenants", {"name": name})).status == 422
    assert (await call(rig, "/tenants", {"name": "_tallystick"})).status in (409, 422)


async def test_the_status_page(rig: Rig) -> None:
    """What the process says of itself."""
    assert (await call(rig, "/status", b"", "GET")).json() == {"ready": True}


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/nosuch", "POST", 404), ("/events", "GET", 404), ("/events", "POST", 422)]
)
async def test_calls_that_are_none(rig: Rig, path: str, method: str, status: int) -> None:
    """Unknown paths and bodies that are not what the call takes."""
    assert (await call(rig, path, {"tenant": 3}, method)).status == status


async def test_pushback_comes_with_its_advice(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller learns the code and when to try again."""

    async def full(request: Any) -> None:
        raise DiskFullError("full", retry_after_s=5)

    monkeypatch.setattr(rig.service.journal, "append", full)
    answer = await call(rig, "/events", {"tenant": "acme", "events": [event()]})
    assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (503, "disk_full", "5")
