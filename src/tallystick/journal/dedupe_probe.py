"""A set of digests on their way through the filters: as numbers when they are few, as arrays when they are many.

An array operation costs about a microsecond however short the array is, so single events take the first way and
batches the second. ``places`` are positions in the list of digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tallystick.journal.dedupe_bloom import Bloom, Words, mask_of, masks_of
from tallystick.journal.dedupe_digest import prefix_of

_MANY = 24


class Probe(Protocol):
    """Digests as pairs of 64-bit halves."""

    def halves(self, place: int) -> tuple[int, int]: ...

    def filter(self, bloom: Bloom) -> Sequence[int]:
        """Places of the digests that may be in ``bloom``."""
        ...

    def only(self, places: Sequence[int]) -> Probe:
        """A probe over the digests at ``places``."""
        ...

    def prefixes(self, spread: int) -> Probe:
        """The prefix digests of the same ids, at the same places."""
        ...


def probe_for(digests: Sequence[bytes]) -> Probe:
    """A probe over 16-byte digests."""
    if len(digests) >= _MANY:
        halves = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64).reshape(-1, 2)
        return _ManyProbe(np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1]))
    return _FewProbe([(int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")) for digest in digests])


class _FewProbe:
    def __init__(self, halves: list[tuple[int, int]]) -> None:
        self._halves = halves
        self._masks = [mask_of(high) for high, _ in halves]

    def halves(self, place: int) -> tuple[int, int]:
        return self._halves[place]

    def filter(self, bloom: Bloom) -> Sequence[int]:
        may_hold = bloom.may_hold
        return [place for place, mask in enumerate(self._masks) if may_hold(self._halves[place][0], mask)]

    def only(self, places: Sequence[int]) -> Probe:
        return _FewProbe([self._halves[place] for place in places])

    def prefixes(self, spread: int) -> Probe:
        return _FewProbe([prefix_of(high, low, spread) for high, low in self._halves])


class _ManyProbe:
    def __init__(self, high: Words, low: Words) -> None:
        self._high = high
        self._low = low
        self._masks = masks_of(high)

    def halves(self, place: int) -> tuple[int, int]:
        return int(self._high[place]), int(self._low[place])

    def filter(self, bloom: Bloom) -> Sequence[int]:
        found: list[int] = bloom.test(self._high, self._masks).tolist()
        return found

    def only(self, places: Sequence[int]) -> Probe:
        if len(places) < _MANY:
            return _FewProbe([self.halves(place) for place in places])
        chosen = np.asarray(places, np.intp)
        return _ManyProbe(self._high[chosen], self._low[chosen])

    def prefixes(self, spread: int) -> Probe:
        counters = self._low & np.uint64(0xFF_FFFF)
        return _ManyProbe(self._high - counters * np.uint64(spread), self._low - counters)
