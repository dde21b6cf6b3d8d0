"""The shared bound: who may hold how much."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.shared_bytes import SharedBytes


def fill(shared: SharedBytes, *holders: str, size: int = 1) -> None:
    """Let the holders take turns until none of them gets more."""
    while wanting := [holder for holder in holders if shared.has_room(holder, size)]:
        for holder in wanting:
            if shared.has_room(holder, size):
                shared.take(holder, size)


def test_one_alone_gets_half() -> None:
    """The other half is there for whoever comes next, however hard the first one tries."""
    shared = SharedBytes(1_000)
    fill(shared, "a")
    assert shared.held("a") == 500
    assert shared.has_room("b", 500)
    assert not shared.has_room("a", 1)


def test_several_share_evenly_and_leave_one_share_free() -> None:
    """Three that want everything get a quarter each."""
    shared = SharedBytes(1_000)
    fill(shared, "a", "b", "c")
    assert [shared.held(holder) for holder in "abc"] == [250, 250, 250]
    assert shared.has_room("d", 250)


def test_the_first_alone_may_be_of_any_size() -> None:
    """Nothing is refused for ever: with nothing else there, one larger than the bound is let in, and then no other."""
    shared = SharedBytes(10)
    assert shared.has_room("a", 50)
    shared.take("a", 50)
    assert not shared.has_room("b", 1)
    assert shared.has_room("a", 80, instead_of=50)


def test_own_work_has_the_whole_bound() -> None:
    """The installation's own records are not held to a share, but to the bound."""
    shared = SharedBytes(100)
    fill(shared, "a")
    shared.take("", 30)
    assert shared.has_room("", 20, is_own=True)
    assert not shared.has_room("", 21, is_own=True)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.booleans()), max_size=80))
def test_the_bound_holds_and_the_sums_agree(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever is taken and given back: the total is the sum of what is held, and within the bound."""
    shared = SharedBytes(100)
    taken: list[tuple[str, int]] = []
    for holder, size, gives in steps:
        if gives and taken:
            shared.give(*taken.pop())
        elif shared.has_room(holder, size):
            shared.take(holder, size)
            taken.append((holder, size))
        assert shared.total == sum(size for _, size in taken) <= 100
        assert all(shared.held(name) == sum(size for who, size in taken if who == name) for name in "abc")
