"""What the mapping files of single products need more than a record for: headers of a hook."""

from __future__ import annotations

import json

from tallystick.plugin import Carrier
from tallystick.transforms import load_mappings

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
