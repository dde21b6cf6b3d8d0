"""Blocking work in threads, with a bound on how much runs and how much waits.

A search may take seconds of CPU. Two run at a time, a few wait, and the next one is told to come back: the api process
stays small and answers liveness, status and management at once whatever the searches do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tallystick.errors import OverloadedError

T = TypeVar("T")


class BoundedPool:
    """``threads`` calls at a time, ``queue`` more may wait; past that OverloadedError (503 with Retry-After at the edge)."""

    def __init__(self, name: str, *, threads: int, queue: int, retry_after_s: float = 2.0) -> None:
        self._name = name
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threads + queue
        self._taken = 0
        self._retry_after_s = retry_after_s

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` in a thread. A cancelled caller frees its place only when the call has really ended."""
        if self._taken >= self._places:
            raise OverloadedError(f"too many requests of this kind ({self._name}) at once", retry_after_s=self._retry_after_s)
        self._taken += 1
        loop = asyncio.get_running_loop()
        future = self._executor.submit(call)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        return await asyncio.wrap_future(future)

    def _release(self) -> None:
        self._taken -= 1

    def close(self) -> None:
        """Let running calls end, start no other."""
        self._executor.shutdown(wait=False, cancel_futures=True)
