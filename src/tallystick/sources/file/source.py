"""Source `file`: follows files through rotation, truncation, copies, compression and restarts.

One portion after the other is read, committed and only then counted as read; the register is saved after commits, at most every
`SAVE_S`. A crash between a commit and the save means that the portion is read again: its records have the same ids, and are merged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from prometheus_client import Counter, Gauge

from tallystick.plugin import Decoded, Intake, SourceContext
from tallystick.sources.file.follower import Follower
from tallystick.sources.file.settings import FileSettings
from tallystick.sources.file.tail import Portion
from tallystick.sources.file.watch import Waker, directories_of

SAVE_S = 0.5
_BYTES = Counter("tallystick_file_read_bytes", "Bytes of content that a file source read and committed.", ["source"])
_ROTATED = Counter("tallystick_file_rotations", "Files that were renamed or deleted while a file source read them.", ["source"])
_REWRITTEN = Counter("tallystick_file_truncations", "Files that were truncated or written anew.", ["source"])
_TOO_LONG = Counter("tallystick_file_long_lines", "Lines over line_max, whose beginning is in the quarantine.", ["source"])
_UNREAD = Gauge("tallystick_file_unread_bytes", "Bytes in files that are not read yet.", ["source"], multiprocess_mode="livemax")
_OPEN = Gauge("tallystick_file_open", "Files held open.", ["source"], multiprocess_mode="livemax")


class FileSource:
    """`plugin.Source`."""

    guarantee: ClassVar[str] = "exactly once, within the dedupe window"
    acknowledges: ClassVar[str] = "its own durable offset in each file, saved after the commit"

    def __init__(self, settings: FileSettings, context: SourceContext) -> None:
        self._settings = settings
        self._context = context
        self._follower: Follower | None = None
        self._last_read_at: float | None = None
        self._saved_at = 0.0
        self._is_unsaved = False

    async def run(self, intake: Intake, stop: asyncio.Event) -> None:
        """See `plugin.Source`."""
        follower = await asyncio.to_thread(Follower, self._settings, self._context.base_dir, self._context.state_dir)
        self._follower = follower
        patterns = [str(self._context.base_dir / path) for path in self._settings.paths]
        waker = Waker(self._settings.poll.seconds, directories_of(patterns) if self._settings.watch == "inotify" else ())
        waker.start(stop)
        try:
            await self._follow(follower, waker, intake, stop)
        finally:
            await waker.close()
            if self._is_unsaved:
                await asyncio.to_thread(follower.save)
            follower.close()

    def status(self) -> Mapping[str, Any]:
        """Facts for `/v1/status`."""
        follower = self._follower
        if follower is None:
            return {"reason": ""}
        problems = dict(follower.problems)
        reason = "; ".join(f"{path}: {why}" for path, why in list(problems.items())[:3])
        return {
            "reason": reason,
            "files": len(follower.tails),
            "unread_bytes": follower.unread_bytes,
            "unreadable": len(problems),
            "last_read_at": self._last_read_at,
        }

    async def _follow(self, follower: Follower, waker: Waker, intake: Intake, stop: asyncio.Event) -> None:
        scanned_at = float("-inf")
        while not stop.is_set():
            if time.monotonic() - scanned_at >= min(self._settings.poll.seconds, SAVE_S):
                await asyncio.to_thread(follower.scan)
                scanned_at = time.monotonic()
            portion = await asyncio.to_thread(follower.read)
            if portion.tails:
                await self._commit(portion, intake)
                follower.settle(portion)
                self._is_unsaved = True
                _BYTES.labels(self._context.name).inc(portion.size)
                self._last_read_at = time.time()
            await self._tell(follower, intake)
            if self._is_unsaved and (not portion.tails or time.monotonic() - self._saved_at >= SAVE_S):
                await asyncio.to_thread(follower.save)
                self._saved_at, self._is_unsaved = time.monotonic(), False
            if not portion.tails:
                await waker.wait(stop)
                scanned_at = float("-inf")

    async def _commit(self, portion: Portion, intake: Intake) -> None:
        """Returns when all of the portion is durable."""
        if portion.records:
            await intake.commit_records(portion.records)
        if portion.faults:
            faults = portion.faults
            await intake.commit_decoded(lambda: Decoded(faults=list(faults)), sum(len(fault.record) for fault in faults))
            _TOO_LONG.labels(self._context.name).inc(len(faults))

    async def _tell(self, follower: Follower, intake: Intake) -> None:
        """Metrics, and gaps into the account."""
        name, changes = self._context.name, follower.take_changes()
        _ROTATED.labels(name).inc(changes.rotated)
        _REWRITTEN.labels(name).inc(changes.rewritten)
        _UNREAD.labels(name).set(follower.unread_bytes)
        _OPEN.labels(name).set(len(follower.tails))
        for gap_id, facts in changes.gaps:
            await intake.record_gap(gap_id, facts)
