"""Cuts: borders, selection, names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.delivery import make_cut, make_line
from tallystick.delivery.cut import BatchLimits, count_within, halve, is_due, pick_lines, select_lines
from tallystick.delivery.history import SettledCut, pack_kept
from tallystick.destinations.encodings import make_encoder
from tallystick.errors import ConfigError
from tallystick.testing.destination import MemoryDestination

LIMITS = BatchLimits(max_events=10, max_bytes=1_000, max_age_s=5.0)


@pytest.mark.parametrize(
    ("pending", "size", "age", "due"),
    [
        (0, 0, 99.0, False),
        (1, 10, 0.0, False),
        (10, 10, 0.0, True),
        (1, 1_000, 0.0, True),
        (1, 10, 5.0, True),
        (9, 999, 4.9, False),
    ],
)
def test_a_cut_is_due_by_count_bytes_or_age(pending: int, size: int, age: float, due: bool) -> None:
    """Each limit alone is enough, and nothing pending is never due."""
    assert is_due(pending, size, age, LIMITS) is due


@given(st.lists(st.integers(min_value=1, max_value=50), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_a_border_is_the_last_that_keeps_both_limits(lengths: list[int], max_events: int, max_bytes: int) -> None:
    """One more line would break a limit; a single line that is too long stands alone."""
    lines = [b"x" * length for length in lengths]
    count = count_within(lines, max_events, max_bytes)
    assert 1 <= count <= max_events
    assert count == 1 or sum(lengths[:count]) <= max_bytes
    if count < min(len(lines), max_events):
        assert sum(lengths[: count + 1]) > max_bytes


@given(
    st.lists(st.sampled_from([b"keep", b"drop"]), min_size=1, max_size=50),
    st.sets(st.integers(min_value=100, max_value=149)),
)
@settings(max_examples=100, deadline=None)
def test_every_event_of_a_range_is_kept_filtered_or_gone(lines: list[bytes], gone: set[int]) -> None:
    """The three parts of a selection add up to the range, and the bitmap gives the kept ones back."""
    gaps = {index: "lost" for index in gone if index < 100 + len(lines)}
    selection = select_lines(100, lines, gaps, lambda line: line == b"keep")
    kept = [index for index in range(100, 100 + len(lines)) if index not in gaps and lines[index - 100] == b"keep"]
    assert list(selection.indexes) == kept
    assert len(selection.indexes) + selection.filtered + len(gaps) == len(lines)
    row = SettledCut(
        id=0, handle="h", tenant="t", first=100, last=99 + len(lines), is_replay=False, name="", sha256="", place="", settled_at=0,
        attempts=1, delivered=len(kept), filtered={}, kept=pack_kept(100, 99 + len(lines), kept), dead=(),
    )  # fmt: skip
    assert [index for index in range(100, 100 + len(lines)) if row.is_kept(index)] == kept


def test_halves_share_the_events_and_cover_the_range() -> None:
    """A cut with gaps in its indexes is halved by events, and no index falls between the halves."""
    destination = MemoryDestination()
    lines = [make_line(index) for index in range(7)]
    first, middle, following, last = halve(make_cut(destination, lines, first=20))
    assert (first, following, last) == (20, middle + 1, 26)
    assert middle - first + 1 in (3, 4)


def test_a_replay_picks_the_named_events_only() -> None:
    """Named events and named gaps, nothing else of the range."""
    selection = select_lines(0, [b"a", b"b", b"", b"d"], {2: "expired"}, None)
    picked = pick_lines(selection, (0, 2))
    assert (list(picked.indexes), list(picked.lines), picked.gaps) == ([0], [b"a"], {2: "expired"})


@pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
def test_encoding_twice_gives_the_same_bytes(compression: str) -> None:
    """No clock and no chance in a body; its version names what the bytes depend on."""
    lines = [make_line(index) for index in range(100)]
    bodies = {make_encoder("json", compression).encode(lines, origin="o", first_index=0, last_index=99) for _ in range(2)}
    assert len(bodies) == 1
    assert make_encoder("json", compression).version.startswith("1")


def test_an_unknown_encoding_names_the_known_ones() -> None:
    """The error helps."""
    with pytest.raises(ConfigError, match="json"):
        make_encoder("xml")
