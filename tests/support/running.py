"""Runs one source in the test's own event loop, over an intake in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tallystick.config import IngestLimits
from tallystick.plugin import Source, SourceContext
from tallystick.testing.source import MemoryIntake


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 10.0) -> Any:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
        await asyncio.sleep(0.005)
    return value


def context_of(directory: Path, name: str = "net", **limits: Any) -> SourceContext:
    return SourceContext(name, directory, directory / "sources" / name, IngestLimits(**limits))


class Running:
    """A source that runs, its intake, and its end."""

    def __init__(self, source: Source, intake: MemoryIntake) -> None:
        self.source = source
        self.intake = intake
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(source.run(intake, self.stop))

    @property
    def page(self) -> dict[str, Any]:
        return dict(self.source.status())

    def address(self, key: str = "listen") -> tuple[str, int]:
        """Where it listens."""
        host, _, port = str(self.page[key]).rpartition(":")
        return host.strip("[]"), int(port)

    async def end(self) -> None:
        """An orderly stop."""
        self.stop.set()
        await asyncio.wait_for(self.task, 10)


@asynccontextmanager
async def running(source: Source, intake: MemoryIntake | None = None) -> AsyncIterator[Running]:
    """The source from when it listens until the end of the block."""
    run = Running(source, intake or MemoryIntake())
    try:
        await until(lambda: run.task.done() or "listen" in run.page or "listen_udp" in run.page, "the source to listen")
        if run.task.done():
            await run.task
        yield run
    finally:
        run.intake.is_open.set()
        if not run.task.done():
            await run.end()
