"""Buckets by name: kept alike by one process or several, bounded, and whole however many write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.buckets import Buckets, OwnBuckets, SharedBuckets

KEY = b"k" * 32
NEW = float("-inf")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.tuples(st.text(max_size=8), st.floats(-1e9, 1e9)), max_size=30))
def test_what_was_put_last_is_found(tmp_path: Path, puts: list[tuple[str, float]]) -> None:
    """Of each name, in one process and through another's mapping of the same file."""
    path = tmp_path / "buckets"
    path.unlink(missing_ok=True)
    own, shared, other = OwnBuckets(), SharedBuckets(path, KEY), SharedBuckets(path, KEY)
    for name, new_at in puts:
        own.put(name, new_at)
        shared.put(name, new_at)
    for name, new_at in dict(puts).items():
        assert own.get(name) == shared.get(name) == other.get(name) == new_at
    assert own.get("nobody at all") == other.get("nobody at all") == NEW


@pytest.mark.parametrize("kind", ["own", "shared"])
def test_the_number_of_names_is_bounded(tmp_path: Path, kind: str) -> None:
    """Names come from senders: however many, the room is what it was, and what is owed longest is remembered."""
    shared = SharedBuckets(tmp_path / "buckets", KEY)
    own = OwnBuckets(100)
    buckets: Buckets = own if kind == "own" else shared
    for number in range(10):
        buckets.put(f"owes {number}", 1e9 + number)
    for number in range(30_000):
        buckets.put(f"n{number}", float(number))
    assert [buckets.get(f"owes {number}") for number in range(10)] == [1e9 + number for number in range(10)]
    assert all(buckets.get(f"n{number}") == float(number) for number in range(29_960, 30_000))
    assert buckets.get("n0") == NEW
    assert len(own) <= 100
    assert (tmp_path / "buckets").stat().st_size == 393_216


def test_no_update_is_lost_between_processes(tmp_path: Path) -> None:
    """Three processes count to a thousand each, each step read and written under the lock; one that dies holding it stops nobody."""
    program = (
        "import os, sys; from pathlib import Path; from tallystick.buckets import SharedBuckets\n"
        "buckets = SharedBuckets(Path(sys.argv[1]), b'k' * 32)\n"
        "for _ in range(1000):\n"
        "    with buckets.locked():\n"
        "        buckets.put('n', max(0.0, buckets.get('n')) + 1)\n"
        "with buckets.locked():\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    counting = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "buckets")]) for _ in range(3)]
    assert [process.wait(60) for process in counting] == [-9] * 3
    buckets = SharedBuckets(tmp_path / "buckets", KEY)
    with buckets.locked():
        assert buckets.get("n") == 3_000.0
