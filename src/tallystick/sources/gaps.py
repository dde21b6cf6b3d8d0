"""What a source knows to be missing, brought to the account: datagrams that the kernel dropped, numbers that did not come.

Losses are gathered for `INTERVAL_S` and written as one `gap` entry each kind and producer, so that a flood of losses is no flood of entries. An
entry is written again under its own id until it is durable; a crash before that loses the note of the last second's losses.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tallystick.event.times import format_utc
from tallystick.plugin import Intake
from tallystick.protocols.sequence import SequenceTracker

INTERVAL_S = 1.0


class GapLog:
    """One source's losses. ``dropped`` gives the number of datagrams lost since the start, ``listen`` names the socket."""

    def __init__(self, intake: Intake, tracker: SequenceTracker, dropped: Callable[[], int] | None, listen: str = "") -> None:
        self.recorded = 0
        self._intake = intake
        self._tracker = tracker
        self._dropped = dropped
        self._listen = listen
        self._told = 0
        self._life = secrets.token_hex(6)
        self._number = 0
        self._since = _now()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.record(time.monotonic())

    async def record(self, now: float = math.inf) -> None:
        """Write down what is due at ``now``; all there is at the end."""
        dropped = self._dropped() if self._dropped is not None else 0
        until = _now()
        if dropped > self._told:
            facts = {"reason": "udp_dropped", "count": dropped - self._told, "listen": self._listen}
            await self._write(facts | {"since": self._since, "until": until})
            self._told = dropped
        self._since = until
        for gap in self._tracker.due(now):
            facts = {"reason": "sequence", "producer": gap.producer, "count": gap.count, "ranges": gap.ranges}
            await self._write(facts | {"until": until})

    async def _write(self, facts: dict[str, Any]) -> None:
        self._number += 1
        await self._intake.record_gap(f"{self._life}:{self._number}", facts)
        self.recorded += 1


def _now() -> str:
    return format_utc(datetime.now(UTC))
