"""A Bloom filter in which each key has one 64-bit word and five bits of it: one memory access a key, whole batches at once.

A key is the first half of a digest, already uniform: its upper 32 bits choose the word, 30 of its lower bits choose the
five bits. At 16 bits a key about one absent key in 230 looks present (Putze, Sanders, Singler 2007, "blocked" filters).
"""

from __future__ import annotations

import mmap
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = NDArray[np.uint64]

BITS_PER_KEY = 16
_SHIFTS = (0, 6, 12, 18, 24)
_ONE = np.uint64(1)
_SIX = np.uint64(63)
_HALF = np.uint64(32)


def masks_of(keys: Words) -> Words:
    """The bits of each key within its word."""
    masks = np.zeros_like(keys)
    for shift in _SHIFTS:
        masks |= _ONE << ((keys >> np.uint64(shift)) & _SIX)
    return masks


def mask_of(key: int) -> int:
    """`masks_of` for one key."""
    return 1 << (key & 63) | 1 << (key >> 6 & 63) | 1 << (key >> 12 & 63) | 1 << (key >> 18 & 63) | 1 << (key >> 24 & 63)


class Bloom:
    """``words`` may be shared with a file's bytes. Adding is done by one thread; testing by any."""

    __slots__ = ("_count", "_view", "words")

    def __init__(self, words: Words) -> None:
        self.words = words
        self._count = np.uint64(len(words))
        self._view = memoryview(words.data)

    @classmethod
    def for_keys(cls, count: int) -> Bloom:
        """An empty filter for about ``count`` keys."""
        return cls(mapped_words(words_for(count)))

    def add(self, keys: Words) -> None:
        """Put keys in."""
        np.bitwise_or.at(self.words, self._places(keys), masks_of(keys))

    def test(self, keys: Words, masks: Words) -> NDArray[np.intp]:
        """Positions of the keys that may have been added."""
        return np.flatnonzero((self.words[self._places(keys)] & masks) == masks)

    def may_hold(self, key: int, mask: int) -> bool:
        """`test` for one key."""
        word: int = self._view[(key >> 32) * len(self._view) >> 32]
        return word & mask == mask

    def _places(self, keys: Words) -> NDArray[np.intp]:
        return (((keys >> _HALF) * self._count) >> _HALF).astype(np.intp)


def mapped_words(count: int) -> Words:
    """Zeros in pages of their own. They stand for hours among short-lived memory: the heap would keep the holes around them."""
    return np.frombuffer(mmap.mmap(-1, max(8 * count, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint64, count)


def words_for(count: int) -> int:
    """Size of a filter for ``count`` keys, in 64-bit words."""
    return max(1, (count * BITS_PER_KEY + 63) // 64)
