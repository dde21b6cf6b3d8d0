"""An intake in memory for tests of sources, with dials for everything that a real one makes a source wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tallystick.errors import NotAcceptingError
from tallystick.event import Event
from tallystick.plugin import Decoded, Fault, Record, Sender, Taken


class MemoryIntake:
    """Keeps what was committed, in order.

    Dials: commits wait while ``is_open`` is cleared, as they do while a disk is full or slow; ``is_stopping`` True ends those that
    wait with NotAcceptingError; ``delay_s`` is the time of one commit. ``commits`` are the numbers of records or events of each.
    """

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.is_stopping = False
        self.delay_s = 0.0
        self.records: list[Record] = []
        self.events: list[Event] = []
        self.contents: list[bytes] = []
        self.faults: list[Fault] = []
        self.senders: list[Sender | None] = []
        self.commits: list[int] = []
        self.gaps: dict[str, dict[str, Any]] = {}
        self.own_events: list[dict[str, Any]] = []

    async def commit_records(self, records: Sequence[Record], sender: Sender | None = None) -> Taken:
        await self._wait()
        self.records += records
        return self._count(len(records), 0, sender)

    async def commit_decoded(self, decode: Callable[[], Decoded], size: int, sender: Sender | None = None, peer: str = "") -> Taken:
        decoded = decode()
        await self._wait()
        self.events += decoded.events
        self.contents += decoded.contents
        self.faults += decoded.faults
        return self._count(len(decoded.events), len(decoded.faults), sender)

    async def record_gap(self, gap_id: str, facts: Mapping[str, Any], sender: Sender | None = None) -> None:
        await self._wait()
        self.gaps.setdefault(gap_id, dict(facts))

    async def record_own(self, event: Mapping[str, Any]) -> None:
        self.own_events.append(dict(event))

    async def _wait(self) -> None:
        await asyncio.sleep(self.delay_s)
        while not self.is_open.is_set():
            if self.is_stopping:
                raise NotAcceptingError("the server stops")
            try:
                async with asyncio.timeout(0.05):
                    await self.is_open.wait()
            except TimeoutError:
                continue

    def _count(self, accepted: int, faults: int, sender: Sender | None) -> Taken:
        self.senders.append(sender)
        self.commits.append(accepted + faults)
        return Taken(accepted, 0, 0, faults, "2026-01-01T00:00:00.000000Z")
