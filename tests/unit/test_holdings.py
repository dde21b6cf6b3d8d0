"""What several processes hold of one bound: each sees the sum, and a successor begins with nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.holdings import OwnHoldings, SharedHoldings, forget
from tallystick.shared_bytes import SharedBytes

KEY = b"k" * 32


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 2**40)), max_size=40))
def test_own_holdings_add_up(takes: list[tuple[str, int]]) -> None:
    """In all and by holder; who has given everything back is forgotten."""
    held = OwnHoldings()
    for holder, size in takes:
        held.add(holder, size)
    assert held.total == sum(size for _, size in takes)
    for name in "abc":
        assert held.held(name) == sum(size for holder, size in takes if holder == name)
    for holder, size in takes:
        held.add(holder, -size)
    assert (held.total, dict(held._held)) == (0, {})


def test_several_processes_see_the_sum(tmp_path: Path) -> None:
    """Whatever another process takes counts here at once, by holder too; each region stays its process's own."""
    one, two = (SharedHoldings(tmp_path / "held", number, 3, KEY) for number in (1, 2))
    one.add("a", 5)
    two.add("a", 7)
    two.add("b", 2**40)
    assert one.total == two.total == 12 + 2**40
    assert (one.held("a"), two.held("a"), one.held("b"), one.held("nobody")) == (12, 12, 2**40, 0)
    one.expect(3)
    assert (two.loads(), one.own_load, two.total) == ([0, 8, 7 + 2**40], 8, 12 + 2**40)
    two.add("a", -7)
    assert one.held("a") == 5


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_what_a_killed_process_held_is_held_no_more(tmp_path: Path, is_forgotten: bool) -> None:
    """A real process takes and dies: who saw it can empty its region, and its successor does; the others' stay as they were."""
    forget(tmp_path / "held", 2)
    mine = SharedHoldings(tmp_path / "held", 1, 3, KEY)
    mine.add("a", 1)
    program = (
        "import os, sys; from pathlib import Path; from tallystick.holdings import SharedHoldings\n"
        "SharedHoldings(Path(sys.argv[1]), 2, 3, b'k' * 32).add('a', 41); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "held")], check=False)
    assert mine.held("a") == 42
    if is_forgotten:
        forget(tmp_path / "held", 2)
    else:
        SharedHoldings(tmp_path / "held", 2, 3, KEY)
    assert (mine.held("a"), mine.total) == (1, 1)


def test_shares_are_those_of_all_processes(tmp_path: Path) -> None:
    """The rules of `SharedBytes` over two processes: one holder alone gets half, wherever it takes, and there is room for the next."""
    stores = [SharedBytes(1_000, SharedHoldings(tmp_path / "held", number, 2, KEY)) for number in (0, 1)]
    taken = 0
    while stores[taken % 2].has_room("a", 10):
        stores[taken % 2].take("a", 10)
        taken += 1
    assert (taken, stores[0].total, stores[1].held("a")) == (50, 500, 500)
    assert not stores[1].has_room("a", 10)
    assert stores[1].has_room("b", 240)


def test_many_names_cost_no_memory(tmp_path: Path) -> None:
    """Names come from senders: their places are found again after more of them than are remembered."""
    held = SharedHoldings(tmp_path / "held", 0, 1, KEY)
    held.add("first", 3)
    for number in range(10_050):
        held.held(f"n{number}")
    assert len(held._places) <= 10_000
    assert held.held("first") >= 3
