"""One listening socket for several processes: connections go to who has the fewest, and never wait for one that is gone."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tallystick.holdings import SharedHoldings
from tallystick.http import accept
from tallystick.http.accept import SharedListener


class Counted(asyncio.Protocol):
    """A connection that is counted while it lasts, as the real ones are."""

    def __init__(self, counts: SharedHoldings) -> None:
        self.counts = counts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.counts.add("", 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self.counts.add("", -1)


class Failing(socket.socket):
    """A listening socket whose accept fails ``failures`` times."""

    failures = 0

    def accept(self) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "no descriptors")
        return super().accept()


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[tuple[int, list[SharedHoldings], list[SharedListener], list[Failing]]]:
    """A port, and two workers behind it: their counts, their listeners and their sockets."""
    bound = socket.create_server(("127.0.0.1", 0))
    counts = [SharedHoldings(tmp_path / "held", number, 3, b"k") for number in (1, 2)]
    sockets = [Failing(fileno=bound.dup().detach()) for _ in counts]
    listeners = [
        SharedListener(sock, lambda held=held: Counted(held), None, held) for sock, held in zip(sockets, counts, strict=True)
    ]
    yield bound.getsockname()[1], counts, listeners, sockets
    for listener in listeners:
        listener.close()
        await listener.wait_closed()
    bound.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_connections_are_spread_evenly(workers: Any) -> None:
    """Eight senders at once are four and four; when two of one worker's go, the next two are its."""
    port, counts, _, _ = workers
    made = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    await until(lambda: counts[0].total == 8)
    assert counts[0].loads() == [0, 4, 4]
    for each in made:
        each.close()
    await until(lambda: counts[0].total == 0)
    counts[1].add("", 2)
    made = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
    await until(lambda: counts[0].total == 4)
    assert counts[0].loads() == [0, 2, 2]
    for each in made:
        each.close()


async def test_who_has_more_takes_it_when_nobody_else_does(workers: Any) -> None:
    """A worker that is stopped has the fewest and takes none: the other waits a moment, and serves."""
    port, counts, listeners, _ = workers
    listeners[1].close()
    counts[0].add("", 5)
    with socket.create_connection(("127.0.0.1", port)):
        await until(lambda: counts[0].total == 6)
    assert counts[0].loads() == [0, 6, 0]


async def test_without_descriptors_it_goes_on_when_there_are_some(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stays in the queue; no busy loop, and nothing ends."""
    port, counts, listeners, sockets = workers
    monkeypatch.setattr(accept, "_PAUSE_S", 0.05)
    listeners[1].close()
    sockets[0].failures = 2
    with socket.create_connection(("127.0.0.1", port)):
        await until(lambda: counts[0].total == 1)
    assert sockets[0].failures == 0


async def test_a_closed_listener_takes_none(workers: Any) -> None:
    """What is in the queue then is the others'."""
    port, counts, listeners, _ = workers
    listeners[0].close()
    made = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    await until(lambda: counts[0].total == 3)
    assert counts[0].loads() == [0, 0, 3]
    for each in made:
        each.close()
