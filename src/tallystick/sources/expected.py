"""The register of expected sources: which of them have been silent for longer than `expect_every` allows, and since when.

Silence is time in which the server ran and nothing of the source became durable: no event, no repeat, no filtered event, no record
for the quarantine. Time in which the server was off does not count, so a restart neither raises an alarm nor forgets one.

The register is saved every `SAVE_S` and at the stop. What a crash means: the time since the last save is forgotten, so a silence
counts that much too little, or the last sign of life before the crash is not known; the next one puts it right.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import Gauge

from tallystick import durable
from tallystick.durable import StateFile
from tallystick.event.times import format_utc
from tallystick.sources.plan import SourcePlan
from tallystick.sources.tally import SourceTallies
from tallystick.telemetry import log

TICK_S = 1.0
SAVE_S = 60.0
_SILENT = Gauge(
    "tallystick_source_silent_seconds",
    "How long a source with `expect_every` has been silent, once that is longer than it may be; 0 before.",
    ["source"],
    multiprocess_mode="livemax",
)


class Entry(msgspec.Struct):
    """One expected source. ``last_at`` is the time of its last sign of life, or that from which on it is expected."""

    last_at: str
    silence_s: float = 0.0


class ExpectedSources:
    """``directory`` is that of all sources' states. Used on the intake's event loop."""

    def __init__(self, directory: Path, tallies: SourceTallies) -> None:
        self._directory = directory
        self._file = StateFile(directory / "expected")  # no source's own directory: names of sources have no dots, its slots do
        payload = self._file.load()
        if payload is None and self._file.is_damaged():
            log.error("the register of expected sources is damaged; their silence is counted anew")
        self._entries = msgspec.json.decode(payload, type=dict[str, Entry]) if payload is not None else {}
        self._tallies = tallies
        self._allowed_s: dict[str, float] = {}

    def meet(self, plans: Iterable[SourcePlan]) -> None:
        """From now on these are the sources; those that were expected before go on where they were."""
        before = self._allowed_s
        self._allowed_s = {
            plan.name: plan.settings.expect_every.seconds
            for plan in plans
            if plan.settings is not None and plan.settings.expect_every is not None
        }
        for name in before.keys() - self._allowed_s.keys():
            _SILENT.labels(name).set(0)
        now = format_utc(datetime.now(UTC))
        self._entries = {name: self._entries.get(name) or Entry(now) for name in self._allowed_s}

    async def run(self, stop: asyncio.Event) -> None:
        """Count until ``stop``."""
        before = saved = time.monotonic()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await stop.wait()
            now = time.monotonic()
            self.count(now - before)
            before = now
            if now - saved >= SAVE_S:
                saved = now
                await self._save()
        await self._save()

    def count(self, seconds: float) -> None:
        """That much time has passed."""
        for name, allowed_s in self._allowed_s.items():
            entry = self._entries[name]
            last_at = self._tallies.last_at(name)
            was_silent = entry.silence_s > allowed_s
            if last_at and last_at != entry.last_at:
                if was_silent:
                    log.info("a silent source is heard again", source=name, silent_s=round(entry.silence_s))
                entry.last_at, entry.silence_s = last_at, 0.0
            else:
                entry.silence_s += seconds
                if entry.silence_s > allowed_s and not was_silent:
                    log.warning("a source is silent", source=name, since=entry.last_at, expected_every_s=allowed_s)
            _SILENT.labels(name).set(entry.silence_s if entry.silence_s > allowed_s else 0)

    def page(self) -> dict[str, dict[str, Any]]:
        """For status, by source: what is expected, and since when it is silent, None when it is not."""
        return {
            name: {
                "expect_every_seconds": allowed_s,
                "silent_since": self._entries[name].last_at if self._entries[name].silence_s > allowed_s else None,
            }
            for name, allowed_s in self._allowed_s.items()
        }

    async def _save(self) -> None:
        if not self._entries:
            return
        payload = msgspec.json.encode(self._entries)
        try:
            await asyncio.to_thread(self._write, payload)
        except OSError as error:
            log.warning("the register of expected sources was not saved; it is tried again", error=str(error), again_in_s=SAVE_S)

    def _write(self, payload: bytes) -> None:
        durable.make_dir(self._directory)
        self._file.save(payload)
