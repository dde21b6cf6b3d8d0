"""Backoff and breaker."""

from __future__ import annotations

from tallystick.delivery.retry import RETRY_AFTER_MAX_S, Breaker, backoff_s


def test_waits_double_up_to_the_cap_and_never_end() -> None:
    """Between half and all of the exponential step; after a thousand failures it is the cap, not an overflow."""
    for failures in range(1, 12):
        ceiling = min(30.0, 0.5 * 2 ** (failures - 1))
        assert all(ceiling / 2 <= backoff_s(failures, 0.5, 30.0) <= ceiling for _ in range(20))
    assert 15.0 <= backoff_s(100_000, 0.5, 30.0) <= 30.0


def test_waits_differ() -> None:
    """Jitter: destinations that failed together do not come back together."""
    assert len({backoff_s(5, 1.0, 60.0) for _ in range(20)}) > 10


def test_retry_after_is_obeyed_up_to_a_day() -> None:
    """The other side may ask for more patience than ours, not for ever."""
    assert backoff_s(1, 0.1, 1.0, 120.0) == 120.0
    assert backoff_s(1, 0.1, 1.0, 1e12) == RETRY_AFTER_MAX_S


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_probe() -> None:
    """Closed, open, half-open with one attempt, closed again."""
    breaker = Breaker(threshold=3, minimum_s=1.0, maximum_s=8.0)
    for _ in range(2):
        breaker.fail(now=100.0)
    assert breaker.wait_s(100.0) == 0.0
    breaker.fail(now=100.0)
    assert 0.0 < breaker.wait_s(100.0) <= 1.0
    assert breaker.wait_s(102.0) == 0.0
    breaker.begin()
    assert breaker.wait_s(102.0) > 0.0
    breaker.fail(now=102.0)
    assert 1.0 <= breaker.wait_s(102.0) <= 2.0
    breaker.begin()
    breaker.succeed()
    assert breaker.wait_s(102.0) == 0.0


def test_a_throttle_opens_at_once() -> None:
    """One Retry-After is enough, without any failure before."""
    breaker = Breaker(threshold=5, minimum_s=1.0, maximum_s=8.0)
    breaker.fail(now=10.0, retry_after_s=30.0)
    assert breaker.wait_s(10.0) == 30.0
