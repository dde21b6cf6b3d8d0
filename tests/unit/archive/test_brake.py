"""What stops expiry."""

from __future__ import annotations

from tallystick.archive.brake import jumped, too_much


def test_too_much_at_once() -> None:
    """More than the part, unless it is few."""
    assert too_much(26, 100, 25, 0) == "26 of 100 events would expire at once, more than 25 %"
    assert too_much(25, 100, 25, 0) == too_much(26, 100, 25, 26) == too_much(0, 0, 25, 0) == ""


def test_a_clock_that_jumped() -> None:
    """Further ahead than the time that is known to have passed; going back, and the first look, are no jumps."""
    assert "900 s ahead" in jumped(2000.0, 1000.0, 100.0, 600.0)
    assert jumped(2000.0, 1000.0, 500.0, 600.0) == jumped(500.0, 1000.0, 0.0, 600.0) == jumped(2000.0, 0.0, 0.0, 600.0) == ""
