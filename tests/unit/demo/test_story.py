"""The demo's story: the same every time, in the past, and every step of it is found by one query."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import pytest

from tallystick.demo.cast import INTRUDER, Told
from tallystick.demo.story import tell
from tallystick.event import Source
from tallystick.event.codec import EventReader, decode_line, encode_lines
from tallystick.event.stamp import Stamp
from tallystick.query.evaluate import compile_query
from tallystick.transforms import load_mappings

NOW = datetime(2026, 3, 20, 9, 30, tzinfo=UTC)
MAPPINGS = {"github": "github_audit", "cloudtrail": "aws_cloudtrail"}


def canonical(told: Told) -> bytes:
    """The line that the intake makes of one record of the story."""
    record = msgspec.json.encode(told.record)
    if told.source == "events":
        batch = EventReader().read_records([record])
        assert not batch.errors, batch.errors
        events, mapping = batch.events, None
    else:
        mapping = MAPPINGS[told.source]
        result = load_mappings()[mapping].map(record, source_type=told.source, peer="", keep_raw=True)
        assert not result.problems, result.problems
        events = result.events
    stamp = Stamp(told.tenant, "2026-03-20T09:30:00.000000Z", Source(name=told.source, type="http"), mapping)
    (line,) = encode_lines(events, stamp)
    return line


@cache
def story() -> list[dict[str, Any]]:
    return [msgspec.json.decode(canonical(told)) for told in tell(NOW)]


def found(query: str) -> list[dict[str, Any]]:
    matches = compile_query(query)
    return [event for event in story() if matches(event)]


def test_it_is_the_same_every_time() -> None:
    """Fixed seed: screenshots and tests agree."""
    assert tell(NOW) == tell(NOW)


def test_every_record_becomes_an_event_that_reads_back() -> None:
    """About 600 of two tenants and four products, none refused."""
    assert 500 <= len(story()) <= 700
    assert {event["tenant"] for event in story()} == {"northwind", "globex"}
    products = {event["source"]["name"] for event in story()} | {event.get("metadata", {}).get("product") for event in story()}
    assert {"events", "github", "cloudtrail", "okta"} <= products
    for told in tell(NOW)[::50]:
        assert decode_line(canonical(told)).action


@pytest.mark.parametrize("hour", [0, 9, 23])
def test_times_are_in_the_last_days_and_in_order(hour: int) -> None:
    """At any hour of the day: five days that end before now."""
    now = NOW.replace(hour=hour, minute=0, second=1)
    times = [told.at for told in tell(now)]
    assert times == sorted(times)
    assert now - timedelta(days=6) < times[0] < times[-1] < now
    assert len({time.date() for time in times}) == 5


def test_a_second_telling_is_the_same_events() -> None:
    """What a repeat is recognised by is distinct within the story, source by source."""
    told = tell(NOW)
    for source, key in (("github", "_document_id"), ("cloudtrail", "eventID")):
        ids = [one.record[key] for one in told if one.source == source]
        assert len(ids) == len(set(ids)) > 0
    times = [(one.tenant, one.at) for one in told if one.source == "events"]
    assert len(times) == len(set(times))


STEPS = (
    ("action:user.login AND actor.id:u_204 AND ip:203.0.113.0/24", 1, "a login from a new country"),
    ("action:impersonation.start", 1, "the support agent acts as the customer's admin"),
    ("action:api_key.create", 1, "a key is made"),
    ("action:customer.export", 3, "customer lists are exported"),
    ("action:customer.export AND outcome:denied", 1, "the last of them is denied"),
    (f'ip:{INTRUDER} AND "ci-mirror"', 1, "a deploy key is added"),
    (f'ip:{INTRUDER} AND "prod/northwind/billing-db"', 1, "a secret is read"),
    ("action:audit.settings.update AND outcome:denied", 1, "the audit log itself is tried"),
    ("action:api_key.delete", 1, "the key is deleted"),
    ("action:impersonation.end", 1, "the customer is let go"),
    (f"action:user.logout AND ip:{INTRUDER}", 1, "the session ends"),
    ("action:incident.report AND actor.id:u_204", 1, "the victim reports a phishing mail"),
    ("action:session.revoke", 1, "her sessions are revoked"),
    ("action:user.password.reset", 1, "her password is reset"),
    ('"ci-mirror" AND actor.id:abrennan', 1, "the deploy key is taken away"),
    ('action:incident.update AND "svc-reporting-2"', 1, "the key is found by its deletion"),
)


@pytest.mark.parametrize(("query", "count", "step"), STEPS, ids=[step for _, _, step in STEPS])
def test_each_step_is_found_by_one_query(query: str, count: int, step: str) -> None:
    """And by nothing more than that query."""
    assert len(found(query)) == count, step


def test_the_steps_join_by_address_over_all_products() -> None:
    """One address leads from the sign-on through the app and GitHub to AWS, in both tenants, in order of time."""
    events = found(f"ip:{INTRUDER}")
    assert len(events) == 12
    assert {event["source"]["name"] for event in events} == {"events", "github", "cloudtrail"}
    assert {event["tenant"] for event in events} == {"northwind", "globex"}
    times = [event["occurred_at"] for event in events]
    assert times == sorted(times)
    assert times[-1][:10] == times[0][:10]


def test_the_login_follows_the_logout_by_twelve_minutes() -> None:
    """In Dublin at 16:40, in Bucharest at 16:52: nobody travels like that."""
    (login,) = found(STEPS[0][0])
    out = [event for event in found("action:user.logout AND actor.id:u_204") if event["occurred_at"] < login["occurred_at"]]
    gap = datetime.fromisoformat(login["occurred_at"]) - max(datetime.fromisoformat(event["occurred_at"]) for event in out)
    assert gap == timedelta(minutes=12)
    assert (login["context"]["location"], out[-1]["context"]["location"]) == ("Bucharest, RO", "Dublin, IE")


def test_one_event_shows_before_and_after() -> None:
    """The attempt on the audit settings is worth a look at its changes."""
    (event,) = found("action:audit.settings.update")
    assert event["changes"] == [
        {"path": "/filters/noise/drop", "op": "replace", "before": "action:health.check", "after": "action:*.export"}
    ]


def test_the_odd_stands_out() -> None:
    """The address, the export and the impersonation are in no ordinary day."""
    ordinary = [event for event in story() if event.get("context", {}).get("ip") != INTRUDER]
    actions = {event["action"] for event in ordinary}
    assert not actions & {"customer.export", "impersonation.start", "api_key.create", "audit.settings.update"}
    assert sum(event["outcome"] == "failure" for event in ordinary) > 0


def _days() -> Iterator[str]:
    yield from sorted({event["occurred_at"][:10] for event in story()})


def test_every_day_has_ordinary_life() -> None:
    """Nobody has to guess which day is the interesting one from its size."""
    counts = [sum(event["occurred_at"].startswith(day) for event in story()) for day in _days()]
    assert min(counts) > 80
    assert max(counts) < 2 * min(counts)
