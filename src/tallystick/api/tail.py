"""Live tail: one thread follows the journal, any number of listeners are fed from it.

The thread runs only while someone listens and starts at the durable mark. Each listener has a bounded queue; one that reads
too slowly loses events from its *view* and is told how many (``missed``): the log itself is never affected.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from tallystick.telemetry import log

Matcher = Callable[[dict[str, Any]], bool]
_QUEUE_MAX = 1_000
_WAIT_S = 0.5
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Tailed:
    """One event as the journal gave it out."""

    tenant: str
    index: int
    line: bytes


class TailSource(Protocol):
    """What the hub needs of the journal: a start, and batches after it. Blocking."""

    def end(self) -> Any:
        """The position after the last durable event."""

    def read(self, position: Any, timeout_s: float) -> tuple[list[Tailed], Any]:
        """Events after ``position``, or none after ``timeout_s``."""


@dataclass(slots=True, eq=False)
class Listener:
    """One open tail. ``missed`` counts events that did not fit since the last report."""

    tenants: frozenset[str] | None
    matches: Matcher
    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[Tailed] = field(default_factory=lambda: asyncio.Queue(_QUEUE_MAX))
    missed: int = 0

    def offer(self, events: list[Tailed]) -> None:
        """Runs in the event loop."""
        for event in events:
            try:
                self.queue.put_nowait(event)
            except asyncio.QueueFull:
                self.missed += 1

    async def events(self, idle_s: float) -> AsyncIterator[Tailed | None]:
        """Events as they come; None after ``idle_s`` of silence, so that the caller can send a sign of life."""
        while True:
            try:
                async with asyncio.timeout(idle_s):
                    event = await self.queue.get()
            except TimeoutError:
                yield None
            else:
                yield event


class TailHub:
    """Shares one reader of the journal among all listeners."""

    def __init__(self, source: TailSource, *, listeners_max: int = 64) -> None:
        self._source = source
        self._listeners: set[Listener] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.listeners_max = listeners_max

    @property
    def is_full(self) -> bool:
        return len(self._listeners) >= self.listeners_max

    @contextmanager
    def listen(self, tenants: frozenset[str] | None, matches: Matcher) -> Iterator[Listener]:
        """Feed a new listener until the block ends. ``tenants`` None means all."""
        listener = Listener(tenants, matches, asyncio.get_running_loop())
        with self._lock:
            self._listeners.add(listener)
            if self._thread is None:
                start = self._source.end()
                self._thread = threading.Thread(target=self._follow, args=(start,), name="tail", daemon=True)
                self._thread.start()
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def _follow(self, position: Any) -> None:
        while True:
            with self._lock:
                listeners = list(self._listeners)
                if not listeners:
                    self._thread = None
                    return
            try:
                events, position = self._source.read(position, _WAIT_S)
            except Exception as error:  # noqa: BLE001  (the thread must end cleanly so that the next listener starts another)
                log.error("live tail stopped", error=repr(error), exc_info=True)
                with self._lock:
                    self._thread = None
                return
            for listener in listeners:
                _feed(listener, events)


def _feed(listener: Listener, events: list[Tailed]) -> None:
    wanted = [event for event in events if _is_wanted(listener, event)]
    if not wanted:
        return
    try:
        listener.loop.call_soon_threadsafe(listener.offer, wanted)
    except RuntimeError:
        return  # the listener's loop has closed: it is being removed


def _is_wanted(listener: Listener, event: Tailed) -> bool:
    if listener.tenants is not None and event.tenant not in listener.tenants:
        return False
    return listener.matches(msgspec.json.decode(event.line))
