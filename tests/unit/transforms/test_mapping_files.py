"""The mapping files that ship: any record through each of them, and what needs more than a record, as the headers of a hook do."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tallystick.event import Source
from tallystick.event.codec import decode_line, encode_lines
from tallystick.event.stamp import Stamp
from tallystick.plugin import Carrier
from tallystick.transforms import load_mappings

RECEIVED = "2026-03-04T10:00:00.000000Z"
NAMES = {name: sorted({part for path in one.asked for part in path.split(".")}) for name, one in load_mappings().items()}
LEAVES = st.none() | st.booleans() | st.integers(-5, 10**13) | st.sampled_from([0.5, 1e300]) | st.text(max_size=9)


def records(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with members of these names, at any depth, and values of any kind."""
    name = st.sampled_from(names)
    values = st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(name, inner, max_size=4), max_leaves=9
    )
    return st.dictionaries(name, values, min_size=1, max_size=9)


ISSUE = {
    "action": "opened",
    "issue": {"number": 7, "title": "No light", "updated_at": "2026-03-04T09:00:00Z"},
    "repository": {"full_name": "acme/shop", "owner": {"login": "acme"}},
    "sender": {"login": "ann", "type": "User"},
}


def test_the_header_of_a_github_hook_names_the_event() -> None:
    """The name in `X-GitHub-Event` goes before what the members look like; the delivery's id is that of the event."""
    carrier = Carrier(more={"hook": {"x-github-event": "issues", "x-github-delivery": "d-1"}})
    mapping = load_mappings()["github_webhook"]
    (event,) = mapping.map_batch([json.dumps(ISSUE).encode()], [carrier]).events
    assert event.action == "issues.opened"
    assert str(event.id).startswith("d-1.")
    assert event.context
    assert event.context.request_id == "d-1"
    ping = Carrier(more={"hook": {"x-github-event": "ping", "x-github-delivery": "d-2"}})
    (event,) = mapping.map_batch([b'{"zen":"Design for failure.","hook_id":1}'], [ping]).events
    assert event.action == "ping"


def test_without_the_header_the_members_tell() -> None:
    """A hook that was read from a queue or a file has no headers."""
    (event,) = load_mappings()["github_webhook"].map(json.dumps(ISSUE).encode()).events
    assert event.action == "issues.opened"
    assert event.actor.id == "ann"
    assert event.targets
    assert [target.id for target in event.targets] == ["acme/shop#7", "acme/shop"]
    assert event.occurred_at == "2026-03-04T09:00:00.000000Z"


@example({"USER_NAME": {}, "EVENT_TYPE": "LOGIN"})
@example({"author_id": [], "entity_id": 1, "entity_type": "User"})
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(name for name in NAMES if NAMES[name])).flatmap(lambda name: records(NAMES[name])))
def test_any_record_is_an_event_or_a_problem_with_a_reason(record: dict[str, Any]) -> None:
    """Members of the right names with values of the wrong kind: what comes out is a whole line, or has a code."""
    text = json.dumps(record).encode()
    stamp = Stamp("acme", RECEIVED, Source(name="s", type="http"))
    for mapping in load_mappings().values():
        result = mapping.map(text)
        assert result.events or result.problems or b"[]" in text
        assert all(problem.code and problem.message for problem in result.problems)
        for line in encode_lines(result.events, stamp):
            assert decode_line(line).action
