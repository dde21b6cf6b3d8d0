"""Where one message over a stream ends and the next begins, however the bytes are cut on their way."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.syslog_frames import SyslogFramer

MAX = 1_000


def run(chunks: list[bytes], record_max: int = MAX) -> tuple[list[bytes], SyslogFramer]:
    framer = SyslogFramer(record_max)
    return [record for chunk in chunks for record in framer.feed(chunk)], framer


def cut(data: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def test_lines_and_counts_are_told_apart() -> None:
    """The first byte decides, for the whole connection."""
    assert run([b"<1>a\n<2>b\n"])[0] == [b"<1>a", b"<2>b"]
    assert run([b"4 <1>a5 <2>bc"])[0] == [b"<1>a", b"<2>bc"]
    assert run([b"text without priority\n7 dwarfs\n"])[0] == [b"text without priority", b"7 dwarfs"]


def test_a_counted_message_may_hold_line_breaks() -> None:
    """What looks like a second message inside a counted one is part of it."""
    inner = b"<34>1 one\n<34>1 two"
    assert run([b"%d %s" % (len(inner), inner)])[0] == [inner]


def test_frames_lose_what_belongs_to_the_frame() -> None:
    """CR, NUL and blank lines around lines; line breaks that a sender adds behind counted messages."""
    assert run([b"<1>a\r\n\n\r\n<2>b\0\n\n"])[0] == [b"<1>a", b"<2>b"]
    assert run([b"4 <1>a\n4 <2>b\n"])[0] == [b"<1>a", b"<2>b"]


@pytest.mark.parametrize(
    "count", [b"99999999999 ", b"-1 ", b"0 ", b"007 ", b"12345678901234567890 ", b"123456789", b"12<34>1 ", b"+5 ", b"5x "]
)
def test_hostile_counts_end_the_stream(count: bytes) -> None:
    """No guess is made where the next message begins; the messages before the count are good."""
    for prefix, expected in ((b"", []), (b"4 <1>a", [b"<1>a"])):
        if prefix and count[:1] in b"-+":
            continue
        records, framer = run([prefix + count + b"<34>1 - - - - - - x"])
        assert (records, framer.failure) == (expected, "octet_count")
        assert framer.feed(b"4 <1>a") == []


def test_a_sign_after_a_count_ends_the_stream() -> None:
    """It was counted before, so this is no line."""
    assert run([b"4 <1>a-1 <2>b"])[1].failure == "octet_count"


@pytest.mark.parametrize("size", [MAX + 1, 5 * MAX, 300 * MAX])
@pytest.mark.parametrize("is_counted", [True, False])
@pytest.mark.parametrize("step", [1, 999, 1 << 20])
def test_a_message_that_is_too_long_is_cut_and_passed_over(size: int, is_counted: bool, step: int) -> None:
    """Its head and its length are told, memory holds no more than that, and the next message is whole."""
    body = b"<1>" + b"x" * (size - 3)
    stream = b"%d %s4 <2>b" % (size, body) if is_counted else body + b"\n<2>b\n"
    framer, records = SyslogFramer(MAX), []
    for start in range(0, len(stream), step):
        records += framer.feed(stream[start : start + step])
        assert len(framer._tail) + len(framer._head) <= MAX + len(b"300000 ") + step
    assert records == [b"<2>b"]
    assert [(one.head, one.size) for one in framer.cut] == [(body[:MAX], size)]


@pytest.mark.parametrize(
    ("stream", "rest"),
    [(b"<1>a\n<2>b", b"<2>b"), (b"<1>a\n", b""), (b"4 <1>a9 <2>b", b"<2>b"), (b"4 <1>a9", b""), (b"", b""), (b"-", b"-")],
)
def test_the_end_in_the_middle_of_a_message(stream: bytes, rest: bytes) -> None:
    """What has come of it is given."""
    framer = SyslogFramer(MAX)
    framer.feed(stream)
    assert framer.end() == rest


RECORD = st.binary(min_size=1, max_size=60)


@given(st.lists(RECORD, max_size=20), st.lists(st.integers(0, 2_000), max_size=10))
def test_counted_messages_survive_every_way_of_being_cut(records: list[bytes], places: list[int]) -> None:
    """Any bytes, any packets: the same messages in the same order."""
    stream = b"".join(b"%d %s" % (len(record), record) for record in records)
    found, framer = run(cut(stream, places))
    assert (found, framer.failure, framer.end()) == (records, "", b"")


@given(
    st.lists(st.binary(max_size=60).map(lambda data: b"<" + data.replace(b"\n", b"")), max_size=20),
    st.lists(st.integers(0, 2_000), max_size=10),
)
def test_lines_survive_every_way_of_being_cut(records: list[bytes], places: list[int]) -> None:
    """The same for lines."""
    found, _ = run(cut(b"".join(record + b"\n" for record in records), places))
    assert found == [record.rstrip(b"\r\0") for record in records]


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_no_bytes_make_it_fail(chunks: list[bytes]) -> None:
    """Garbage gives messages or a failure; never an exception, and never more bytes than came."""
    records, framer = run(chunks, 100)
    assert sum(map(len, records)) + len(framer.end()) <= sum(map(len, chunks))
    assert all(0 < len(record) <= 100 for record in records)
    assert all(len(one.head) == 100 < one.size for one in framer.cut)
