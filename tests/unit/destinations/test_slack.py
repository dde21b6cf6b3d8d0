"""The slack destination, against a receiver that slack-sdk, Slack's own client, is happy with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from slack_sdk.webhook import WebhookClient

from support.delivery import make_cut, make_line
from tallystick.config import Duration
from tallystick.destinations.slack import SlackDestination, SlackSettings
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind
from tallystick.testing.receiver import Said
from tallystick.testing.slack import SlackReceiver

LINES = [make_line(index) for index in range(3)]


@pytest.fixture
def receiver() -> Iterator[SlackReceiver]:
    with SlackReceiver() as running:
        yield running


def settings(receiver: SlackReceiver, **changes: Any) -> SlackSettings:
    return SlackSettings(**({"url": receiver.webhook, "allow_private": True, "interval": Duration("1ms")} | changes))


async def send(receiver: SlackReceiver, *answers: Said, lines: list[bytes] = LINES) -> Answer:
    destination = SlackDestination("chat", settings(receiver))
    receiver.script = list(answers)
    answer = await destination.send(make_cut(destination, lines))
    await destination.close()
    return answer


def test_the_receiver_answers_as_slacks_own_client_expects(receiver: SlackReceiver) -> None:
    """A text is `ok`, no text is an error by name, another path is none."""
    client = WebhookClient(receiver.webhook)
    taken, empty = client.send(text="hello"), client.send(text="")
    assert (taken.status_code, taken.body, receiver.messages) == (200, "ok", ["hello"])
    assert (empty.status_code, empty.body) == (400, "no_text")
    assert WebhookClient(receiver.url + "/services/x").send(text="y").body == "no_service"


async def test_a_message_has_a_line_for_each_event(receiver: SlackReceiver) -> None:
    """Tenant, then when, what, who, and how it ended."""
    assert (await send(receiver)).kind is AnswerKind.DELIVERED
    title, *said = receiver.messages[0].split("\n")
    assert title == "*acme*"
    assert said[0] == "03-04 05:06:07Z `user.login` by u_0: success · acme-0"
    assert len(said) == 3


async def test_nothing_in_an_event_is_markup_or_a_mention(receiver: SlackReceiver) -> None:
    """Names that would call the channel, make a link, break the line or run on for ever."""
    event = json.loads(LINES[0])
    event["actor"] = {"type": "user", "id": "u", "name": "<!channel> & *Ann*\n`x`"}
    event["targets"] = [{"type": "file", "id": "f" * 300}]
    event["reason"] = "<https://evil.example|click>"
    await send(receiver, lines=[json.dumps(event).encode()])
    said = receiver.messages[0].split("\n")
    assert len(said) == 2
    assert "by &lt;!channel&gt; &amp; ∗Ann∗ 'x' on " + "f" * 119 + "…: success (&lt;https://evil.example|click&gt;)" in said[1]
    assert json.loads(receiver.requests[0].body) | {"text": ""} == {
        "text": "",
        "unfurl_links": False,
        "unfurl_media": False,
        "parse": "none",
        "link_names": False,
    }


async def test_of_many_events_the_number_is_said(receiver: SlackReceiver) -> None:
    """Twenty are spelled out."""
    await send(receiver, lines=[make_line(index) for index in range(27)])
    said = receiver.messages[0].split("\n")
    assert (len(said), said[-1]) == (22, "… and 7 more events")


async def test_a_message_is_never_so_long_that_slack_cuts_it(receiver: SlackReceiver) -> None:
    """Names that grow fivefold when they are escaped: fewer events are spelled out, and the rest is counted."""
    name = {"type": "user", "id": "&" * 120}
    events = [json.loads(make_line(index)) | {"actor": name, "targets": [name], "reason": "&" * 120} for index in range(20)]
    await send(receiver, lines=[json.dumps(event).encode() for event in events])
    text = receiver.messages[0]
    assert len(text) < 40_000
    shown = text.count("\n") - 1
    assert 10 < shown < 20
    assert text.endswith(f"… and {20 - shown} more events")


async def test_messages_keep_their_distance(receiver: SlackReceiver) -> None:
    """The second waits for the interval, counted from the end of the first."""
    destination = SlackDestination("chat", settings(receiver, interval=Duration("150ms")))
    clock = asyncio.get_running_loop()
    await destination.send(make_cut(destination, LINES))
    began = clock.time()
    await destination.send(make_cut(destination, LINES, 3))
    assert clock.time() - began >= 0.14
    await destination.close()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Said(400, b"invalid_payload"), AnswerKind.SPLIT),
        (Said(413), AnswerKind.SPLIT),
        (Said(403, b"action_prohibited"), AnswerKind.PARK),
        (Said(404, b"channel_not_found"), AnswerKind.PARK),
        (Said(410, b"channel_is_archived"), AnswerKind.PARK),
        (Said(302), AnswerKind.PARK),
        (Said(429, b"rate_limited", {"retry-after": "30"}), AnswerKind.THROTTLE),
        (Said(503), AnswerKind.THROTTLE),
        (Said(500, b"rollup_error"), AnswerKind.RETRY),
    ],
)
async def test_each_answer_of_slack_has_its_own(receiver: SlackReceiver, answer: Said, kind: AnswerKind) -> None:
    """The table, over the wire; what is shown never has the webhook's secret path."""
    found = await send(receiver, answer)
    assert found.kind is kind
    assert "secret" not in found.reason + found.where


def test_another_form_of_events_is_refused(receiver: SlackReceiver) -> None:
    """A setting that would have no effect."""
    with pytest.raises(ConfigError):
        settings(receiver, encoding="ocsf").check()


async def test_an_alert_that_was_told_lately_makes_no_message(receiver: SlackReceiver) -> None:
    """Same rule and group within `repeat`."""
    event = json.loads(LINES[0]) | {"action": "tallystick.alert", "metadata": {"rule": "r", "group": {"actor": "u"}}}
    destination = SlackDestination("chat", settings(receiver, repeat=Duration("1h")))
    for index in range(2):
        line = json.dumps(event | {"id": f"alert:r:{index}"}).encode()
        assert (await destination.send(make_cut(destination, [line], index))).kind is AnswerKind.DELIVERED
    await destination.close()
    assert len(receiver.messages) == 1
