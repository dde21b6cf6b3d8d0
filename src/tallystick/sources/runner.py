"""Runs the declared sources that are no HTTP doors, each by itself: one that fails takes nobody along.

    starting ──► running ──run() raised──► failed ──its wait is over──► running …
                    └──stop──► stopping: flush, answer ──► stopped

A failed source is made anew and run again, after waits that grow from `RESTART_MIN_S` to `RESTART_MAX_S`; a run that lasted
`STEADY_S` counts as healthy and the waits begin anew. While it waits, status says ``failed`` with the reason. At the stop it has
`FLUSH_S` to commit what it holds, with the journal still open; then its commits are told to give up, and then it is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter, Gauge

from tallystick.delivery.retry import backoff_s
from tallystick.errors import TallystickError
from tallystick.plugin import Intake, Source
from tallystick.sources.inlet import Inlet
from tallystick.sources.plan import SourcePlan
from tallystick.telemetry import log

RESTART_MIN_S = 0.5
RESTART_MAX_S = 30.0
STEADY_S = 60.0
FLUSH_S = 5.0
_CANCEL_S = 1.0
_RESTARTS = Counter("tallystick_source_restarts", "Runs of a source that ended with an error.", ["source"])
_UP = Gauge("tallystick_source_up", "1 while the source runs, 0 while it failed.", ["source"], multiprocess_mode="livemax")


class SourceRunner:
    """One source over all its runs. ``make`` gives a new instance, ``open_inlet`` its way in, ended by the event it is given."""

    def __init__(self, name: str, make: Callable[[], Source], open_inlet: Callable[[asyncio.Event], Inlet]) -> None:
        self.name = name
        self.state = "starting"
        self.reason = ""
        self.restarts = 0
        self._make = make
        self._give_up = asyncio.Event()
        self._inlet = open_inlet(self._give_up)
        self._source: Source | None = None
        self._up = _UP.labels(name)

    def meet(self, plan: SourcePlan) -> None:
        """From the next commit on, what comes from this source is worked on by ``plan``."""
        self._inlet.plan = plan

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``. Raises nothing but its own cancellation."""
        failures = 0
        while not stop.is_set():
            began = time.monotonic()
            try:
                await self._run_once(stop)
            except Exception as error:  # noqa: BLE001 - whatever a source ends with, the others and the intake go on
                failures = 1 if time.monotonic() - began >= STEADY_S else failures + 1
                await self._rest(error, backoff_s(failures, RESTART_MIN_S, RESTART_MAX_S), stop)
        self.state = "stopped"
        self._up.set(0)

    def status(self) -> dict[str, Any]:
        """State, reason and the source's own facts."""
        facts = dict(self._source.status()) if self._source is not None else {}
        reason = self.reason or self._inlet.pushback or facts.pop("reason", "")
        facts.pop("reason", None)
        return {"state": self.state, "reason": reason, "restarts": self.restarts, **facts}

    async def _run_once(self, stop: asyncio.Event) -> None:
        self._source = source = self._make()
        self.state, self.reason = "running", ""
        self._up.set(1)
        run = asyncio.ensure_future(_checked(source, self._inlet, stop))
        try:
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait([run, stopped], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not run.done():
                await self._see_out(run)
            await run
        except BaseException:
            run.cancel()
            raise

    async def _see_out(self, run: asyncio.Future[None]) -> None:
        """The stop, step by step: time to flush, then no more waiting for the journal, then cancellation."""
        self.state = "stopping"
        await asyncio.wait([run], timeout=FLUSH_S)
        if not run.done():
            self._give_up.set()
            await asyncio.wait([run], timeout=_CANCEL_S)
        if not run.done():
            log.error("source did not end in time", source=self.name, seconds=FLUSH_S + _CANCEL_S)
            run.cancel()
            await asyncio.wait([run], timeout=_CANCEL_S)
            raise TimeoutError(f"it did not end within {FLUSH_S + _CANCEL_S:.0f} s of the stop")

    async def _rest(self, error: Exception, seconds: float, stop: asyncio.Event) -> None:
        self.state, self.reason = "failed", str(error) or type(error).__name__
        self.restarts += 1
        _RESTARTS.labels(self.name).inc()
        self._up.set(0)
        if isinstance(error, TallystickError | OSError):
            log.error("source failed", source=self.name, error=self.reason, again_in_s=round(seconds, 1))
        else:
            log.error("source failed", source=self.name, again_in_s=round(seconds, 1), exc_info=error)
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return


async def _checked(source: Source, intake: Intake, stop: asyncio.Event) -> None:
    """A run that returns while nothing stopped it has failed too."""
    await source.run(intake, stop)
    if not stop.is_set():
        raise RuntimeError("the source ended by itself")
