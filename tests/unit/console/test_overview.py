"""The overview's words and numbers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from support.api_rig import Rig, event
from tallystick.console.overview_page import health_words

GOOD: dict[str, Any] = {
    "ready": True,
    "destinations": {"disk": {"pending": 0}},
    "tenants": {"acme": {"accepted": 5, "sealed": 5}},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "Events are accepted, every destination has all that is sealed."),
        ({"destinations": {}}, "Events are accepted."),
        ({"destinations": {"disk": {"pending": 3}, "hook": {"pending": 1}}}, "Events are accepted, disk, hook are behind."),
        (
            {"tenants": {"acme": {"accepted": 7, "sealed": 5}}, "destinations": {"disk": {"pending": 1}}},
            "Events are accepted, 2 are on disk and not sealed yet, disk is behind.",
        ),
        ({"ready": False}, "No events are accepted now."),
    ],
)
def test_health_in_words(change: dict[str, Any], words: str) -> None:
    """One sentence, the gravest first."""
    assert health_words({**GOOD, **change}) == words


async def test_the_overview_counts_by_tenant_and_source(rig: Rig, browser: httpx.AsyncClient) -> None:
    """All tenants together and each by itself; the view is on record as a search."""
    await rig.send("acme", [event(1), event(2, outcome="denied")])
    await rig.send("globex", [event(3, actor={"type": "user", "id": "<b>"})])
    page = (await browser.get("/overview")).text
    assert "<strong>3</strong> events" in page
    assert "By tenant" in page
    assert "By source" in page
    assert "&lt;b&gt;" in page
    one = (await browser.get("/overview", params={"tenant": "globex"})).text
    assert "<strong>1</strong> event" in one
    assert "By tenant" not in one
    assert (await browser.get("/overview?tenant=nosuch")).status_code == 404
    async with rig.client() as client:
        found = await client.get("/v1/events", params={"tenant": "globex", "query": "action:tallystick.search"})
    assert [row["metadata"].get("view") for row in found.json()["events"]].count("overview") == 1
