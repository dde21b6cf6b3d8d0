"""Lines that become one record: by a first line, and by a key."""

from __future__ import annotations

import re2
from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols import joining
from tallystick.protocols.joining import ByKey, EachLine, FromStart
from tallystick.protocols.lines import Line, LineSplitter

KEY = re2.compile(rb"k=([0-9]+)")
END = re2.compile(rb"END")
START = re2.compile(rb"^\S")


def lines(text: bytes) -> list[Line]:
    return LineSplitter(0, 1 << 20).feed(text)


def test_each_line_is_a_record() -> None:
    """The plain case: places and bytes as they are, nothing is held."""
    joiner = EachLine()
    assert [(one.start, one.data) for one in joiner.add(lines(b"a\nb\n"), 0)] == [(0, b"a"), (2, b"b")]
    assert joiner.held_from is None


def test_lines_behind_a_first_line_belong_to_it() -> None:
    """A stack trace is one record; it is given out when the next one begins, or after the wait."""
    joiner = FromStart(START, 2.0, 1000)
    assert joiner.add(lines(b"error\n  at a\n\n  at b\n"), 0.0) == []
    assert joiner.held_from == 0
    assert joiner.expire(1.9) == []
    (record,) = joiner.expire(2.0)
    assert record.data == b"error\n  at a\n\n  at b"
    assert joiner.held_from is None


def test_a_record_over_the_bound_goes_on_in_another() -> None:
    """Memory stays bounded when no first line ever comes."""
    joiner = FromStart(START, 2.0, 40)
    found = joiner.add(lines(b"first\n" + b" more\n" * 20), 0.0) + joiner.flush()
    assert len(found) > 2
    assert all(len(one.data) <= 46 for one in found)
    assert b"\n".join(one.data for one in found).count(b"more") == 20


def test_interleaved_keys_are_joined() -> None:
    """Lines of two serials that are mixed become two records; a line without a key is one by itself."""
    joiner = ByKey(KEY, END, 2.0, 1000)
    found = joiner.add(lines(b"k=1 a\nk=2 a\nplain\nk=1 b\nk=2 END\n"), 0.0)
    assert [one.data for one in found] == [b"plain", b"k=2 a\nk=2 END"]
    assert joiner.held_from == 0
    assert joiner.given == {6, 12, 24}
    assert [one.data for one in joiner.expire(2.0)] == [b"k=1 a\nk=1 b"]
    assert joiner.given == set()


def test_what_was_given_out_is_not_given_again() -> None:
    """A reader that begins anew at the first held line leaves out the lines behind it that were committed."""
    text = b"k=1 a\nk=2 a\nplain\nk=1 b\nk=2 END\n"
    first = ByKey(KEY, END, 2.0, 1000)
    first.add(lines(text), 0.0)
    again = ByKey(KEY, END, 2.0, 1000, first.given)
    assert again.add(lines(text), 0.0) == []
    assert [one.data for one in again.flush()] == [b"k=1 a\nk=1 b"]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60), st.integers(0, 60))
def test_every_line_is_in_one_record(keys: list[tuple[int, bool]], cut: int) -> None:
    """With a restart anywhere, from the place and the given lines that were saved there, every line is given out exactly once."""
    text = b"".join(b"k=%d %s %d\n" % (key, b"END" if ends else b"-", number) for number, (key, ends) in enumerate(keys))
    all_lines = lines(text)
    first = ByKey(KEY, END, 2.0, 1000)
    found = first.add(all_lines[:cut], 0.0)
    held_from = first.held_from
    start = held_from if held_from is not None else (all_lines[cut].start if cut < len(all_lines) else len(text))
    second = ByKey(KEY, END, 2.0, 1000, first.given)
    found += second.add([line for line in all_lines if line.start >= start], 0.0) + second.flush()
    assert sorted(line for one in found for line in one.data.split(b"\n")) == sorted(line.data for line in all_lines)


def test_what_is_held_is_bounded() -> None:
    """Past a thousand open keys the oldest is given out."""
    joiner = ByKey(KEY, END, 3600.0, 1000)
    found = joiner.add(lines(b"".join(b"k=%d\n" % number for number in range(joining.HELD_MAX + 5))), 0.0)
    assert [one.data for one in found] == [b"k=%d" % number for number in range(5)]
