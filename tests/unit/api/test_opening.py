"""`?open=true`: who may, what comes back, that it is on record, and what stays sealed."""

from __future__ import annotations

import msgspec

from support.api_rig import Rig, event
from tallystick.event import Event
from tallystick.event.codec import EventReader, encode_lines
from tallystick.event.model import Source
from tallystick.event.stamp import Stamp
from tallystick.evidence.origin import event_origin
from tallystick.journal.entries import Append, TenantBatch
from tallystick.privacy.members import subject_text, take_out
from tallystick.privacy.seal import epoch_subject_key, plain_text, seal, to_text
from tallystick.privacy.subjects import SubjectKeys

AT = "2026-09-14T10:00:00.000000Z"


async def send_sealed(rig: Rig, number: int, name: str, commit: str | None = None) -> None:
    """An event of acme as intake would seal it; ``commit`` in place of the right one."""
    tenant = rig.deps.tenants.get("acme")
    assert tenant is not None
    subject = SubjectKeys(rig.keys).ensure(tenant.handle, [name], 9)[name]
    assert subject is not None
    made: Event = EventReader().read(msgspec.json.encode([event(number, actor=name)]), "array").events[0]
    plain = plain_text(take_out(made, ["actor.id"], subject_text(to_text(subject.skid))))
    line = encode_lines([made], Stamp("acme", AT, Source(name="events", type="http")))[0]
    kes = epoch_subject_key(rig.keys.epoch_key(tenant.handle, "standard", AT[:7], create=True), subject.key)
    group = seal(kes, subject.skid, plain, event_origin(rig.config.server.name, tenant.handle), f"e{number}")
    group.commit = commit or group.commit
    line = line[:-1] + b',"sealed":' + msgspec.json.encode([group]) + b"}"
    await rig.journal.append(Append(batches=[TenantBatch(tenant, [line], [None], [None], "")]))
    rig.sealer.seal()


async def test_members_come_back_for_who_may_and_on_record(rig: Rig) -> None:
    """Sealed without the parameter, 403 without the permission, opened with it, and an event says so."""
    await send_sealed(rig, 1, "ana")
    reader, opener = rig.key("read"), rig.key("read", "open")
    async with rig.client(reader) as client:
        line = (await client.get("/v1/events/e1")).json()
        assert line["actor"]["id"].startswith("sealed:")
        for path in ("/v1/events/e1?open=true", "/v1/events?open=true"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (403, "permission_missing")
    async with rig.client(opener) as client:
        opened = (await client.get("/v1/events/e1?open=true")).json()
        page = (await client.get("/v1/events?open=true&query=id:e1")).json()["events"]
        assert page == [opened]
        assert (opened["actor"]["id"], opened["sealed"]) == ("ana", line["sealed"])
        records = (await client.get("/v1/events?tenant=acme&query=action:tallystick.opening")).json()["events"]
        assert [one["metadata"]["events"] for one in records] == [1, 1]


async def test_what_was_erased_stays_sealed(rig: Rig) -> None:
    """No error: the event is there, the person is not."""
    await send_sealed(rig, 1, "ana")
    handle = rig.deps.tenants.get("acme").handle  # type: ignore[union-attr]
    skid = rig.deps.opener.subjects.find(handle, "ana").skid  # type: ignore[union-attr]
    SubjectKeys(rig.keys).erase(handle, "ana", skid, 60.0)
    async with rig.client() as client:
        assert (await client.get("/v1/events/e1?open=true")).json()["actor"]["id"] == subject_text(to_text(skid))


async def test_a_group_with_another_commitment_is_not_given_out(rig: Rig) -> None:
    """It opens, but the leaf commits to another text: a problem, without the text."""
    await send_sealed(rig, 1, "ana", commit=to_text(bytes(32)))
    async with rig.client() as client:
        answer = await client.get("/v1/events/e1?open=true")
        assert answer.status_code >= 400
        assert "ana" not in answer.text
