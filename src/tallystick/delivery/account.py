"""The account of one tenant at one destination: sealed = delivered + filtered + dead-lettered + pending, always.

Counts only change together with the cursor, in one durable write (`state`), so they can never disagree with it.
"""

from __future__ import annotations

import msgspec


class Account(msgspec.Struct):
    """``next`` is the first index in no cut yet; the counts are those of settled events. ``revision`` counts replays."""

    tenant: str
    next: int = 0
    delivered: int = 0
    filtered: dict[str, int] = msgspec.field(default_factory=dict)
    dead_lettered: dict[str, int] = msgspec.field(default_factory=dict)
    revision: int = 0

    @property
    def settled(self) -> int:
        return self.delivered + sum(self.filtered.values()) + sum(self.dead_lettered.values())

    def pending(self, sealed: int) -> int:
        """Events sealed but not settled."""
        return sealed - self.settled

    def settle(self, delivered: int, filtered: dict[str, int], dead: dict[str, int]) -> None:
        """Add the outcomes of one cut."""
        self.delivered += delivered
        _add(self.filtered, filtered)
        _add(self.dead_lettered, dead)

    def redeem(self, reasons: dict[str, int]) -> None:
        """A replay delivered events that had been dead-lettered for these reasons: the next revision."""
        for reason, count in reasons.items():
            left = self.dead_lettered.get(reason, 0) - count
            if left > 0:
                self.dead_lettered[reason] = left
            else:
                self.dead_lettered.pop(reason, None)
        self.delivered += sum(reasons.values())
        self.revision += 1


def _add(counts: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        if count:
            counts[name] = counts.get(name, 0) + count
