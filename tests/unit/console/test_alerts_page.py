"""The console's alerts page."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import httpx

from support.api_rig import Rig

ORIGIN = {"origin": "http://127.0.0.1:8420"}
ID = "alert:denials:1"
ALERT: dict[str, Any] = {
    "id": ID,
    "action": "tallystick.alert",
    "severity": 4,
    "actor": {"type": "system", "id": "tallystick"},
    "targets": [{"type": "rule", "id": "denials", "name": "<b>Denied</b>"}],
    "reason": "Somebody tries.",
    "metadata": {"rule": "denials", "severity": "high", "group": {"actor": "<i>u"}, "count": 2, "events": ["e1", "e2"]},
}


async def test_an_alert_is_listed_closed_and_found_again(rig: Rig, browser: httpx.AsyncClient) -> None:
    """With a link to its events; the form closes it with a note, and the page of the alert tells by whom and why."""
    await rig.door.append_events("acme", [ALERT])
    page = await browser.get("/alerts")
    assert "&lt;b&gt;Denied&lt;/b&gt;" in page.text
    assert "<i>u" not in page.text
    assert "id%3A%22e1%22+OR+id%3A%22e2%22" in page.text
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert csrf
    form = {"csrf": csrf[1], "tenant": "acme", "note": "a test of ours"}
    target = f"/alerts/{quote(ID, safe='')}/close"
    assert (await browser.post(target, data={**form, "csrf": "wrong"}, headers=ORIGIN)).status_code == 403
    done = await browser.post(target, data=form, headers=ORIGIN)
    assert done.status_code == 303
    shown = await browser.get(done.headers["location"])
    assert "closed" in shown.text
    assert "a test of ours" in shown.text
    assert "by <bdi>root</bdi>" in shown.text
    assert ID not in (await browser.get("/alerts")).text
    assert quote(ID, safe="") in (await browser.get("/alerts?state=closed")).text


async def test_who_may_only_read_has_no_buttons(rig: Rig) -> None:
    """And a form of their own making is refused."""
    await rig.door.append_events("acme", [ALERT])
    async with rig.client(None, headers={"accept": "text/html"}) as client:
        await client.post("/login", data={"key": rig.key("read", tenants=["acme"]), "next": "/"}, headers=ORIGIN)
        page = await client.get("/alerts")
        assert "Denied" in page.text
        assert "/close" not in page.text
        csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
        assert csrf
        answer = await client.post(f"/alerts/{quote(ID, safe='')}/close", data={"csrf": csrf[1], "tenant": "acme"}, headers=ORIGIN)
        assert answer.status_code == 403
