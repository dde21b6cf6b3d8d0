"""A set of digests on their way through the filters: as numbers when they are few, as arrays when they are many.

An array operation costs about a microsecond however short the array is, so single events take the first way and
batches the second. ``places`` are positions in the list of digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tallystick.journal.dedupe_bloom import Bloom, Words, mask_of, masks_of
from tallystick.journal.dedupe_digest import prefix_of

_MANY = 24


class Probe(Protocol):
    """Digests as pairs of 64-bit halves."""

    def halves(self, place: int) -> tuple[int, int]: ...

    def filter(self, bloom: Bloom, places: Sequence[int] | None) -> Sequence[int]:
        """Those of ``places`` (None: of all) that may be in ``bloom``."""
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

    def filter(self, bloom: Bloom, places: Sequence[int] | None) -> Sequence[int]:
        chosen = range(len(self._halves)) if places is None else places
        return [place for place in chosen if bloom.may_hold(self._halves[place][0], self._masks[place])]

    def prefixes(self, spread: int) -> Probe:
        return _FewProbe([prefix_of(high, low, spread) for high, low in self._halves])


class _ManyProbe:
    def __init__(self, high: Words, low: Words) -> None:
        self._high = high
        self._low = low
        self._masks = masks_of(high)

    def halves(self, place: int) -> tuple[int, int]:
        return int(self._high[place]), int(self._low[place])

    def filter(self, bloom: Bloom, places: Sequence[int] | None) -> Sequence[int]:
        if places is None:
            return _as_list(bloom.test(self._high, self._masks))
        chosen = np.asarray(places, np.intp)
        return _as_list(chosen[bloom.test(self._high[chosen], self._masks[chosen])])

    def prefixes(self, spread: int) -> Probe:
        counters = self._low & np.uint64(0xFF_FFFF)
        return _ManyProbe(self._high - counters * np.uint64(spread), self._low - counters)


def _as_list(places: NDArray[np.intp]) -> list[int]:
    found: list[int] = places.tolist()
    return found
