"""Many messages at once: the short way says of each what `parse` says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.syslog import parse
from tallystick.protocols.syslog_batch import parse_batch
from tallystick.protocols.syslog_time import SyslogClock

ORDINARY = '<86>1 2026-03-04T10:00:00.000001Z web-1 sshd 4711 ID47 [auth@32473 user="u_1" ip="203.0.113.7"] Accepted'
ODD_BODIES = [
    "", "-", "- ", "- m", "-m", "- \ufeffm", '[a x="1"] m', '[a x="1"] \ufeffm', '[a x="1"]', '[a x="1"]m', "[a] m", '[a x="1" y="2"] m',
    '[a x="1" x="2"] m', '[a x="1"][b y="2"] m', '[a x="] "] m', '[a x="] " y="1"] m', '[a x="1" y="] "] m', r'[a x="1\"] "] m', r'[a x="\\"] m',
    '[a x="1] m', '[a] "] m', '[a x="1"] say "hi"] there', '[a  x="1"] m', '[a x="1"  y="2"] m', '[a x = "1"] m', '[a="1"] m', '[ x="1"] m',
    '[a x=""] m', '[a =""] m', '[a x="é\n"] m\n', '[a"b" x="1"] m', "[" + "a" * 129 + ' x="1"] m', "[a " + "x" * 600 + '="1"] m',
]  # fmt: skip
TIMES = [
    "2026-03-04T10:00:00.000001Z", "2026-03-04T10:00:00.001Z", "2026-03-04T10:00:00Z", "2026-03-04T10:00:00.123456789Z", "2026-03-04T10:00:00.1Z",
    "2026-03-04T10:00:00+00:00", "2026-03-04T10:00:00.5+02:00", "2026-03-04T23:59:60Z", "2026-02-30T00:00:00Z", "2026-03-04t10:00:00z", "-", "now",
    "2026-03-04 10:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-03-04T10:00:00", "٢٠٢٦-03-04T10:00:00Z",
]  # fmt: skip
HEADS = ["<86>1", "<0>1", "<191>1", "<192>1", "<086>1", "<86>2", "<86>", "86", "<>1", "<٨٦>1"]
FIELDS = st.sampled_from(["-", "web-1", "a\tb", "a\u00a0b", "é", "", "x\ny", "sshd[1]:"])
LINES = st.builds(
    lambda *parts: " ".join(parts),
    st.sampled_from(["<86>1", *HEADS]), st.sampled_from([*TIMES[:3], *TIMES]), FIELDS, FIELDS, FIELDS, FIELDS, st.sampled_from(ODD_BODIES),
)  # fmt: skip


def clock() -> SyslogClock:
    made = SyslogClock(None)
    made.set_now(datetime(2026, 3, 4, 10, 30, tzinfo=UTC))
    return made


def assert_same(texts: list[str]) -> None:
    batch = parse_batch(texts, clock())
    expected = [parse(text, clock()) for text in texts]
    assert batch.messages == [one.message for one in expected]
    assert batch.moments == [one.occurred_at for one in expected]
    assert batch.severities == [one.severity for one in expected]
    assert batch.flags == {place: one.flags for place, one in enumerate(expected) if one.flags}


@given(st.lists(LINES | st.text() | st.just(ORDINARY), max_size=6))
def test_a_batch_says_of_each_message_what_parse_says(texts: list[str]) -> None:
    """Whatever stands beside it in the batch, and however odd it is."""
    assert_same(texts)


@pytest.mark.parametrize("body", ODD_BODIES)
def test_structured_data_is_read_alike(body: str) -> None:
    """Each way to write it, or to break it, behind an ordinary head."""
    assert_same([f"<86>1 2026-03-04T10:00:00Z h a p m {body}"])


@pytest.mark.parametrize("time", TIMES)
def test_times_are_read_alike(time: str) -> None:
    """Alone, and beside one that is as usual."""
    line = f"<86>1 {time} h a p m - text"
    assert_same([line])
    assert_same([ORDINARY, line, ORDINARY])


@given(st.text(st.sampled_from('[] ="\\ab-\n'), max_size=24))
def test_any_text_in_the_place_of_structured_data_is_read_alike(body: str) -> None:
    """Marks in any order."""
    assert_same([f"<86>1 - h a p m {body}", f"<86>1 - h a p m [{body}"])
