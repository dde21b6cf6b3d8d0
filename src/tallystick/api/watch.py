"""The watcher of the pipeline: turns what `/v1/status` says into alarms (`alerts.alarm`), which are events and go to destinations.

It runs in the api's process, beside the page it reads. One round:

1. reads the page and takes it; when an alarm was raised or cleared, the new state is stored with the events that it owes.
   A crash before this: the change was never made, and is made again when it still holds.
2. hands the owed events to the intake, one after the other, and stores that they are handed over. A crash before that: they are
   handed over again, the same events under the same ids, and stored once.

While the intake takes nothing, which is an alarm itself, events wait, in order.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from tallystick.alerts.alarm import Alarms, AlarmState, Thresholds
from tallystick.api.caller import Caller
from tallystick.api.deps import ApiDeps
from tallystick.api.status import build_status
from tallystick.config import AlarmSettings
from tallystick.durable import StateFile
from tallystick.errors import ConflictError, PushbackError, TallystickError
from tallystick.event.times import format_utc
from tallystick.journal.tenants import SERVER_TENANT
from tallystick.telemetry import log, publish_status

ROLE: Final = "alarms"
_ITSELF: Final = Caller("", "tallystick", (), frozenset({"read"}))


class AlarmWatch:
    """One per installation."""

    def __init__(self, deps: ApiDeps) -> None:
        settings = deps.config.alarms
        self._deps = deps
        self._interval_s = settings.interval.seconds
        self._file = StateFile(deps.data_dir / ROLE)
        self.alarms = Alarms(thresholds_of(settings), self._load(deps.data_dir))
        self._is_dirty = False

    def _load(self, data_dir: Path) -> AlarmState:
        payload = self._file.load()
        if self._file.is_damaged():
            log.error("the state of alarms is damaged; what stands may be raised once more", path=str(data_dir / ROLE))
        return AlarmState() if payload is None else msgspec.json.decode(payload, type=AlarmState)

    async def run(self) -> None:
        """Until cancelled. What fails is tried again with the next round, and stands in the log."""
        while True:
            try:
                await self.step()
            except (OSError, TallystickError) as error:
                log.error("alarms wait", error=str(error))
                publish_status(self._deps.data_dir, ROLE, {"reason": str(error)})
            await asyncio.sleep(self._interval_s)

    async def step(self) -> None:
        """One round. Raises OSError, TallystickError."""
        page = await build_status(self._deps, _ITSELF)
        self._is_dirty = self.alarms.look(page, time.monotonic(), format_utc(datetime.now(UTC))) or self._is_dirty
        await self._save()
        reason = await self._hand_over()
        standing: dict[str, Any] = {name: msgspec.to_builtins(one) for name, one in self.alarms.state.raised.items()}
        publish_status(self._deps.data_dir, ROLE, {"reason": reason, "raised": standing})

    async def _save(self) -> None:
        if self._is_dirty:
            await asyncio.to_thread(self._file.save, msgspec.json.encode(self.alarms.state))
            self._is_dirty = False

    async def _hand_over(self) -> str:
        """Why events wait, or empty."""
        owed = self.alarms.state.owed
        while owed:
            try:
                await self._deps.door.append_events(SERVER_TENANT, [owed[0]])
            except ConflictError as error:  # not to be expected: the id is made of the change
                log.error("an alarm was refused", id=owed[0]["id"], error=str(error))
            except PushbackError as error:
                return f"{len(owed)} alarms wait for the intake: {error}"
            del owed[0]
            self._is_dirty = True
            await self._save()
        return ""


def thresholds_of(settings: AlarmSettings) -> Thresholds:
    """The settings in seconds."""
    return Thresholds(settings.raise_after.seconds, settings.clear_after.seconds, settings.lag.seconds, settings.dead_letters)
