"""Lines of text to members, and mappings of lines."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import UNSET

from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event
from tallystick.protocols.syslog_time import SyslogClock
from tallystick.transforms import MapOptions, Mapping
from tallystick.transforms.lines import LineParser

NOW = datetime(2026, 3, 4, 10, tzinfo=UTC)
TOML = r"""
name = "small"
[parse]
lines = [
  { format = "syslog" },
  { patterns = [{ pattern = '(?P<user>\w+) did (?P<what>\w+)(?: at (?P<when>\S+))?', set = { event = "did" } }] },
]
[time]
from = ["when"]
required = true
[envelope]
action = "event"
[actor]
type = { const = "user" }
id = "user"
"""


def parser(*steps: dict[str, Any]) -> LineParser:
    return LineParser("small records", steps)


def members(made: LineParser, text: str) -> dict[str, Any]:
    clock = SyslogClock()
    clock.set_now(NOW)
    return made.parse(text, clock).members


def mapped(text: bytes, **known: Any) -> tuple[list[Event], list[tuple[str, bytes]]]:
    result = Mapping(tomllib.loads(TOML)).map_batch([text], None, MapOptions("file", now=NOW, **known))
    return result.events, [(problem.code, problem.record) for problem in result.problems]


def test_the_first_pattern_that_fits_gives_its_groups() -> None:
    """Groups that took no part are no members; `rest` takes what nothing fits; else the line is unknown."""
    one, two = {"pattern": r"a(?P<x>\d)?(?P<y>\w*)", "set": {"event": "one"}}, {"pattern": r"(?P<z>.*)b"}
    assert members(parser({"patterns": [one, two]}), "ab") == {"y": "b", "event": "one"}
    assert members(parser({"patterns": [one, two]}), "xb") == {"z": "x"}
    assert members(parser({"patterns": [one], "rest": "message"}), "zzz") == {"message": "zzz"}
    with pytest.raises(EventInvalidError) as caught:
        members(parser({"patterns": [one]}), "zzz")
    assert caught.value.code == "line_unknown"


def test_a_header_is_taken_off_only_when_what_follows_can_be_read() -> None:
    """A line that begins with a time of its own is not cut up as if it were a header."""
    made = parser(
        {"format": "syslog"}, {"patterns": [{"pattern": r"(?P<time>\S+Z) (?P<thread>\d+) \[(?P<level>\w+)\] (?P<text>.*)"}]}
    )
    own = members(made, "2020-04-16T05:13:40.861934Z 344 [Note] x")
    assert own == {"time": "2020-04-16T05:13:40.861934Z", "thread": "344", "level": "Note", "text": "x"}
    behind = members(made, "Apr 16 05:13:40 db mysql[27]: 2020-04-16T05:13:40.861934Z 344 [Note] x")
    assert behind == {"syslog": {"hostname": "db", "app_name": "mysql", "procid": "27"}, **own}


def test_patterns_take_linear_time() -> None:
    """A pattern that would take a backtracking engine years."""
    made = parser({"patterns": [{"pattern": "(?P<a>(a*)*)b"}], "rest": "message"})
    assert members(made, "a" * 10_000) == {"message": "a" * 10_000}


@pytest.mark.parametrize(
    "steps",
    [
        [{"format": "morse"}],
        [{"patterns": [{"pattern": "("}]}],
        [{"patterns": [{"pattern": "(?=a)"}]}],
        [{"format": "cef"}, {"format": "syslog"}],
        [{"form": "cef"}],
    ],
)
def test_a_step_that_does_not_exist_is_refused(steps: list[dict[str, Any]]) -> None:
    """An unknown format, a pattern that RE2 does not take, a header behind the body."""
    with pytest.raises(ConfigError):
        parser(*steps)


def test_the_record_s_own_time_goes_before_the_header_s() -> None:
    """The header's year is the latest that fits the time of receipt; its missing zone has a flag."""
    (event,), _ = mapped(b"<38>Mar  3 09:00:00 host app[1]: ann did login at 2026-03-01T00:00:00Z")
    assert (event.occurred_at, event.ingest.flags) == ("2026-03-01T00:00:00.000000Z", UNSET)  # type: ignore[union-attr]
    (event,), _ = mapped(b"<38>Mar  6 11:00:00 host app[1]: ann did login")
    assert event.occurred_at == "2025-03-06T11:00:00.000000Z"
    assert event.ingest.flags == ["time_zone_missing"]  # type: ignore[union-attr]
    (event,), _ = mapped(b"ann did login")
    assert event.ingest.flags == ["time_missing"]  # type: ignore[union-attr]


def test_a_line_that_does_not_map_is_a_problem_with_its_bytes() -> None:
    """Nothing is lost, and bytes that are no UTF-8 have their flag."""
    assert mapped(b"what?") == ([], [("line_unknown", b"what?")])
    (event,), _ = mapped(b"ann did \xff".replace(b"\xff", b"x") + b" at \xff")
    assert "text_replaced" in event.ingest.flags  # type: ignore[union-attr, operator]


def test_equal_lines_are_not_one_event() -> None:
    """Two failed logins in one second look the same; a line has no name but what its source gives it."""
    (event,), _ = mapped(b"ann did login at 2026-03-01T00:00:00Z")
    assert not isinstance(event.id, str)
