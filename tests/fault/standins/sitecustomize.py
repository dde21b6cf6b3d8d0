"""Deliberately broken stand-ins for Tallystick: each breaks one promise in the way that a careless program would.

Python imports this file at the start of every process whose PYTHONPATH names this directory; ``TALLYSTICK_STANDIN`` says
what is to be broken. Every fault suite runs once against the stand-in that it was written to catch, and must go red.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

_EARLY_S = 1.0


def lying_sync() -> None:
    """Syncs return at once and do nothing."""
    os.fdatasync = os.fsync = lambda fd: None  # type: ignore[assignment]


def deaf_to_errors() -> None:
    """Errors of writes and syncs are taken for success."""
    real_sync, real_write = os.fdatasync, os.pwrite

    def fdatasync(fd: int) -> None:
        with contextlib.suppress(OSError):
            real_sync(fd)

    def pwrite(fd: int, data: Any, offset: int) -> int:
        try:
            return real_write(fd, data, offset)
        except OSError:
            return len(data)

    os.fdatasync, os.pwrite = fdatasync, pwrite  # type: ignore[assignment]


def early_answer() -> None:
    """Requests are answered first and handed to the journal a second later."""
    from tallystick.journal.writer import Journal

    real = Journal.append

    async def append(self: Any, request: Any) -> Any:
        async def later() -> None:
            await asyncio.sleep(_EARLY_S)
            await real(self, request)

        task = asyncio.get_running_loop().create_task(later())
        self.__dict__.setdefault("tasks", set()).add(task)
        return _made_up(request)

    Journal.append = append  # type: ignore[method-assign]


def yes_to_all() -> None:
    """What the journal refuses is answered as if it had been stored."""
    from tallystick.errors import PushbackError
    from tallystick.journal.writer import Journal

    real = Journal.append

    async def append(self: Any, request: Any) -> Any:
        try:
            return await real(self, request)
        except PushbackError:
            return _made_up(request)

    Journal.append = append  # type: ignore[method-assign]


def no_lock() -> None:
    """Locks are never refused."""
    fcntl.flock = lambda fd, operation: None  # type: ignore[assignment]


def skip_to_end() -> None:
    """A follower whose cursor is damaged goes on at the journal's end, and a lost delivery state begins there too."""
    from tallystick.journal.cursor import Cursor, Position
    from tallystick.journal.mark import MarkReader

    real = Cursor.load

    def load(self: Any) -> Any:
        found = real(self)
        mark = MarkReader(self._state.path.parent.parent / "journal").read()
        if found is None and mark is not None:
            return Position(mark.segment, mark.offset, mark.seq + 1)
        return found

    Cursor.load = load  # type: ignore[method-assign]


def wall_clock() -> None:
    """Time-outs and intervals are measured with the wall clock."""
    real = threading.Event.wait
    time.monotonic = time.time  # type: ignore[assignment]

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout is None:
            return real(self)
        deadline = time.time() + timeout
        while not real(self, 0.005) and time.time() < deadline:
            pass
        return self.is_set()

    threading.Event.wait = wait  # type: ignore[method-assign]


def unreadable_is_lost() -> None:
    """A range of the journal that cannot be read is passed over at once."""
    real = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        try:
            return real(fd, size, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return bytes(size)

    os.pread = pread  # type: ignore[assignment]


def _made_up(request: Any) -> Any:
    from tallystick.journal.entries import Committed, TenantCommitted

    tenants = []
    for batch in request.batches:
        lines = batch.lines() if callable(batch.lines) else batch.lines  # a worker's batch opens them
        hashes = [sha256(b"\0" + line).digest() for line in lines]
        tenants.append(TenantCommitted(batch.handle, [[0, len(hashes)]], len(hashes), 0, hashes))
    return Committed(tenants, [], 0)


_STANDINS: dict[str, Callable[[], None]] = {
    made.__name__: made
    for made in (
        lying_sync, deaf_to_errors, early_answer, yes_to_all, no_lock, skip_to_end, wall_clock, unreadable_is_lost,
    )
}  # fmt: skip

if "TALLYSTICK_STANDIN" in os.environ:
    _STANDINS[os.environ["TALLYSTICK_STANDIN"]]()
