"""The splunk_hec destination, against a receiver that splunk-handler, a client of others, is happy with."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from splunk_handler import SplunkHandler

from support.delivery import make_cut, make_line
from tallystick.config import Duration
from tallystick.destinations.encodings.hec import HecEvents
from tallystick.destinations.encodings.json import make
from tallystick.destinations.splunk_hec import SplunkHecDestination, SplunkHecSettings
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind
from tallystick.testing.receiver import Said
from tallystick.testing.splunk import CODES, SplunkReceiver, said

TOKEN = "B5A79AAD-D822-46CC-80D1-819F80D7BFB0"
LINES = [make_line(index) for index in range(4)]
KINDS = {
    AnswerKind.PARK: [1, 2, 3, 4, 7, 10, 11, 14, 16, 21, 22],
    AnswerKind.SPLIT: [5, 6, 12, 13, 15],
    AnswerKind.THROTTLE: [9, 18, 19, 20, 23, 26, 27],
    AnswerKind.RETRY: [8],
}


@pytest.fixture
def receiver() -> Iterator[SplunkReceiver]:
    with SplunkReceiver() as running:
        yield running


def make_destination(receiver: SplunkReceiver, **changes: Any) -> SplunkHecDestination:
    mine = {
        "url": receiver.url,
        "allow_private": True,
        "token": TOKEN,
        "ack_timeout": Duration("2s"),
        "ack_interval": Duration("10ms"),
    }
    return SplunkHecDestination("splunk", SplunkHecSettings(**(mine | changes)))


async def send(receiver: SplunkReceiver, *answers: Said, **changes: Any) -> Answer:
    """One attempt of one new destination."""
    destination = make_destination(receiver, **changes)
    receiver.script = list(answers)
    answer = await destination.send(make_cut(destination, LINES))
    await destination.close()
    return answer


def ids(receiver: SplunkReceiver) -> list[str]:
    return [event["event"]["id"] for event in receiver.events]


def test_the_receiver_answers_as_a_client_of_others_expects(receiver: SplunkReceiver) -> None:
    """splunk-handler's events arrive, with what they say about themselves; a wrong token is its error."""
    receiver.has_acks = False
    handler = SplunkHandler(
        "127.0.0.1", receiver.port, TOKEN, "main", protocol="http", verify=False, flush_interval=0, sourcetype="app", retry_count=0
    )
    handler.emit(logging.makeLogRecord({"msg": "hello", "pathname": "a.py"}))
    handler.close()
    assert [(event["event"], event["index"], event["sourcetype"], event["source"]) for event in receiver.events] == [
        ("hello", "main", "app", "a.py")
    ]


async def test_a_cut_is_delivered_when_the_indexer_acknowledged(receiver: SplunkReceiver) -> None:
    """Asked on the same channel until it is true; the answer names the acknowledgement."""
    receiver.polls = 3
    answer = await send(receiver)
    assert (answer.kind, answer.where.endswith("ack 0")) == (AnswerKind.DELIVERED, True)
    assert ids(receiver) == [f"acme-{index}" for index in range(4)]
    posted, *asked = receiver.requests
    assert posted.headers["content-encoding"] == "gzip"
    assert {request.query["channel"] for request in asked} == {posted.headers["x-splunk-request-channel"]}
    assert len(asked) == 3


async def test_what_was_lost_before_indexing_is_sent_again(receiver: SplunkReceiver) -> None:
    """A 200 is not believed: no acknowledgement in time is a retry, and the next attempt delivers."""
    receiver.loses = True
    destination = make_destination(receiver, ack_timeout=Duration("50ms"))
    cut = make_cut(destination, LINES)
    answer = await destination.send(cut)
    assert answer.kind is AnswerKind.RETRY
    assert "not acknowledged within 0.05 s" in answer.reason
    assert receiver.events == []
    receiver.loses = False
    receiver.polls = 1
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    assert ids(receiver) == [f"acme-{index}" for index in range(4)]
    await destination.close()


async def test_a_failed_question_is_asked_again(receiver: SplunkReceiver) -> None:
    """The events may be there although the collector is busy when it is asked."""
    assert (await send(receiver, said(0, ackId=0), said(9), Said(502, b"<html>"), Said(200, {"acks": {"0": True}}))).kind is (
        AnswerKind.DELIVERED
    )


async def test_a_token_without_acknowledgement_parks_and_says_what_to_do(receiver: SplunkReceiver) -> None:
    """The probe says so before anything is sent again; with the setting off it is taken at its word, as best effort."""
    receiver.has_acks = False
    destination = make_destination(receiver)
    answer = await destination.send(make_cut(destination, LINES))
    assert answer.kind is AnswerKind.PARK
    assert "acknowledgement = false" in answer.reason
    probed = await destination.probe()
    assert (probed.kind, probed.reason) == (AnswerKind.PARK, "code 14: ACK is disabled")
    await destination.close()
    trusting = make_destination(receiver, acknowledgement=False)
    assert trusting.effective_guarantee == "best effort"
    assert (await trusting.probe()).kind is AnswerKind.DELIVERED
    assert (await trusting.send(make_cut(trusting, LINES))).kind is AnswerKind.DELIVERED
    await trusting.close()


@pytest.mark.parametrize(("kind", "code"), [(kind, code) for kind, codes in KINDS.items() for code in codes])
async def test_each_code_has_its_answer(receiver: SplunkReceiver, kind: AnswerKind, code: int) -> None:
    """Splunk's documented table, code for code."""
    assert (await send(receiver, said(code))).kind is kind


def test_no_documented_code_is_missing() -> None:
    """Those that are no refusal are 0, 17 (health), 24 and 25."""
    assert sorted(CODES) == sorted([0, 17, 24, 25, *(code for codes in KINDS.values() for code in codes)])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Said(413, {"text": "Request entity too large", "code": 27}), AnswerKind.SPLIT),
        (Said(429, b""), AnswerKind.THROTTLE),
        (Said(503, b"<html>"), AnswerKind.THROTTLE),
        (Said(502, b""), AnswerKind.RETRY),
        (Said(200, b"<html>"), AnswerKind.RETRY),
        (Said(404, b""), AnswerKind.PARK),
        (Said(302, b""), AnswerKind.PARK),
        (Said(400, {"text": "new", "code": 99}), AnswerKind.RETRY),
    ],
)
async def test_what_is_not_the_collectors_code(receiver: SplunkReceiver, answer: Said, kind: AnswerKind) -> None:
    """A load balancer's page, a size that the code says wrongly, a code of the future."""
    assert (await send(receiver, answer)).kind is kind


async def test_a_wrong_token_parks_until_it_is_right(receiver: SplunkReceiver) -> None:
    """Sending and probing alike."""
    destination = make_destination(receiver, token="wrong")
    assert (await destination.send(make_cut(destination, LINES))).reason == "code 4: Invalid token"
    assert (await destination.probe()).kind is AnswerKind.PARK
    receiver.tokens.add("wrong")
    assert (await destination.probe()).kind is AnswerKind.DELIVERED
    await destination.close()


def test_an_event_says_when_where_and_what() -> None:
    """Microseconds are kept; a time before 1970 is left out; the source is the log's origin unless it is set."""
    early = json.loads(LINES[0]) | {"occurred_at": "1969-12-31T23:59:59.000000Z"}
    later = json.loads(LINES[1]) | {"occurred_at": "2026-03-04T05:06:07.000012Z"}
    lines = [json.dumps(event, separators=(",", ":")).encode() for event in (early, later)]
    body = HecEvents(make({}), {"sourcetype": "_json", "index": "audit"}).encode(lines, origin="o", first_index=0, last_index=1)
    first, second = body.splitlines()
    assert json.loads(first) == {"source": "o", "sourcetype": "_json", "index": "audit", "event": early}
    assert second.startswith(b'{"time":1772600767.000012,')
    assert json.loads(second)["event"] == later


def test_an_encoding_that_is_no_json_goes_in_as_a_string() -> None:
    """Quotes and all."""

    class Quoted:
        name, version, content_type, suffix = "quoted", "1", "text/plain", ".log"

        def encode_events(self, lines: Any) -> list[bytes]:
            return [b'say="\xc3\xa9"' for _ in lines]

    body = HecEvents(Quoted(), {}, is_json=False).encode(LINES[:1], origin="o", first_index=0, last_index=0)
    assert json.loads(body)["event"] == 'say="é"'


@pytest.mark.parametrize("token", ["", " ", "a\nb", "ä"])
def test_a_token_that_no_header_carries_is_refused(receiver: SplunkReceiver, token: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError):
        SplunkHecSettings(url=receiver.url, allow_private=True, token=token).check()
