"""A UDP socket of a source: datagrams in, and an honest count of those that the kernel had to throw away.

Nobody can push back on UDP. While the feed is full the socket is not read; the kernel keeps what fits into its receive buffer and
counts the rest. That count (SO_RXQ_OVFL) comes with every datagram behind a loss; SO_MEMINFO gives it without one, so that a loss
at the end of a burst is known too. Both count from the socket's making, modulo 2^32.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys

from prometheus_client import Counter

from tallystick.sources.feed import CHUNK_BYTES, RECORD_COST, Feed, Piece
from tallystick.sources.listener import bind
from tallystick.telemetry import log

DATAGRAM_MAX = 65_535
_SO_RXQ_OVFL = 40
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")  # the ninth is the drops
_BURST = 512
_DRAIN_BURSTS = 64
_DROPPED = Counter(
    "tallystick_source_datagrams_dropped", "Datagrams that the kernel threw away because they were not read in time.", ["source"]
)


class Datagrams:
    """One socket. What one look at it brings goes to the feed as one piece, with the list of addresses as its origin."""

    holder = "udp"

    def __init__(self, name: str, listen: str, feed: Feed, receive_buffer: int) -> None:
        self.dropped = 0
        self._feed = feed
        self._kernel_count = 0
        self._metric = _DROPPED.labels(name)
        self._loop = asyncio.get_running_loop()
        self._sock = bind(listen, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        given = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # the kernel counts its own overhead too
        if given < receive_buffer:
            log.warning(
                "the kernel gives a smaller receive buffer; raise net.core.rmem_max",
                source=name,
                wanted=receive_buffer,
                given=given,
            )
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        self._loop.add_reader(self._sock.fileno(), self._read)
        feed.join(self)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._sock.getsockname()[:2]
        return host, port

    def look(self) -> None:
        """Bring ``dropped`` up to date."""
        with contextlib.suppress(OSError):  # a kernel without SO_MEMINFO: the next datagram brings the count
            self._count(_MEMINFO.unpack(self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[8])

    def pause(self) -> None:
        """See `feed.Reader`."""
        self._loop.remove_reader(self._sock.fileno())

    def resume(self) -> None:
        """See `feed.Reader`."""
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock.fileno(), self._read)

    def close(self) -> None:
        """Take what the kernel still holds, and let the socket go."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._feed.leave(self)
        for _ in range(_DRAIN_BURSTS):
            if not self._read():
                break
        self.look()
        self._sock.close()

    def _read(self) -> bool:
        """One burst; False when there was nothing."""
        datagrams, addresses, size = [], [], 0
        receive, space = self._sock.recvmsg, socket.CMSG_SPACE(4)
        try:
            for _ in range(_BURST):
                data, notes, _, address = receive(DATAGRAM_MAX, space)
                datagrams.append(data)
                addresses.append(address[0])
                if notes:
                    self._count(int.from_bytes(notes[0][2][:4], sys.byteorder))
                size += len(data)
                if size >= CHUNK_BYTES:
                    break
        except BlockingIOError:
            pass
        if datagrams:
            cost = size + RECORD_COST * len(datagrams)
            self._feed.add(Piece(datagrams, cost, self.holder, addresses[0], addresses), reader=self)
        return bool(datagrams)

    def _count(self, kernel_count: int) -> None:
        """The kernel's count, which may be older than the last one that was seen."""
        more = (kernel_count - self._kernel_count) % 2**32
        if 0 < more < 2**31:
            self._kernel_count = kernel_count
            self.dropped += more
            self._metric.inc(more)
