"""Sends one destination's open cuts: when an attempt may start, and what its answer means.

    running ──RETRY──► retrying     each cut waits by its own failures; after several in a row the breaker lets one attempt probe
            ──THROTTLE──► throttled as long as Retry-After says
            ──PARK──► parked        nothing is sent; `Destination.probe` is asked at intervals, or by the operator
            ──pause──► paused       by the operator; survives restarts

Nothing here is durable: the cuts are stored before they come here (`lane`), and outcomes are stored after.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from tallystick.config import DeliverySettings
from tallystick.delivery.builder import Planned
from tallystick.delivery.metrics import ATTEMPT_SECONDS, ATTEMPTS
from tallystick.delivery.retry import Breaker, backoff_s
from tallystick.errors import TransientError
from tallystick.plugin import Answer, AnswerKind, Cut, Destination
from tallystick.telemetry import log

_KEEP_BYTES_S = 5.0
_PROBE_INTERVAL_MAX = 16


Rebuild = Callable[[Planned], Awaitable[Cut | None]]


class Sender:
    """One destination's gate and its attempts."""

    def __init__(self, name: str, destination: Destination, settings: DeliverySettings) -> None:
        self.name = name
        self.reason = ""
        self.last_success: float | None = None  # Unix seconds
        self.last_error: tuple[float, str] | None = None  # Unix seconds, why; stays when it is over
        self._destination = destination
        self._settings = settings
        self._breaker = Breaker(settings.breaker_failures, settings.retry_min.seconds, settings.retry_max.seconds)
        self._window = asyncio.Semaphore(destination.window)
        self._tenants: dict[str, asyncio.Lock] = {}
        self._open = asyncio.Event()
        self._open.set()
        self._is_paused = False
        self._is_throttled = False
        self._parked = asyncio.Event()
        self._nudge = asyncio.Event()
        self._probes = 0

    @property
    def state(self) -> str:
        """running, retrying, throttled, parked or paused."""
        if self._is_paused:
            return "paused"
        if self._parked.is_set():
            return "parked"
        if self._is_throttled:
            return "throttled"
        return "retrying" if self.reason else "running"

    def pause(self) -> None:
        self._is_paused = True
        self._open.clear()

    def resume(self) -> None:
        """Go on after a pause, and end a park at once."""
        self._is_paused = False
        self.unpark()

    def unpark(self) -> None:
        """The operator or a probe says that the destination accepts again."""
        self._parked.clear()
        self._breaker.succeed()
        self._nudge.set()
        self._nudge.clear()
        if not self._is_paused:
            self._open.set()

    async def deliver(self, planned: Planned, rebuild: Rebuild, after: Callable[[], str]) -> Answer | None:
        """Attempt until there is an outcome: DELIVERED, REFUSED or SPLIT. None: the bytes cannot be rebuilt any more.

        Cuts of one tenant go one after the other where the destination is ordered; at most ``window`` are under way.
        """
        if not self._destination.is_ordered:
            async with self._window:
                return await self._deliver(planned, rebuild, after)
        async with self._tenants.setdefault(planned.record.handle, asyncio.Lock()), self._window:
            return await self._deliver(planned, rebuild, after)

    async def watch_park(self) -> None:
        """While parked, probe at growing intervals. Runs for ever."""
        while True:
            await self._parked.wait()
            await asyncio.sleep(self._settings.probe_interval.seconds * min(2**self._probes, _PROBE_INTERVAL_MAX))
            if self._parked.is_set():
                await self.probe()

    async def probe(self) -> Answer:
        """Ask the destination whether it would accept; unparks it when it says so."""
        try:
            answer = await self._destination.probe()
        except Exception as error:  # noqa: BLE001 - a plug-in's error is an answer: retry
            answer = Answer(AnswerKind.RETRY, reason=_describe(error))
        self._probes += 1
        if answer.kind is AnswerKind.DELIVERED and self._parked.is_set():
            log.info("destination accepts again", destination=self.name)
            self.unpark()
        return answer

    async def is_there(self, place: str, sha256: str) -> bool:
        """Whether the destination says that it has these bytes under that name. Raises TransientError when it cannot be asked."""
        try:
            return bool(await self._destination.find(place, sha256))
        except Exception as error:
            raise TransientError(f"a cut cannot be looked up: {_describe(error)}") from error

    async def _deliver(self, planned: Planned, rebuild: Rebuild, after: Callable[[], str]) -> Answer | None:
        while True:
            await self._wait_for_turn()
            cut = planned.cut or await rebuild(planned)
            if cut is None:
                return None
            planned.cut = cut
            self._breaker.begin()
            answer = await self._attempt(cut, planned, after())
            if await self._is_outcome(answer, planned):
                return answer

    async def _wait_for_turn(self) -> None:
        while True:
            await self._open.wait()
            wait = self._breaker.wait_s(time.monotonic())
            if wait <= 0.0:
                return
            await self._sleep(min(wait, 1.0))

    async def _attempt(self, cut: Cut, planned: Planned, after: str) -> Answer:
        planned.attempts += 1
        started = time.monotonic()
        try:
            answer = await self._destination.send(replace(cut, after=after))
        except Exception as error:  # noqa: BLE001 - the contract: an error of a plug-in is a retry with its text
            answer = Answer(AnswerKind.RETRY, reason=_describe(error))
        except BaseException:
            self._breaker.is_probing = False
            raise
        ATTEMPT_SECONDS.labels(self.name).observe(time.monotonic() - started)
        ATTEMPTS.labels(self.name, answer.kind.value).inc()
        planned.last_reply = answer.reply
        return answer

    async def _is_outcome(self, answer: Answer, planned: Planned) -> bool:
        """True when the cut is decided; else waits as long as the answer asks for."""
        now = time.monotonic()
        if answer.kind in (AnswerKind.DELIVERED, AnswerKind.REFUSED, AnswerKind.SPLIT):
            if self.reason:
                log.info("destination answers again", destination=self.name)
            self._breaker.succeed()
            self.reason, self._is_throttled, self._probes = "", False, 0
            if answer.kind is AnswerKind.DELIVERED:
                self.last_success = time.time()
            return True
        planned.failures += 1
        if answer.reason != self.reason:
            log.warning(
                "delivery attempt failed",
                destination=self.name,
                answer=answer.kind.value,
                reason=answer.reason,
                cut=planned.record.name,
            )
        self.reason = answer.reason or answer.kind.value
        self.last_error = time.time(), self.reason
        if answer.kind is AnswerKind.PARK:
            self._breaker.is_probing = False
            self._parked.set()
            self._open.clear()
            planned.cut = None
            return False
        self._is_throttled = answer.kind is AnswerKind.THROTTLE
        pushback = answer.retry_after_s if answer.retry_after_s is not None or not self._is_throttled else 0.0
        self._breaker.fail(now, pushback if self._is_throttled else None)
        wait = backoff_s(planned.failures, self._settings.retry_min.seconds, self._settings.retry_max.seconds, answer.retry_after_s)
        if wait > _KEEP_BYTES_S:
            planned.cut = None  # built again: a dead destination holds no memory
        await self._sleep(wait)
        return False

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not past the moment at which the operator or a probe says that it is worth trying."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._nudge.wait()


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:1000]
