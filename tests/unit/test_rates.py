"""How many a second, lately."""

from __future__ import annotations

import pytest

from tallystick.rates import Rate


def test_a_steady_stream_is_right_from_the_start_and_fades_after_it() -> None:
    """Ten a second are ten after two seconds and after five minutes; an hour of silence is none."""
    now = 0.0
    rate = Rate(lambda: now)
    seen = {}
    for second in range(1, 301):
        now = float(second)
        rate.add(10)
        seen[second] = rate.per_second()
    assert seen[2] == pytest.approx(10, rel=0.1)
    assert seen[300] == pytest.approx(10, rel=0.02)
    now += 60
    assert rate.per_second() == pytest.approx(10 / 2.718, rel=0.05)
    now += 3_600
    assert rate.per_second() == 0.0


def test_one_event_at_the_very_start_is_no_thousand_a_second() -> None:
    """The age counts as a second at least."""
    rate = Rate(lambda: 0.0)
    rate.add(3)
    assert rate.per_second() == pytest.approx(3, rel=0.02)
