"""Turns: large requests are worked on one at a time, and their senders take turns.

The event loop serves in the order in which bytes arrive, so whoever sends most would be served most. Small requests go past
here; a large one waits for a turn before each stretch of work (reading, encoding, answering), and the next turn goes to the
next *lane* (a tenant, or a key) that waits, however many requests another lane has waiting.

While one lane sends alone, its requests of ordinary size are worked on at once: a thread beside the loop costs a fifth of the
rate (measured: 100,000 events/s against 125,000 with batches of 540 kB), and there is nobody to give way to (`Turns.is_shared`).

Otherwise the work is done in a thread, which lets the loop have the interpreter lock soon when it asks: small requests go on
beside it. One thread is as fast as many under one lock, and is the only one that the loop has to ask.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")
_GIVE_WAY_S = 0.0005
_SHARED_S = 2.0


class Turns:
    """One turn at a time, given to waiting lanes in rotation. Used from one event loop."""

    def __init__(self) -> None:
        self._is_taken = False
        self._lanes: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._last_lane = ""
        self._shared_until = 0.0

    def note(self, lane: str) -> None:
        """A request of this lane goes by. While only one lane sends, there is nobody to give way to."""
        if lane != self._last_lane:
            if self._last_lane:
                self._shared_until = time.monotonic() + _SHARED_S
            self._last_lane = lane

    @property
    def is_shared(self) -> bool:
        """Whether more than one lane sent in the last while."""
        return time.monotonic() < self._shared_until

    @asynccontextmanager
    async def of(self, lane: str) -> AsyncIterator[None]:
        """Inside, it is this lane's turn."""
        if self._is_taken:
            await self._wait(lane)
        self._is_taken = True
        try:
            yield
        finally:
            self._pass_on()

    async def work(self, lane: str, work: Callable[..., T], *arguments: Any) -> T:
        """Call ``work`` in a thread when it is this lane's turn."""
        async with self.of(lane):
            return await asyncio.get_running_loop().run_in_executor(None, _give_way, work, *arguments)

    async def _wait(self, lane: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._lanes.setdefault(lane, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # it came in the moment of the end
            raise

    def _pass_on(self) -> None:
        """Give the turn to the next one; it stays taken while anybody waits."""
        while self._lanes:
            lane, waiting = self._lanes.popitem(last=False)
            turn = waiting.popleft()
            if waiting:
                self._lanes[lane] = waiting  # at the end: the others come first
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False


def _give_way(work: Callable[..., T], *arguments: Any) -> T:
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(_GIVE_WAY_S)
    try:
        return work(*arguments)
    finally:
        sys.setswitchinterval(usual_s)
