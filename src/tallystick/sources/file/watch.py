"""When to look at the files again: after `poll` at the latest, or as soon as the kernel tells of a change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from watchfiles import awatch

from tallystick.sources.file.names import matching
from tallystick.telemetry import log


class Waker:
    """With ``directories`` it listens to them (inotify); without, it is a clock. Polling goes on in both cases: it is the truth."""

    def __init__(self, poll_s: float, directories: Sequence[Path]) -> None:
        self._poll_s = poll_s
        self._directories = directories
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, stop: asyncio.Event) -> None:
        if self._directories:
            self._task = asyncio.create_task(self._listen(stop))

    async def wait(self, stop: asyncio.Event) -> None:
        """Until the next look is due."""
        waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._changed.wait())]
        try:
            await asyncio.wait(waits, timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._changed.clear()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _listen(self, stop: asyncio.Event) -> None:
        try:
            async for _ in awatch(
                *self._directories, stop_event=stop, step=10, debounce=50, recursive=False, yield_on_timeout=False
            ):
                self._changed.set()
        except (OSError, RuntimeError) as error:
            log.warning("changes of files are not told by the kernel; polling goes on", error=str(error))


def directories_of(patterns: Sequence[str]) -> list[Path]:
    """The directories that the patterns look into now."""
    found = {path for pattern in patterns for path in matching(str(Path(pattern).parent))}
    return sorted(Path(path) for path in found if Path(path).is_dir())
