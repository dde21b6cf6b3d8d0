"""The retention page and its forms."""

from __future__ import annotations

import re

import httpx

from support.api_rig import Rig, event
from tallystick.archive.hold import Holds

ORIGIN = {"origin": "http://127.0.0.1:8420"}


async def test_a_hold_is_placed_reviewed_and_lifted_by_forms(rig: Rig, browser: httpx.AsyncClient) -> None:
    """Each form does what the API does; what it leaves out is refused with its place, and a reader gets no forms."""
    await rig.send("acme", [event(1)])
    page = await browser.get("/retention")
    assert page.status_code == 200
    assert "standard" in page.text
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found
    token = {"csrf": found[1]}
    fields = {**token, "tenant": "acme", "query": "", "reason": "a <case>", "owner": "ana", "review": "2020-01-01"}
    bad = await browser.post("/holds", data={**fields, "review": "soon"}, headers=ORIGIN)
    assert (bad.status_code, "review" in bad.text) == (400, True)
    assert (await browser.post("/holds", data={**fields, "csrf": "x"}, headers=ORIGIN)).status_code == 403
    assert (await browser.post("/holds", data=fields, headers=ORIGIN)).status_code == 303
    (hold,) = Holds(rig.config.data_dir).load()
    text = (await browser.get("/retention")).text
    assert "a &lt;case&gt;" in text
    assert "overdue" in text
    done = {**token, "note": "goes on", "review": "2030-01-01"}
    assert (await browser.post(f"/holds/{hold.id}/review", data=done, headers=ORIGIN)).status_code == 303
    assert "overdue" not in (await browser.get("/retention")).text
    assert (await browser.post(f"/holds/{hold.id}/lift", data={**token, "reason": "closed"}, headers=ORIGIN)).status_code == 303
    assert "lifted" in (await browser.get("/retention")).text
    assert (await browser.post(f"/holds/{hold.id}/lift", data={**token, "reason": "closed"}, headers=ORIGIN)).status_code == 409
    assert (await browser.post("/retention/resume", data=token, headers=ORIGIN)).status_code == 409
    async with rig.client(None, headers={"accept": "text/html"}) as client:
        await client.post("/login", data={"key": rig.key("read")}, headers=ORIGIN)
        assert 'action="/holds' not in (await client.get("/retention")).text


async def test_certificates_are_shown_and_reading_them_is_on_record(rig: Rig, browser: httpx.AsyncClient) -> None:
    """What went, and keys that were destroyed, in words; the read of the log is an event."""
    await rig.send("acme", [event(1)])
    at = "2026-03-17T12:00:00Z"
    await rig.door.append_entry("acme", "x:1", {"type": "expiry", "at": at, "class": "short", "period": "90d", "count": 1_234})
    await rig.door.append_entry(
        "acme", "x:2", {"type": "expiry", "at": at, "class": "short", "month": "2025-01", "key": "destroyed"}
    )
    rig.sealer.seal()
    text = (await browser.get("/retention")).text
    assert "1,234 events, kept for 90d" in text
    assert "the key of 2025-01 was destroyed" in text
    async with rig.client() as client:
        found = await client.get("/v1/events", params={"tenant": "acme", "query": "action:tallystick.log.read"})
    assert found.json()["events"]
