"""The line splitter: the same lines, whatever the blocks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.lines import Line, LineSplitter

BITS = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"\r", b"\0", b"\0\0x", b"longer text"]), max_size=30).map(b"".join)


def split(blocks: list[bytes], line_max: int = 1 << 20) -> list[Line]:
    splitter = LineSplitter(0, line_max)
    found = [line for block in blocks for line in splitter.feed(block)]
    return found + splitter.rest()


@given(BITS, st.lists(st.integers(0, 60)), st.integers(1, 8))
def test_blocks_make_no_difference(data: bytes, cuts: list[int], line_max: int) -> None:
    """Cut anywhere, the lines and their places are those of the whole; places cover the stream without a gap."""
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    blocks = [data[start:end] for start, end in pairwise(places)]
    whole = split([data], line_max)
    assert split(blocks, line_max) == whole
    assert [line.start for line in whole] == [0, *(line.end for line in whole)][: len(whole)]
    assert (whole[-1].end if whole else 0) == len(data)


@given(BITS)
def test_lines_are_what_stands_between_line_feeds(data: bytes) -> None:
    """Compared with the plain way to say it; a carriage return before the line feed and NULs before the line are left out."""
    *whole, last = data.split(b"\n")
    expected = [(text[:-1] if text.endswith(b"\r") else text).lstrip(b"\0") for text in whole]
    expected += [last.lstrip(b"\0")] * bool(last)
    assert [line.data for line in split([data])] == expected


def test_a_long_line_is_cut_and_its_length_told() -> None:
    """Memory stays at the bound, the rest is skipped, and the next line is whole."""
    splitter = LineSplitter(0, 10)
    assert splitter.feed(b"x" * 1000) == []
    assert splitter.held_bytes == 10
    long, short = splitter.feed(b"y" * 500 + b"\nnext\n")
    assert (long.data, long.size, long.is_cut) == (b"x" * 10, 1500, True)
    assert short == (1501, 1506, b"next", 4)


def test_the_last_line_waits() -> None:
    """Without its line feed a line is not given out, and the place to go on from is its beginning."""
    splitter = LineSplitter(100, 1 << 20)
    assert [line.data for line in splitter.feed(b"one\ntw")] == [b"one"]
    assert splitter.start == 104
    assert splitter.feed(b"o\n") == [Line(104, 108, b"two", 3)]
