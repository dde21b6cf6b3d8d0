"""The pagerduty destination, against a receiver that answers as the published description of its Events API says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.delivery import make_cut, make_line
from tallystick.config import Duration
from tallystick.destinations.pagerduty import PagerDutyDestination, PagerDutySettings
from tallystick.errors import ConfigError
from tallystick.plugin import AnswerKind
from tallystick.testing.pagerduty import PagerDutyReceiver
from tallystick.testing.receiver import Said


@pytest.fixture
def receiver() -> Iterator[PagerDutyReceiver]:
    with PagerDutyReceiver() as running:
        yield running


def destination(receiver: PagerDutyReceiver, **changes: Any) -> PagerDutyDestination:
    mine = {"url": receiver.url, "allow_private": True, "routing_key": receiver.routing_key, "interval": Duration("1ms")}
    return PagerDutyDestination("pager", PagerDutySettings(**(mine | changes)))


def line(index: int, action: str, metadata: dict[str, Any], **facts: Any) -> bytes:
    event = json.loads(make_line(index, action=action))
    return json.dumps(event | {"metadata": metadata, "severity": 4} | facts).encode()


def alert(index: int, actor: str) -> bytes:
    return line(
        index,
        "tallystick.alert",
        {"rule": "denials", "group": {"actor": actor}},
        targets=[{"type": "rule", "id": "d", "name": "Denied"}],
    )


def change(index: int, verb: str, actor: str) -> bytes:
    return line(index, f"tallystick.alert.{verb}", {"alert": "alert:denials:1", "rule": "denials", "group": {"actor": actor}})


async def test_an_alert_triggers_and_its_state_follows(receiver: PagerDutyReceiver) -> None:
    """Alerts of one group are one incident, and acknowledging, closing and reopening finds it."""
    pager = destination(receiver)
    steps = []
    for index, one in enumerate(
        [
            alert(0, "u_1"),
            alert(1, "u_1"),
            alert(2, "u_2"),
            change(3, "acknowledge", "u_1"),
            change(4, "close", "u_1"),
            change(5, "reopen", "u_1"),
        ]
    ):
        assert (await pager.send(make_cut(pager, [one], index))).kind is AnswerKind.DELIVERED
        steps.append(sorted(receiver.open.values()))
    await pager.close()
    assert steps == [
        ["triggered"], ["triggered"], ["triggered", "triggered"], ["acknowledged", "triggered"], ["triggered"], ["triggered", "triggered"],
    ]  # fmt: skip
    payload = receiver.events[0]["payload"]
    assert (payload["severity"], payload["source"]) == ("error", "acme")
    assert payload["summary"] == "Denied (acme) by u_0"
    assert payload["timestamp"] == "2026-03-04T05:06:07.000000Z"


async def test_an_alarm_resolves_when_it_clears(receiver: PagerDutyReceiver) -> None:
    """By the alarm's name."""
    pager = destination(receiver)
    raised, cleared = (
        line(n, f"tallystick.alarm.{verb}", {"alarm": "destination:lake"}) for n, verb in enumerate(("raised", "cleared"))
    )
    await pager.send(make_cut(pager, [raised]))
    assert len(receiver.open) == 1
    await pager.send(make_cut(pager, [cleared], 1))
    await pager.close()
    assert receiver.open == {}


async def test_a_refused_event_costs_nothing_but_itself(receiver: PagerDutyReceiver) -> None:
    """400 for one of three: the others are taken, and that one is settled with what was said."""
    receiver.script = [Said(202), Said(400, b'{"errors":["too odd"]}'), Said(202)]
    pager = destination(receiver)
    answer = await pager.send(make_cut(pager, [make_line(index) for index in range(3)]))
    await pager.close()
    assert answer.kind is AnswerKind.DELIVERED
    assert list(answer.refused) == [1]
    assert "too odd" in answer.refused[1]


async def test_a_retry_goes_on_where_it_stopped(receiver: PagerDutyReceiver) -> None:
    """The second of three fails for a time: the first is not sent again."""
    pager = destination(receiver)
    cut = make_cut(pager, [make_line(index) for index in range(3)])
    receiver.script = [Said(202), Said(429, b"", {"retry-after": "7"})]
    waiting = await pager.send(cut)
    assert (waiting.kind, waiting.retry_after_s) == (AnswerKind.THROTTLE, 7.0)
    assert (await pager.send(cut)).kind is AnswerKind.DELIVERED
    await pager.close()
    assert [event["payload"]["custom_details"]["id"] for event in receiver.events] == ["acme-1", "acme-2"]


async def test_the_routing_key_is_in_no_cut(receiver: PagerDutyReceiver) -> None:
    """It joins when a request is made."""
    pager = destination(receiver)
    assert receiver.routing_key.encode() not in make_cut(pager, [make_line(0)]).body
    await pager.close()


async def test_summaries_and_details_have_a_bound(receiver: PagerDutyReceiver) -> None:
    """1,024 characters, and metadata only while it is small."""
    pager = destination(receiver, severity="warning")
    await pager.send(make_cut(pager, [line(0, "a.b", {"x": "y" * 20_000}, severity=0, reason="z" * 2_000)]))
    await pager.close()
    payload = receiver.events[0]["payload"]
    assert len(payload["summary"]) == 1_024
    assert "metadata" not in payload["custom_details"]
    assert payload["severity"] == "warning"


def test_one_form_and_a_sound_key(receiver: PagerDutyReceiver) -> None:
    """Another encoding and a key with a line break are refused."""
    for changes in ({"encoding": "ecs"}, {"routing_key": "a\nb"}):
        with pytest.raises(ConfigError):
            PagerDutySettings(**({"routing_key": "k"} | changes)).check()
