"""One run of numbers: what came, what is missing, and that its memory is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.numbers import RANGES_MAX, TOLD_MAX, Came, Numbers

PATIENCE = 5.0


def came(numbers: Numbers, *arriving: int, now: float = 0.0) -> list[Came]:
    return [numbers.note(number, now, PATIENCE) for number in arriving]


def test_a_hole_is_told_once_and_what_comes_then_is_late() -> None:
    """Before it is told a late number takes itself off."""
    numbers = Numbers(1, 1, 0.0)
    assert came(numbers, 2, 6, 4) == [Came.NEW] * 3
    assert numbers.tell() == ([[3, 3], [5, 5]], 2)
    assert numbers.tell() == ([], 0)
    assert came(numbers, 5, 5, 3) == [Came.LATE, Came.REPEAT, Came.LATE]


def test_the_beginning_moves_down_for_the_patience_only() -> None:
    """Requests overtake each other; later nothing is said of what lies below."""
    numbers = Numbers(51, 51, 100.0)
    assert came(numbers, 40, now=104.0) == [Came.NEW]
    assert numbers.missing == [[41, 50]]
    assert came(numbers, 7, now=106.0) == [Came.UNPLACED]
    assert numbers.floor == 40


@given(st.lists(st.integers(0, 60), min_size=1, max_size=200))
def test_every_number_is_told_or_came(arriving: list[int]) -> None:
    """In any order, with the patience never over: what is missing is exactly what never came; the second of each is a repeat."""
    numbers = Numbers(arriving[0], arriving[0], 0.0)
    seen = {arriving[0]}
    for number in arriving[1:]:
        assert numbers.note(number, 0.0, PATIENCE) is (Came.REPEAT if number in seen else Came.NEW)
        seen.add(number)
    ranges, count = numbers.tell()
    missing = [number for first, last in ranges for number in range(first, last + 1)]
    assert missing == [number for number in range(min(seen), max(seen)) if number not in seen]
    assert count == len(missing)


def test_its_memory_is_bounded_and_the_count_is_not() -> None:
    """A thousand holes: the highest hundred are listed, all are counted, and told ones are forgotten from below."""
    numbers = Numbers(0, 0, 0.0)
    came(numbers, *range(2, 2_002, 2))
    assert len(numbers.missing) == RANGES_MAX
    assert numbers.missing_count == 1_000
    assert numbers.tell()[1] == 1_000
    assert len(numbers.told) == TOLD_MAX
    assert came(numbers, 1, 1_999, now=100.0) == [Came.UNPLACED, Came.LATE]
