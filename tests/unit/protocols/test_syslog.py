"""Messages of both RFCs, and of senders that keep to neither, are taken apart without a failure and in linear time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tallystick.protocols.syslog import Parsed, parse, parse_structured_data
from tallystick.protocols.syslog_time import SyslogClock

NOW = datetime(2026, 3, 4, 10, 30, tzinfo=UTC)


def read(text: str, zone: str | None = "UTC", now: datetime = NOW) -> Parsed:
    clock = SyslogClock(ZoneInfo(zone) if zone else None)
    clock.set_now(now)
    return parse(text, clock)


def members(text: str) -> dict[str, object]:
    """What is said, without what is not."""
    message = read(text).message
    found = {name: getattr(message, name) for name in message.__struct_fields__}
    return {name: value for name, value in found.items() if value}


def test_the_examples_of_rfc_5424() -> None:
    """The four examples of section 6.5: all header fields, structured data, the byte order mark, and a message without one."""
    first = read(
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \ufeff'su root' failed for lonvick on /dev/pts/8"
    )
    assert (first.occurred_at, first.severity, first.flags) == ("2003-10-11T22:14:15.003000Z", 5, ())
    assert members("<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \ufeff'su root' failed") == {
        "facility": "auth", "severity": "crit", "hostname": "mymachine.example.com", "app_name": "su", "msgid": "ID47",
        "message": "'su root' failed",
    }  # fmt: skip
    second = read("<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.")
    assert second.occurred_at == "2003-08-24T12:14:15.000003Z"
    assert (second.message.procid, second.message.message) == ("8710", "%% It's time to make the do-nuts.")
    elements = '[exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"][examplePriority@32473 class="high"]'
    for tail, message in ((" \ufeffAn application event log entry...", "An application event log entry..."), ("", "")):
        parsed = read(f"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 {elements}{tail}")
        assert parsed.message.message == message
        assert parsed.message.structured_data == {
            "exampleSDID@32473": {"iut": "3", "eventSource": "Application", "eventID": "1011"},
            "examplePriority@32473": {"class": "high"},
        }
        assert parsed.flags == ()


def test_nil_values_say_nothing() -> None:
    """A message of dashes has a priority and nothing else, and no time of its own."""
    parsed = read("<13>1 - - - - - -")
    assert members("<13>1 - - - - - -") == {"facility": "user", "severity": "notice"}
    assert (parsed.occurred_at, parsed.flags) == (None, ())


@pytest.mark.parametrize(
    ("text", "data", "message", "is_whole"),
    [
        (r'[a x="1\"2\\3\]4\5"] m', {"a": {"x": '1"2\\3]4\\5'}}, "m", True),
        ("[a][b] m", {"a": {}, "b": {}}, "m", True),
        ('[a x="1" x="2" x="3"]', {"a": {"x": ["1", "2", "3"]}}, "", True),
        ('[a x="1]2"] m', {"a": {"x": "1]2"}}, "m", True),
        ('[a x="line\nbreak"]', {"a": {"x": "line\nbreak"}}, "", True),
        ('[a x="say "hi" now"] m', None, '[a x="say "hi" now"] m', False),
        ('[a x="1"][b x="2] m', {"a": {"x": "1"}}, '[b x="2] m', False),
        ('[a x="1"][a x="2"] m', {"a": {"x": "1"}}, '[a x="2"] m', False),
        ('[a x="1"]m', {"a": {"x": "1"}}, "m", False),
        ("[] m", None, "[] m", False),
        ("[a x=1] m", None, "[a x=1] m", False),
    ],
)
def test_structured_data(text: str, data: object, message: str, is_whole: bool) -> None:
    """Escapes are undone; what breaks the rules begins the message, and what stood before it is kept."""
    assert parse_structured_data(text) == (data, message, is_whole)


def test_unreadable_structured_data_is_flagged() -> None:
    """The event says that its structured data could not all be read."""
    assert read('<34>1 - h a - - [a x="b" c"] m').flags == ("syslog_data_invalid",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<34>Oct 11 22:14:15 mymachine su: 'su root' failed", ("mymachine", "su", "", "'su root' failed")),
        ("<38>Feb  5 17:32:18 10.0.0.99 sshd[230]: Accepted", ("10.0.0.99", "sshd", "230", "Accepted")),
        ("<38>Feb 5 17:32:18 fe80::1 sshd[230]: Accepted", ("fe80::1", "sshd", "230", "Accepted")),
        ("<13>Feb  5 17:32:18 logger[9]: no host", ("", "logger", "9", "no host")),
        ("<13>Feb  5 17:32:18 logger: no host, no pid", ("", "logger", "", "no host, no pid")),
        ("<13>Feb  5 17:32:18 host several words: and a colon", ("host", "", "", "several words: and a colon")),
        ("<13>Feb  5 17:32:18 host postfix/smtp[12]: x", ("host", "postfix/smtp", "12", "x")),
        ("<13>Feb  5 17:32:18 host kernel[0] <Info>: x", ("host", "kernel", "0", "<Info>: x")),
        ("<13>Feb  5 17:32:18 host app:", ("host", "app", "", "")),
        ("<13>Feb  5 17:32:18 host ", ("host", "", "", "")),
        ("<34>2003-10-11T22:14:15.003+02:00 mymachine su[1]: failed", ("mymachine", "su", "1", "failed")),
    ],
)
def test_rfc_3164_as_it_is_sent(text: str, expected: tuple[str, ...]) -> None:
    """Host, tag and process id where they can be told; nothing is cut out of a message where they cannot."""
    message = read(text).message
    assert (message.hostname, message.app_name, message.procid, message.message) == expected


def test_text_right_behind_the_nil_of_structured_data_is_the_message() -> None:
    """The standard wants a blank there; what a sender wrote without one is kept and flagged."""
    found = read("<34>1 - h a p m -foo bar")
    assert (found.message.message, found.message.msgid, found.flags) == ("-foo bar", "m", ("syslog_data_invalid",))
    assert read("<34>1 - h a p m -").message.message == ""


def test_a_message_without_priority_is_read_and_flagged() -> None:
    """Lines as they stand in a file lack the priority."""
    parsed = read("Feb 12 14:10:21 web sshd[163]: Invalid user")
    assert (parsed.message.app_name, parsed.severity, parsed.flags) == ("sshd", None, ("syslog_priority_missing",))


@pytest.mark.parametrize(
    "text", ["", "hello", "<34>", "<34>hello", "<999>1 - - - - - - x", "<192>Oct 11 22:14:15 h a: x", "<34>2 - - - - - - x", "\n"]
)
def test_what_is_no_syslog_is_kept_whole(text: str) -> None:
    """The text is the message, and the event is flagged."""
    parsed = read(text)
    assert (parsed.message.message, parsed.flags) == (text, ("syslog_unparsed",))


@pytest.mark.parametrize(
    ("text", "now", "zone", "occurred_at"),
    [
        ("Mar  4 10:29:59", NOW, "UTC", "2026-03-04T10:29:59.000000Z"),
        ("Mar  5 10:29:59", NOW, "UTC", "2026-03-05T10:29:59.000000Z"),
        ("Mar  7 10:00:00", NOW, "UTC", "2025-03-07T10:00:00.000000Z"),
        ("Dec 31 23:59:58", datetime(2026, 1, 1, tzinfo=UTC), "UTC", "2025-12-31T23:59:58.000000Z"),
        ("Jan  1 00:00:01", datetime(2025, 12, 31, 23, 30, tzinfo=UTC), "UTC", "2026-01-01T00:00:01.000000Z"),
        ("Feb 29 12:00:00", NOW, "UTC", "2024-02-29T12:00:00.000000Z"),
        ("Jul  1 12:00:00.5", NOW, "Europe/Berlin", "2025-07-01T10:00:00.500000Z"),
    ],
)
def test_the_year_of_a_time_without_one(text: str, now: datetime, zone: str, occurred_at: str) -> None:
    """The latest year that puts it at most about a day ahead of the receipt, over New Year and in leap years; zones are applied."""
    assert read(f"<1>{text} h a: m", zone, now).occurred_at == occurred_at


def test_times_without_a_zone_are_flagged() -> None:
    """Without the setting they are read as UTC, and the event says so."""
    assert read("<1>Mar  4 10:29:59 h a: m", None).flags == ("time_zone_missing",)


@pytest.mark.parametrize("stamp", ["2026-02-30T10:00:00Z", "2026-02-03T25:00:00+01:00", "2026-02-03T10:00:00+99:00", "yesterday"])
def test_a_time_that_names_none_is_kept_as_a_claim(stamp: str) -> None:
    """The event has the time of receipt, and the sender's own text in a flag."""
    found = read(f"<1>1 {stamp} h a - - - m")
    assert (found.message.message, found.occurred_at) == ("m", None)
    assert found.flags == ("time_invalid", f"time_claimed:{stamp}")


def test_a_year_less_time_that_names_none_is_kept_as_a_claim() -> None:
    """The same for RFC 3164."""
    found = read("<1>Feb 30 10:00:07 h a: m")
    assert (found.occurred_at, found.flags) == (None, ("time_invalid", "time_claimed:Feb 30 10:00:07"))


def test_a_leap_second_is_the_last_microsecond_before_it() -> None:
    """As with every claimed time of an event."""
    found = read("<1>1 2016-12-31T23:59:60Z h a - - - m")
    assert (found.occurred_at, found.flags[0]) == ("2016-12-31T23:59:59.999999Z", "time_leap_second")


TEXT = st.text(max_size=300)
STAMPS = st.sampled_from(["2003-10-11T22:14:15.003Z", "-", "Oct 11 22:14:15", "2003-10-11T22:14:60+25:99", "Feb 31 99:99:99"])


@given(st.one_of(TEXT, st.builds("<{}>{}{} {} {}".format, st.integers(-1, 999), st.sampled_from(["", "1 "]), STAMPS, TEXT, TEXT)))
@example("<34>1 2003-10-11T22:14:15.003Z a b c d [")
@example("<34>Oct 11 22:14:15 :")
def test_no_text_makes_it_fail_or_loses_the_message(text: str) -> None:
    """Whatever comes, the message is a part of the text, and all of it where nothing else could be read."""
    parsed = read(text)
    assert text.endswith(parsed.message.message)
    if "syslog_unparsed" in parsed.flags:
        assert parsed.message.message == text


@given(
    st.dictionaries(
        st.text("abcXYZ0@.-", min_size=1, max_size=8),
        st.dictionaries(st.text("abcXYZ0", min_size=1, max_size=8), st.text(max_size=30), max_size=4),
        min_size=1,
        max_size=4,
    ),
    TEXT,
)
def test_structured_data_round_trip(data: dict[str, dict[str, str]], message: str) -> None:
    """What a sender escapes as RFC 5424 asks comes back as it was."""

    def escape(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")

    text = "".join(
        f"[{name}" + "".join(f' {key}="{escape(value)}"' for key, value in params.items()) + "]" for name, params in data.items()
    )
    assert parse_structured_data(f"{text} {message}") == (data, message, True)


HOSTILE = {
    "10,000 parameters": "<34>1 - h a p m [x" + ' a="b"' * 10_000 + "] m",
    "parameters without an end": "<34>1 - h a p m [x" + ' a="b"' * 10_000,
    "backslashes": '<34>1 - h a p m [x a="' + "\\" * 60_001,
    "quotes": "<34>1 - h a p m [" + '"' * 60_000,
    "brackets": "<34>1 - h a p m " + "[" * 60_000,
    "elements": "<34>1 - h a p m " + "".join(f"[a{number}]" for number in range(10_000)),
    "one long word": "<34>Oct 11 22:14:15 " + "a" * 60_000,
    "colons": "<34>Oct 11 22:14:15 " + ":" * 60_000,
    "spaces": "<34>1" + " " * 60_000,
    "times": "<34>" + "Oct 11 22:14:15 " * 4_000,
    "digits": "<34>1 " + "2003-10-11T22:14:15." + "1" * 60_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_messages_take_linear_time(text: str) -> None:
    """60 KB that would make a careless pattern go back and forth: at most 50 ms of the processor's time."""
    best = 1.0
    for _ in range(3):
        began = time.thread_time()
        read(text)
        best = min(best, time.thread_time() - began)
    assert best < 0.05
