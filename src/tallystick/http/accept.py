"""One listening socket for several processes: whoever has the fewest connections takes the next.

All workers inherit the same socket, bound once, so a port that is taken is refused as ever, and a connection that nobody took yet is
nobody's: when a worker dies, the others take it. (With SO_REUSEPORT each would have a queue of its own, lost with it, and the kernel
would spread eight senders by hash, five to three or worse more often than not.) When a connection comes, all are woken; one that has more than another
looks again a little later, and takes it if it is still there. So few connections are spread evenly, and one that is busy or gone costs the others `WAIT_S`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from tallystick.holdings import SharedHoldings
from tallystick.telemetry import log

WAIT_S: Final = 0.005
_WAITS_MAX: Final = 4
_PAUSE_S: Final = 0.5
_BACKLOG: Final = 2_048


class SharedListener:
    """Takes connections from ``listener`` and makes a protocol for each. Looks like a server of asyncio to uvicorn.

    ``counts``: where every process counts its connections, as `http.protocol.Connections` does; process 0 takes none.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        counts: SharedHoldings,
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._tls = tls
        self._counts = counts
        self._waits = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        self._loop.add_reader(listener, self._look)

    def close(self) -> None:
        """Take no more. Closing twice does nothing."""
        if self._listener.fileno() < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        """Until no handshake is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _look(self) -> None:
        """A connection waits, or did: take it, or leave it to another for a moment."""
        if self._waits < _WAITS_MAX and self._counts.own_load > min(self._counts.loads()[1:]):
            self._waits += 1
            self._again_in(WAIT_S)
            return
        self._waits = 0
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # No descriptor or no memory now: the connection stays in the queue, and those that are open go on.
            log.error("connection_not_taken", error=str(error))
            self._again_in(_PAUSE_S)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._open(connection))
        self._tasks.add(task)
        self._counts.expect(len(self._tasks))
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._counts.expect(len(self._tasks))

    def _again_in(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener, self._look)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection, ssl=self._tls)
        except (OSError, TimeoutError):
            connection.close()  # it went away, or its handshake failed
