"""What the pages of actors and targets compute, and the pages themselves."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from support.api_rig import Rig, event
from tallystick.console.blame import find_blame
from tallystick.console.patterns import count_hours, list_places, list_sessions, usual_hours


def at(hour: int, day: int = 17) -> dict[str, Any]:
    return {"occurred_at": f"2026-03-{day:02d}T{hour:02d}:30:00Z"}


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        ([9, 10, 11, 12, 13, 14, 15, 16] * 5 + [3], "09:00 to 17:00 UTC"),
        ([22, 23, 0, 1] * 5, "22:00 to 02:00 UTC"),
        (list(range(24)), "00:00 to 22:00 UTC"),
        ([5], "05:00 to 06:00 UTC"),
        ([], ""),
    ],
)
def test_usual_hours_are_the_shortest_stretch_with_nine_of_ten(hours: list[int], words: str) -> None:
    """Over midnight too; one odd night does not widen it."""
    assert usual_hours(count_hours([at(hour) for hour in hours])) == words


def test_hours_without_a_readable_time_count_for_nothing() -> None:
    """An event without a time is in no hour."""
    assert count_hours([{"occurred_at": "yesterday"}]) == []


def seen(hour: int, **context: str) -> dict[str, Any]:
    return {**at(hour), "context": context}


def test_places_and_sessions_have_their_first_and_last() -> None:
    """Grouped by address and place, and by session, with the addresses in the order of their use."""
    events = [
        seen(12, ip="192.0.2.2", session_id="s1"),
        seen(11, ip="192.0.2.1", session_id="s1", location="IE"),
        seen(10, ip="192.0.2.1", location="IE"),
        seen(9),
    ]
    first, second = list_places(events)
    assert (first.ip, first.location, first.count, first.first, first.last) == (
        "192.0.2.1", "IE", 2, "2026-03-17T10:30:00Z", "2026-03-17T11:30:00Z",
    )  # fmt: skip
    assert second.ip == "192.0.2.2"
    (session,) = list_sessions(events)
    assert (session.count, session.ips, session.first) == (2, ("192.0.2.1", "192.0.2.2"), "2026-03-17T11:30:00Z")


def change(number: int, path: str, after: Any, **members: Any) -> dict[str, Any]:
    op = "remove" if after is None else "replace"
    return {
        "id": f"e{number}", "occurred_at": f"2026-03-17T12:00:{number:02d}Z", "outcome": "success",
        "actor": {"id": f"u{number}", "name": f"N{number}"}, "targets": [{"type": "role", "id": "r1"}],
        "changes": [{"path": path, "op": op, "before": "x", **({} if after is None else {"after": after})}], **members,
    }  # fmt: skip


def test_blame_is_the_last_change_that_succeeded() -> None:
    """Denied attempts, other targets and earlier changes set nothing; a removal stands as one."""
    events = [
        change(9, "/a", "never", outcome="denied"),
        change(8, "/a", "other", targets=[{"type": "role", "id": "r2"}, {"type": "role", "id": "r1"}]),
        change(7, "/b", None),
        change(5, "/a", "now"),
        change(3, "/a", "before"),
        change(2, "/b", "once"),
    ]
    a, b = find_blame(events, "role", "r1")
    assert (a.path, a.change.after, a.by, a.actor, a.event, a.earlier) == ("/a", "now", "N5", "u5", "e5", 1)
    assert (b.path, b.change.op, b.earlier) == ("/b", "remove", 1)
    assert find_blame(events, "user", "r1") == []


def test_two_changes_of_a_path_in_one_event_leave_the_last() -> None:
    """Within an event the order of the list is the order of the changes."""
    twice = change(1, "/a", "x")
    twice["changes"] += [{"path": "/a", "op": "replace", "before": "x", "after": "y"}]
    (setting,) = find_blame([twice], "", "r1")
    assert (setting.change.after, setting.earlier) == ("y", 1)


async def test_the_pages_of_an_actor_and_a_target(rig: Rig, browser: httpx.AsyncClient) -> None:
    """First seen, places, sessions and blame are on them, hostile names as text; the view is on record as a search."""
    hostile = '<img src=x onerror=alert(1)>"'
    context = {"ip": "192.0.2.1", "session_id": "s1"}
    target = {"type": "role", "id": hostile, "name": "Admins"}
    changes = [{"path": "/members", "op": "replace", "before": 1, "after": 2}]
    await rig.send("acme", [event(1, context=context, targets=[target], changes=changes), event(2)])
    actor = await browser.get("/actor", params={"tenant": "acme", "id": "u_1"})
    assert actor.status_code == 200
    assert all(words in actor.text for words in ("First seen", "192.0.2.1", ">s1<", "Usual hours", "Admins"))
    target_page = (await browser.get("/target", params={"tenant": "acme", "id": hostile, "type": "role"})).text
    assert "Who set this value" in target_page
    assert "/members" in target_page
    assert "<img src=x" not in target_page
    assert "No event of this tenant names it" in (await browser.get("/actor", params={"tenant": "acme", "id": "nobody"})).text
    assert (await browser.get("/actor", params={"tenant": "acme"})).status_code == 400
    assert (await browser.get("/actor", params={"tenant": "nosuch", "id": "u_1"})).status_code == 404
    rows = await rig.client().get("/v1/events", params={"tenant": "acme", "query": "action:tallystick.search"})
    assert {"actor", "target"} <= {row["metadata"].get("view") for row in rows.json()["events"]}
