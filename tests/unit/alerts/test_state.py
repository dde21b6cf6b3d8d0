"""What the log says of an alert's state."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tallystick.alerts.state import FROM, LEADS_TO, read_alert, read_changes

AT = "2026-03-04T05:06:07.000000Z"


def line(action: str, **members: Any) -> bytes:
    event = {
        "id": "x",
        "tenant": "acme",
        "occurred_at": AT,
        "received_at": AT,
        "action": action,
        "actor": {"type": "user", "id": "ana"},
    }
    return json.dumps(event | members).encode()


def test_changes_are_in_the_order_of_the_log_and_by_alert() -> None:
    """With who, when and why; other actions and events without an alert count for nothing."""
    found = read_changes(
        [
            line("tallystick.alert.acknowledge", reason="on it", metadata={"alert": "a"}),
            line("tallystick.alert.close", metadata={"alert": "b"}),
            line("tallystick.alert.close", metadata={"alert": "a"}),
            line("tallystick.alert.paint", metadata={"alert": "a"}),
            line("tallystick.alert.close", metadata={}),
        ]
    )
    assert [(one.state, one.by, one.note) for one in found["a"]] == [("acknowledged", "ana", "on it"), ("closed", "ana", "")]
    assert [one.state for one in found["b"]] == ["closed"]
    assert set(found) == {"a", "b"}


@given(
    st.dictionaries(
        st.sampled_from(["rule", "severity", "group", "actor", "events", "attack", "first_at"]), st.sampled_from(["", "x"])
    )
)
def test_an_alert_with_little_in_it_is_read(facts: dict[str, str]) -> None:
    """Whatever a later or earlier version leaves out."""
    shaped = {
        name: {} if name in ("group", "actor") else [] if name in ("events", "attack") else value for name, value in facts.items()
    }
    found = read_alert(line("tallystick.alert", severity=4, metadata=shaped))
    assert found.severity in ("high", "x")
    assert found.count == 1


def test_every_verb_leads_to_a_state_that_it_does_not_start_from() -> None:
    """Nothing is done twice without a word."""
    assert all(LEADS_TO[verb] not in FROM[verb] for verb in LEADS_TO)
