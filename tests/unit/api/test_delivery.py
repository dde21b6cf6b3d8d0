"""Destinations, dead letters and quarantine over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support.api_rig import Rig, event
from tallystick.archive.catalog import CatalogWriter
from tallystick.archive.quarantine import QuarantineWriter
from tallystick.delivery.dead_letters import Letter
from tallystick.journal.entries import QuarantinedRecord


def file_letter(rig: Rig, tenant: str, index: int, event_id: str) -> str:
    """One open dead letter of the destination hook; returns its id."""
    rig.deps.tenants.reload()
    found = rig.deps.tenants.get(tenant)
    assert found is not None
    letter = Letter(
        destination="hook",
        tenant=tenant,
        handle=found.handle,
        index=index,
        reason="413",
        cut="c",
        at=1.0,
        event_id=event_id,
        reply="no",
    )
    return f"hook:{rig.deps.dead_letters.append('hook', [letter])[0]}"


def quarantine(rig: Rig, tenant: str, seq: int, data: bytes) -> None:
    """One record that could not become an event."""
    found = rig.deps.tenants.get(tenant)
    assert found is not None
    record = QuarantinedRecord(
        handle=found.handle, source="github", code="no_actor", message="no actor", received_at="2026-01-01T00:00:00Z", data=data
    )
    writer = CatalogWriter(rig.config.data_dir / "catalog.sqlite")
    if not writer.is_complete:
        with writer.creating():
            pass
    QuarantineWriter(rig.config.data_dir, rig.keys, writer).store([(seq, msgspec.json.encode(record))])
    writer.close()


async def test_a_walk_goes_on_only_as_it_began(rig: Rig) -> None:
    """Each walk is on record once; no step is taken from another walk, begun in the middle, or turned into a repair on the way."""
    rig.answers["reconcile"] = {"findings": [], "next": '[null,"somebody","x"]'}
    path = "/v1/destinations/disk/reconcile"
    async with rig.client(rig.key("operate", tenants=["acme"])) as client:
        first = await client.post(path, json={"tenant": "acme"})
        token = first.json()["result"]["next"]
        assert "somebody" not in token
        assert (await client.post(path, json={"tenant": "acme", "after": token})).status_code == 200
        for body in (
            {"tenant": "acme", "after": token, "repair": True},
            {"tenant": "acme", "after": '[null,"somebody","x"]'},
            {"tenant": "acme", "after": token[:-2] + "AA"},
        ):
            assert (await client.post(path, json=body)).json()["code"] == "walk_invalid"
        assert (await client.post("/v1/destinations/hook/reconcile", json={"tenant": "acme", "after": token})).status_code == 422
        assert (await client.post(path, json={})).status_code == 403
        assert (await client.post(path, json={"tenant": "globex"})).status_code == 404
    assert [args["after"] for op, args in rig.asked if op == "reconcile"] == [None, '[null,"somebody","x"]']


@pytest.mark.parametrize("verb", ["pause", "resume", "probe"])
async def test_verbs_reach_the_dispatcher_and_are_on_record(rig: Rig, verb: str) -> None:
    """The dispatcher is asked once, and the server's own log says who asked."""
    async with rig.client() as client:
        answer = await client.post(f"/v1/destinations/disk/{verb}")
        missing = await client.post(f"/v1/destinations/nosuch/{verb}")
        found = (
            await client.get("/v1/events", params={"tenant": "_tallystick", "query": f"action:tallystick.destination.{verb}"})
        ).json()
    assert answer.json() == {"name": "disk", "done": verb, "result": {"ok": True}}
    assert missing.status_code == 404
    assert rig.asked == [(verb, {"destination": "disk"})]
    assert len(found["events"]) == 1


async def test_nothing_is_steered_that_cannot_be_recorded(rig: Rig) -> None:
    """With the intake down the dispatcher is not asked."""
    rig.door.is_down = True
    async with rig.client() as client:
        assert (await client.post("/v1/destinations/disk/pause")).status_code == 503
    assert rig.asked == []


async def test_a_tenants_key_steers_no_destination_but_replays_its_own(rig: Rig) -> None:
    """Pausing concerns every tenant; a replay of its own events does not."""
    await rig.send("acme", [event(1), event(2)])
    body = {"tenant": "acme", "first_index": 0, "last_index": 1}
    async with rig.client(rig.key("operate", tenants=["acme"])) as client:
        assert (await client.post("/v1/destinations/disk/pause")).status_code == 403
        assert (await client.post("/v1/destinations/disk/replay", json={**body, "tenant": "globex"})).status_code == 404
        assert (await client.post("/v1/destinations/disk/replay", json=body)).status_code == 200
    assert rig.asked == [("replay", {"destination": "disk", **body})]


@pytest.mark.parametrize(("first", "last", "status"), [(0, 9, 422), (2, 1, 422), (-1, 0, 400), (0, "x", 400)])
async def test_a_replay_names_events_that_there_are(rig: Rig, first: Any, last: Any, status: int) -> None:
    """Beyond what is sealed, or the wrong way round, nothing is asked of the dispatcher."""
    await rig.send("acme", [event(1), event(2)])
    async with rig.client() as client:
        body = {"tenant": "acme", "first_index": first, "last_index": last}
        assert (await client.post("/v1/destinations/disk/replay", json=body)).status_code == status
    assert rig.asked == []


async def test_dead_letters_list_show_replay_discard(rig: Rig) -> None:
    """A letter shows its event; replay and discard reach the dispatcher with who asked and why."""
    await rig.send("acme", [event(1)])
    letter_id = file_letter(rig, "acme", 0, "e1")
    async with rig.client() as client:
        listed = (await client.get("/v1/dead-letters", params={"destination": "hook", "state": "open"})).json()
        shown = (await client.get(f"/v1/dead-letters/{letter_id}")).json()
        await client.post(f"/v1/dead-letters/{letter_id}/replay")
        unreasoned = await client.post(f"/v1/dead-letters/{letter_id}/discard", json={"reason": ""})
        await client.post(f"/v1/dead-letters/{letter_id}/discard", json={"reason": "sent by hand"})
        found = (await client.get("/v1/events", params={"tenant": "acme", "query": "action:tallystick.dead_letter.discard"})).json()
    assert [item["id"] for item in listed["dead_letters"]] == [letter_id]
    assert shown["event"]["id"] == "e1"
    assert shown["reply"] == "no"
    assert unreasoned.status_code == 400
    assert rig.asked == [
        ("replay", {"letters": [letter_id]}),
        ("discard", {"letters": [letter_id], "reason": "sent by hand", "by": "root"}),
    ]
    assert found["events"][0]["reason"] == "sent by hand"


async def test_letters_of_other_tenants_do_not_exist(rig: Rig) -> None:
    """They are in no list, and asking for one is like asking for a missing one."""
    await rig.send("globex", [event(1)])
    letter_id = file_letter(rig, "globex", 0, "e1")
    async with rig.client(rig.key("read", "operate", tenants=["acme"])) as client:
        assert (await client.get("/v1/dead-letters")).json()["dead_letters"] == []
        answers = [await client.get(f"/v1/dead-letters/{item}") for item in (letter_id, "hook:99")]
        assert (await client.post(f"/v1/dead-letters/{letter_id}/discard", json={"reason": "mine now"})).status_code == 404
    assert [answer.status_code for answer in answers] == [404, 404]


async def test_a_settled_letter_is_settled(rig: Rig) -> None:
    """Discarding again is a 409, and the dispatcher is not asked."""
    await rig.send("acme", [event(1)])
    letter_id = file_letter(rig, "acme", 0, "e1")
    rig.deps.dead_letters.discard("hook", (0,), reason="gone", by="x", at=2.0)
    async with rig.client() as client:
        assert (await client.post(f"/v1/dead-letters/{letter_id}/replay")).status_code == 409
    assert rig.asked == []


async def test_pages_of_dead_letters(rig: Rig) -> None:
    """`next` leads through all of them once."""
    await rig.send("acme", [event(number) for number in range(5)])
    ids = [file_letter(rig, "acme", number, f"e{number}") for number in range(5)]
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    async with rig.client() as client:
        while True:
            page = (await client.get("/v1/dead-letters", params=params)).json()
            seen += [item["id"] for item in page["dead_letters"]]
            if page["next"] is None:
                break
            params["after"] = page["next"]
        assert (await client.get("/v1/dead-letters", params={"after": "nosuch"})).status_code == 400
    assert seen == ids


async def test_quarantined_records_show_and_replay_once(rig: Rig) -> None:
    """A record comes with its reason and bytes; a replay goes through the inner door once and is then settled."""
    quarantine(rig, "acme", 5, b'{"action":"x"}')
    quarantine(rig, "globex", 6, b"\xff")
    async with rig.client() as client:
        listed = (await client.get("/v1/quarantine")).json()["records"]
        shown = (await client.get("/v1/quarantine/5")).json()
        binary = (await client.get("/v1/quarantine/6")).json()
        done = await client.post("/v1/quarantine/5/replay")
        again = await client.post("/v1/quarantine/5/replay")
        unreadable = await client.post("/v1/quarantine/6/replay")
    assert [(item["id"], item["tenant"], item["message"]) for item in listed] == [
        (5, "acme", "no actor"),
        (6, "globex", "no actor"),
    ]
    assert (shown["data"], shown["encoding"]) == ('{"action":"x"}', "utf-8")
    assert (binary["data"], binary["encoding"]) == ("/w==", "base64")
    assert (done.status_code, again.status_code, unreadable.status_code) == (200, 409, 422)
    assert rig.door.replayed == [("github", "acme", '{"action":"x"}')]


async def test_quarantined_records_are_counted(rig: Rig) -> None:
    """By tenant, source and reason, with one that waits to look at."""
    for seq, tenant in ((5, "acme"), (6, "acme"), (7, "globex")):
        quarantine(rig, tenant, seq, b'{"action":"x"}')
    async with rig.client() as client:
        await client.post("/v1/quarantine/6/replay")
        counts = (await client.get("/v1/quarantine/counts")).json()["counts"]
        of_acme = (await client.get("/v1/quarantine/counts", params={"tenant": "acme"})).json()["counts"]
    assert {(row["tenant"], row["source"], row["code"], row["count"], row["waiting"], row["sample"]) for row in counts} == {
        ("acme", "github", "no_actor", 2, 1, 5),
        ("globex", "github", "no_actor", 1, 1, 7),
    }
    assert [row["tenant"] for row in of_acme] == ["acme"]


async def test_all_that_wait_of_a_source_are_replayed(rig: Rig) -> None:
    """Page by page; one that cannot be sent in again is named and holds up no other; a second time nothing is left but that."""
    for seq in range(5, 9):
        quarantine(rig, "acme", seq, b"\xff" if seq == 6 else b'{"n":%d}' % seq)
    async with rig.client() as client:
        pages, after = [], -1
        while after is not None:
            params = {"source": "github", "code": "no_actor", "after": after, "limit": 2}
            pages.append((await client.post("/v1/quarantine/replay", params=params)).json())
            after = pages[-1]["next"]
        again = (await client.post("/v1/quarantine/replay", params={"source": "github"})).json()
        other = (await client.post("/v1/quarantine/replay", params={"source": "gitlab"})).json()
    assert [(page["tried"], page["accepted"], [row["id"] for row in page["failed"]]) for page in pages] == [(2, 1, [6]), (2, 2, [])]
    assert (again["tried"], [row["code"] for row in again["failed"]], other["tried"]) == (1, ["not_text"], 0)
    assert rig.door.replayed == [("github", "acme", f'{{"n":{seq}}}') for seq in (5, 7, 8)]


async def test_records_of_other_tenants_do_not_exist(rig: Rig) -> None:
    """In lists and by number."""
    quarantine(rig, "globex", 6, b"{}")
    async with rig.client(rig.key("read", "operate", tenants=["acme"])) as client:
        assert (await client.get("/v1/quarantine")).json()["records"] == []
        assert (await client.get("/v1/quarantine/6")).status_code == 404
        assert (await client.post("/v1/quarantine/6/replay")).status_code == 404
