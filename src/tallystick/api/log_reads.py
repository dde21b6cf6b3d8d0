"""Reading entries of a log is on record too (promise P12), once for each reader, log and interval.

A mirror fetches thousands of bundles, and an event for each would make the very log grow that it follows. So the first bundle of a
reader is recorded before it is answered, with the place where it begins and the time that the record stands for; the reader's
further bundles of that log within that time are what the record announces.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tallystick.api.audit import Auditor
from tallystick.api.caller import Caller

_READERS_MAX = 10_000


class LogReads:
    """``interval_s``: how long one record stands for its reader's further reads of the same log, in seconds."""

    def __init__(self, auditor: Auditor, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._auditor = auditor
        self._interval_s = interval_s
        self._clock = clock
        self._recorded: dict[tuple[str, str], float] = {}

    async def note(self, caller: Caller, origin: str, tenant: str | None, first_index: int, request_id: str = "") -> None:
        """Append ``tallystick.log.read`` when none stands for this read. Raises what the inner door raises: then nothing is read."""
        reader, now = (caller.key_id, origin), self._clock()
        if now - self._recorded.get(reader, -self._interval_s) < self._interval_s:
            return
        await self._auditor.record(
            caller,
            "log.read",
            tenants=() if tenant is None else (tenant,),
            target=("log", origin),
            request_id=request_id,
            details={"first_index": first_index, "stands_for_seconds": self._interval_s},
        )
        if len(self._recorded) >= _READERS_MAX:
            self._recorded.clear()
        self._recorded[reader] = now
