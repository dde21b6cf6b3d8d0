"""When to try again: exponential backoff with jitter and a cap, and the breaker that lets one attempt probe. Pure.

Attempts never end, they slow down. Each cut has a `backoff_s` of its own, so that one poisoned cut does not slow the
others of its destination; the `Breaker` belongs to the destination and reacts to failures in a row of any cut:

    closed ──failures ≥ threshold──► open ──its wait is over──► half-open: one attempt ──success──► closed
                                      ▲                                    │
                                      └──────────────failure───────────────┘

Times are seconds of a monotonic clock given by the caller.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

RETRY_AFTER_MAX_S = 86_400.0
"""A destination may ask for a day of rest, no more."""


def backoff_s(failures: int, minimum_s: float, maximum_s: float, retry_after_s: float | None = None) -> float:
    """Seconds to wait after ``failures`` ≥ 1 failed attempts: between half and all of ``min · 2^(failures-1)``, capped.

    The other side's Retry-After is obeyed when it asks for more.
    """
    ceiling = min(maximum_s, minimum_s * float(2 ** min(failures - 1, 60)))
    wait = ceiling * (0.5 + random.random() / 2)  # noqa: S311 - jitter, no secret
    return max(wait, min(retry_after_s or 0.0, RETRY_AFTER_MAX_S))


@dataclass(slots=True)
class Breaker:
    """One destination's breaker. ``open_until`` is 0 while it is closed."""

    threshold: int
    minimum_s: float
    maximum_s: float
    failures: int = 0
    open_until: float = 0.0
    is_probing: bool = False

    def wait_s(self, now: float) -> float:
        """0 when an attempt may start now, else the seconds until it is worth asking again."""
        if self.open_until == 0.0:
            return 0.0
        if self.is_probing:
            return self.minimum_s
        return max(0.0, self.open_until - now)

    def begin(self) -> None:
        """An attempt starts; in the half-open state it is the probe, and keeps others out until it ended."""
        self.is_probing = self.open_until > 0.0

    def succeed(self) -> None:
        """The other side answered in a way that shows it is up."""
        self.failures, self.open_until, self.is_probing = 0, 0.0, False

    def fail(self, now: float, retry_after_s: float | None = None) -> None:
        """The other side did not answer, is down, or asked for a pause (``retry_after_s``), which opens at once."""
        self.failures += 1
        self.is_probing = False
        if retry_after_s is not None:
            self.open_until = max(self.open_until, now + min(retry_after_s, RETRY_AFTER_MAX_S))
        if self.failures >= self.threshold:
            excess = self.failures - self.threshold + 1
            self.open_until = max(self.open_until, now + backoff_s(excess, self.minimum_s, self.maximum_s))
