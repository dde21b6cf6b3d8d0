"""Alarms: from what a status page says to events, with patience in both directions."""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.alerts.alarm import Alarms, AlarmState, Thresholds, conditions

PATIENT = Thresholds(raise_after_s=60, clear_after_s=300, lag_s=900, dead_letters=2)
AT = "2026-03-04T05:06:07.000000Z"


def row(**facts: Any) -> dict[str, Any]:
    return {"state": "running", "reason": "", "pending": 0, "lag_seconds": 0.0, "dead_lettered": 0, **facts}


def page(*reasons: str, **destinations: dict[str, Any]) -> dict[str, Any]:
    return {"reasons": list(reasons), "destinations": destinations}


def actions(alarms: Alarms) -> list[tuple[str, str]]:
    return [(event["action"].rpartition(".")[2], event["metadata"]["alarm"]) for event in alarms.state.owed]


def test_each_trouble_has_one_name_whatever_it_says() -> None:
    """By what a reason is about, with lag, pauses and dead letters beside."""
    status = page(
        "destination lake: parked, HTTP 403",
        "source okta: silent since 5:00, expected every 60 s",
        "archiver: the disk is full",
        "archiver: silent for 20 s",
        lake=row(state="parked", pending=4, lag_seconds=901.0),
        mail=row(state="paused"),
        hook=row(dead_lettered=7),
    )
    assert conditions(status, {"hook": 5}, PATIENT) == {
        "archiver": "the disk is full; silent for 20 s",
        "destination hook dead letters": "2 more events were refused for good",
        "destination lake": "parked, HTTP 403",
        "destination lake lags": "4 events wait, the oldest for more than 900 s",
        "destination mail": "paused by an operator",
        "source okta": "silent since 5:00, expected every 60 s",
    }


def test_an_alarm_is_raised_once_and_cleared_once() -> None:
    """After it lasted, whatever its words; and after it was gone for long enough."""
    alarms = Alarms(PATIENT)
    for now in range(0, 400, 10):
        alarms.look(page(f"sealer: {now}"), now, AT)
    assert actions(alarms) == [("raised", "sealer")]
    for now in range(400, 1_000, 10):
        alarms.look(page(), now, AT)
    assert actions(alarms) == [("raised", "sealer"), ("cleared", "sealer")]
    raised, cleared = alarms.state.owed
    assert raised["id"] != cleared["id"]
    assert (raised["outcome"], cleared["outcome"]) == ("failure", "success")
    assert raised["reason"] == "60"


def test_what_comes_and_goes_is_no_event() -> None:
    """Neither short troubles nor short recoveries."""
    alarms = Alarms(PATIENT)
    for now in range(0, 3_000, 10):
        alarms.look(page("sealer: x") if now % 100 < 50 else page(), now, AT)
    assert actions(alarms) == []
    for now in range(3_000, 9_000, 10):
        alarms.look(page("sealer: x") if now % 300 < 200 else page(), now, AT)
    assert actions(alarms) == [("raised", "sealer")]


def test_a_restart_raises_nothing_twice() -> None:
    """What stands is in the state, and so is what is owed; the rest of the waiting begins anew."""
    alarms = Alarms(PATIENT)
    for now in (0, 60):
        assert alarms.look(page("sealer: x"), now, AT) == (now == 60)
    again = Alarms(PATIENT, msgspec.json.decode(msgspec.json.encode(alarms.state), type=AlarmState))
    assert again.state == alarms.state
    for now in range(0, 200, 10):
        again.look(page("sealer: x"), now, AT)
    assert actions(again) == [("raised", "sealer")]
    assert again.state.owed[0]["id"] == alarms.state.owed[0]["id"]


def test_dead_letters_are_told_when_there_are_more() -> None:
    """Those that were there at first are no news; an alarm stands while more of them come, and then clears."""
    alarms = Alarms(PATIENT)
    for now in range(0, 200, 10):
        alarms.look(page(hook=row(dead_lettered=5)), now, AT)
    assert actions(alarms) == []
    for now in range(200, 600, 10):
        alarms.look(page(hook=row(dead_lettered=5 + now)), now, AT)
    assert actions(alarms) == [("raised", "destination hook dead letters")]
    for now in range(600, 1_000, 10):
        alarms.look(page(hook=row(dead_lettered=605)), now, AT)
    assert actions(alarms)[1:] == [("cleared", "destination hook dead letters")]
    for now in range(1_000, 1_200, 10):
        alarms.look(page(hook=row(dead_lettered=607)), now, AT)
    assert actions(alarms)[2:] == [("raised", "destination hook dead letters")]
