"""Ids made here: UUIDv7 (RFC 9562 section 5.7), in batches that share their first 30 characters.

    018f3c2a-7b10-7abc-9def-0123456 78 9ab     prefix: 48 bits of milliseconds, 50 random bits
    └──────── prefix, 30 ─────────┘ └─ 6 ─┘    suffix: a counter from 0, hexadecimal

The counter makes the ids of a batch distinct and sortable; the 50 random bits keep two batches of one millisecond apart.
Because only the prefix is new, the journal remembers one prefix for a whole batch instead of an id for each event.
"""

from __future__ import annotations

from tallystick.event.entropy import random_piece

_COUNT_MAX = 1 << 24


class IdMaker:
    """Makes the ids of one batch. ``now_ms`` is Unix time in milliseconds; ``prefix`` has 30 characters."""

    __slots__ = ("_next", "prefix")

    def __init__(self, now_ms: int) -> None:
        random = int.from_bytes(random_piece(), "big") >> 78
        clock = f"{now_ms & 0xFFFF_FFFF_FFFF:012x}"
        version = 0x7000 | (random >> 38)
        variant = 0x8000 | (random >> 24 & 0x3FFF)
        self.prefix = f"{clock[:8]}-{clock[8:]}-{version:04x}-{variant:04x}-{random & 0xFF_FFFF:06x}"
        self._next = 0

    def make(self, count: int) -> list[str]:
        """The next ``count`` ids. Raises OverflowError past 16,777,216 in one batch."""
        first, self._next = self._next, self._next + count
        if self._next > _COUNT_MAX:
            raise OverflowError(f"one batch has at most {_COUNT_MAX} ids")
        prefix = self.prefix
        return [f"{prefix}{n:06x}" for n in range(first, self._next)]
