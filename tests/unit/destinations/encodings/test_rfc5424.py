"""Syslog messages: our own reader takes them apart again, and the message is the leaf."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given, settings

from support.event_corpus import HARD, LINES, hard_lines, line_of
from tallystick.destinations.encodings import make_encoder, records_of
from tallystick.protocols.syslog import parse
from tallystick.protocols.syslog_time import SyslogClock

CLOCK = SyslogClock(datetime(2026, 3, 4, 10, tzinfo=UTC))


def check(line: bytes) -> None:
    """Nothing odd about the message, its data are the event's, and its text is the canonical line."""
    (record,) = records_of(make_encoder("rfc5424").encode([line], origin="o", first_index=0, last_index=0))
    parsed, event = parse(record.decode(), CLOCK), json.loads(line)
    assert set(parsed.flags) <= {"time_implausible"}
    message = parsed.message
    assert message.message.encode() == line
    assert (message.facility, message.app_name, message.msgid) == ("security", "tallystick", event["action"][:32])
    assert parsed.occurred_at == event["occurred_at"]
    data = (message.structured_data or {})["tallystick@32473"]
    assert (data["id"], data["tenant"], data["action"], data["outcome"]) == (event["id"], "acme", event["action"], event["outcome"])
    assert data["actor"] == "".join(" " if ord(one) < 32 or 127 <= ord(one) < 160 else one for one in event["actor"]["id"])


def test_hard_events_come_back() -> None:
    """Quotes, brackets, backslashes and controls in structured data, very long values."""
    for line in hard_lines():
        check(line)


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_any_event_comes_back(line: bytes) -> None:
    """Whatever a sender wrote."""
    check(line)


def test_severities() -> None:
    """OCSF counts up to fatal, syslog down to emergency; an event that says nothing is informational."""
    lines = [line_of(HARD["least"] | {"severity": number}) for number in range(7)] + [line_of(HARD["least"])]
    body = make_encoder("rfc5424").encode(lines, origin="o", first_index=0, last_index=7)
    assert [int(record[1:4]) - 13 * 8 for record in records_of(body)] == [6, 6, 5, 4, 3, 2, 0, 6]
