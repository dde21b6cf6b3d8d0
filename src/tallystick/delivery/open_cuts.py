"""The cuts of a lane that are not settled, and whose turn it is at an ordered destination.

There the events of a tenant go out in the order of their indexes, whatever becomes of a cut: of all open ones of a tenant only the
lowest has its turn, and the next one when that is settled. A cut that is split, or voided and cut anew, stays open until the new ones
are open in its place, so nothing behind it slips through between. Replays have an order of their own.
"""

from __future__ import annotations

import asyncio

from tallystick.delivery.builder import Planned


class OpenCuts:
    """By number. Changed on the event loop; `planned` may be called from any thread."""

    def __init__(self, cuts: dict[int, Planned] | None = None) -> None:
        self._cuts = cuts or {}
        self._ended = asyncio.Event()

    def __len__(self) -> int:
        return len(self._cuts)

    def planned(self) -> list[Planned]:
        """All of them, in no order."""
        return list(self._cuts.values())

    def add(self, planned: Planned) -> None:
        self._cuts[planned.record.id] = planned

    def remove(self, planned: Planned) -> None:
        """It is settled, or others stand in its place."""
        self._cuts.pop(planned.record.id, None)
        self._ended.set()  # wakes all who wait now
        self._ended.clear()

    async def turn(self, planned: Planned) -> None:
        """Return when no open cut of the same tenant and kind is lower."""
        while any(_is_before(other, planned) for other in self._cuts.values()):
            await self._ended.wait()


def _is_before(other: Planned, planned: Planned) -> bool:
    one, two = other.record, planned.record
    return one.handle == two.handle and bool(one.only) == bool(two.only) and (one.first, one.id) < (two.first, two.id)
