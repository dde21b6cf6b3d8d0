"""`query.drift`: what one sample of events has and the other has not."""

from __future__ import annotations

from typing import Any

from tallystick.query.drift import Sample, compare


def sample(*events: dict[str, Any]) -> Sample:
    made = Sample()
    for event in events:
        made.add(event)
    return made


def test_what_came_and_what_went() -> None:
    """Paths with the share of events that have them; elements of lists have one path, names are escaped, server members are left out."""
    before = sample(
        *[{"id": "1", "action": "a", "metadata": {"old": 1, "list": [{"x": 1}, {"y": []}]}}] * 3, {"action": "b", "metadata": {}}
    )
    after = sample(
        {"id": "2", "action": "a", "metadata": {"a/b": 1, "list": [{"x": 2}]}, "ingest": {"flags": ["f"]}}, {"action": "c"}
    )
    assert compare(before, after) == {
        "events_before": 4,
        "events_after": 2,
        "new_fields": {"/metadata/a~1b": 0.5},
        "vanished_fields": {"/metadata/old": 0.75, "/metadata/list/*/y": 0.75, "/metadata": 0.25},
        "new_actions": {"c": 0.5},
        "vanished_actions": {"b": 0.25},
    }


def test_what_is_rare_may_be_missing_by_chance() -> None:
    """One event in two hundred had it: that says nothing."""
    before = sample(*[{"action": "a"}] * 199, {"action": "rare"})
    assert compare(before, sample({"action": "a"}))["vanished_actions"] == {}
