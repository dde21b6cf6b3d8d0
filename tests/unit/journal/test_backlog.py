"""What waits for a commit: order within a tenant, turns between tenants, a bound for one commit."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.journal.backlog import Backlog
from tallystick.journal.group import Group


def backlog(*waiting: tuple[str, int]) -> Backlog:
    made = Backlog()
    for number, (lane, cost) in enumerate(waiting):
        made.add(Group([], cost, number, lane=lane))
    return made


def taken(made: Backlog, bytes_max: int) -> list[int]:
    return [group.token for group in made.take(bytes_max)]


def test_a_single_request_is_in_the_next_commit() -> None:
    """However much another tenant has waiting before it."""
    made = backlog(*[("loud", 100)] * 50, ("quiet", 1))
    assert taken(made, 300) == [0, 50, 1, 2]
    assert taken(made, 300) == [3, 4, 5]


def test_a_commit_has_at_least_one_request() -> None:
    """One that is larger than the bound goes alone; an empty backlog gives nothing."""
    made = backlog(("a", 1_000), ("b", 1))
    assert (taken(made, 10), taken(made, 10), taken(made, 10)) == ([0], [1], [])
    assert not made


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 100)), max_size=40), st.integers(1, 300))
def test_nothing_is_lost_or_overtaken_in_its_lane(waiting: list[tuple[str, int]], bytes_max: int) -> None:
    """All commits together hold every request once, each lane's in the order in which they came."""
    made = backlog(*waiting)
    found = []
    while made:
        found += taken(made, bytes_max)
    assert sorted(found) == list(range(len(waiting)))
    for lane in "abc":
        numbers = [number for number in found if waiting[number][0] == lane]
        assert numbers == sorted(numbers)
    again = backlog(*waiting)
    assert len(again.take_all()) == len(waiting)
    assert not again
