"""What is missing among the numbers of producers, and what only came late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.sequence import SequenceTracker


def told(tracker: SequenceTracker, now: float = float("inf")) -> list[tuple[str, list[list[int]], int]]:
    return [(gap.producer, gap.ranges, gap.count) for gap in tracker.due(now)]


def note(tracker: SequenceTracker, *numbers: int, producer: str = "a", now: float = 0.0) -> None:
    for number in numbers:
        tracker.note(producer, number, now)


def test_the_first_number_is_the_beginning() -> None:
    """Nothing is missing before it."""
    tracker = SequenceTracker()
    note(tracker, 70, 71, 72)
    assert told(tracker) == []


def test_missing_numbers_are_told_once_after_the_patience() -> None:
    """Not before it is over, and not twice."""
    tracker = SequenceTracker(patience_s=5)
    note(tracker, 1, 2, 5, 9, now=100.0)
    assert told(tracker, 104.9) == []
    assert told(tracker, 105.0) == [("a", [[3, 4], [6, 8]], 5)]
    assert told(tracker) == []


def test_late_numbers_take_themselves_off_the_list() -> None:
    """Datagrams overtake each other."""
    tracker = SequenceTracker()
    note(tracker, 1, 6, 3, 2, 5)
    assert told(tracker) == [("a", [[4, 4]], 1)]


def test_repeats_and_restarts_are_counted_and_no_gaps() -> None:
    """A number seen lately is a repeat; one, or one far below, begins anew."""
    tracker = SequenceTracker()
    note(tracker, 1, 2, 3, 2)
    assert (tracker.repeats, tracker.restarts) == (1, 0)
    note(tracker, 1, 2, 5_000, 5_001, 3)
    assert (tracker.repeats, tracker.restarts) == (1, 2)
    assert told(tracker) == [("a", [[3, 4_999]], 4_997)]


def test_producers_are_kept_apart_and_bounded() -> None:
    """Numbers of one say nothing of another; the one silent longest is forgotten."""
    tracker = SequenceTracker(producers_max=2)
    note(tracker, 1, producer="a")
    note(tracker, 9, producer="b")
    note(tracker, 2, producer="a")
    note(tracker, 5, producer="c")
    note(tracker, 11, producer="b")
    assert told(tracker) == []
    assert len(tracker) == 2


def test_many_gaps_are_one_entry_of_bounded_size() -> None:
    """The ranges are the first hundred, the count is of all."""
    tracker = SequenceTracker()
    note(tracker, *range(1, 1_001, 2))
    ((_, ranges, count),) = told(tracker)
    assert (len(ranges), count) == (100, 499)


@given(st.sets(st.integers(2, 300), max_size=90))
def test_what_is_told_is_what_did_not_come(lost: set[int]) -> None:
    """Any losses among 1 to 301, with neighbours out of order: exactly those are told."""
    tracker = SequenceTracker()
    numbers = [number for number in range(1, 302) if number not in lost]
    for place in range(1, len(numbers) - 2, 3):
        numbers[place], numbers[place + 1] = numbers[place + 1], numbers[place]
    note(tracker, *numbers)
    missing = [number for _, ranges, _ in told(tracker) for first, last in ranges for number in range(first, last + 1)]
    assert sorted(missing) == sorted(lost)
