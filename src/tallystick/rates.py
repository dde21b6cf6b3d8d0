"""How many a second, lately: a count that fades with a time constant of one minute, so that it can be asked at any moment.

With r events a second the faded count settles at r · τ; divided by what a steady stream would have gathered since the start,
τ · (1 − e^(−age/τ)), it is right from the first seconds on. It is an estimate for people, never a basis for an account.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

TAU_S = 60.0
_AGE_MIN_S = 1.0
_NONE_BELOW = 0.001


class Rate:
    """Of one source or destination, since its process started."""

    __slots__ = ("_at", "_clock", "_faded", "_started")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = self._at = clock()
        self._faded = 0.0

    def add(self, count: int) -> None:
        """So many more, now."""
        self._faded = self._now() + count

    def per_second(self) -> float:
        """Over about the last minute, to three digits behind the point."""
        faded = self._now()
        age_s = max(_AGE_MIN_S, self._at - self._started)
        rate = faded / (TAU_S * (1 - math.exp(-age_s / TAU_S)))
        return round(rate, 3) if rate >= _NONE_BELOW else 0.0

    def _now(self) -> float:
        now = self._clock()
        self._faded *= math.exp(-(now - self._at) / TAU_S)
        self._at = now
        return self._faded
