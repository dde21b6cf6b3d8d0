"""From many connections into commits: what a source received waits here, bounded in bytes, and leaves as large batches.

1. While one commit runs, what arrives waits; the next commit takes it all, up to ``batch`` bytes. No timer: a lone record is
   committed at once, a flood in few large commits.
2. Records of one sender leave in the order they came in, one commit after the other. Each sender (a client certificate, say) has
   a lane of its own; the journal puts commits that run at the same time into one write.
3. Waiting bytes are bounded over all lanes, and one address may hold as much as is left free by all (`shared_bytes`). Who has no
   room left is not read any more (`Reader.pause`), which the kernel tells the other side: back-pressure, never loss. When the
   bound itself is reached nobody is read. So the bound is passed by one read at most.
4. What a commit could never store is the intake's concern; what the decoder fails on, a defect of ours, goes to the quarantine
   with the traceback in the log, and the source goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from prometheus_client import Gauge

from tallystick.errors import TallystickError
from tallystick.plugin import Decoded, Fault, Intake, Sender
from tallystick.shared_bytes import SharedBytes
from tallystick.telemetry import log

DECODE_FAILED = "decode_failed"
CHUNK_BYTES = 64 * 1024
"""What one read brings at most."""
_WAITING = Gauge(
    "tallystick_source_waiting_bytes",
    "Bytes that a source has received and not yet made durable.",
    ["source"],
    multiprocess_mode="livesum",
)


class Reader(Protocol):
    """Somebody who reads from the network and can be told to wait. ``holder``: whose share of the waiting bytes it takes."""

    holder: str

    def pause(self) -> None:
        """Read nothing until `resume`."""

    def resume(self) -> None: ...


@dataclass(slots=True)
class Piece:
    """Some records of one connection, in order. ``size``: bytes they hold; ``done`` is called when all of them are durable.

    ``origin`` is the source's own note for its decoder.
    """

    records: list[bytes]
    size: int
    holder: str = ""
    peer: str = ""
    origin: Any = None
    done: Callable[[], None] | None = None


RECORD_COST = 128
"""What a record holds besides its bytes, about; so that many small ones are not taken for little."""
_RECORDS_MAX = 4_096


def pieces_of(records: list[bytes], holder: str, peer: str, origin: Any = None) -> Iterator[Piece]:
    """Pieces of a moderate number of records each: many tiny ones in one read are still worked on in small steps."""
    for start in range(0, len(records), _RECORDS_MAX):
        part = records[start : start + _RECORDS_MAX] if len(records) > _RECORDS_MAX else records
        yield Piece(part, sum(map(len, part)) + RECORD_COST * len(part), holder, peer, origin)


Commit = Callable[[list[Piece], int, Sender | None], Awaitable[Any]]
"""Makes pieces durable: ``(pieces, their bytes, sender)``."""


@dataclass(slots=True)
class _Lane:
    """What waits for one sender, and who sees to it."""

    sender: Sender | None
    pieces: deque[Piece] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class Feed:
    """All that one source holds between its connections and the journal. ``bytes_max`` waiting, ``batch`` in one commit."""

    def __init__(self, name: str, intake: Intake, commit: Commit, bytes_max: int, batch: int) -> None:
        self._name = name
        self._intake = intake
        self._commit = commit
        self._batch = batch
        self._shared = SharedBytes(bytes_max)
        self._lanes: dict[Sender | None, _Lane] = {}
        self._readers: set[Reader] = set()
        self._paused: dict[Reader, None] = {}  # in the order in which they were told to wait
        self._failure: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting = _WAITING.labels(name)

    @property
    def waiting_bytes(self) -> int:
        """Received and not yet durable."""
        return self._shared.total

    @property
    def paused(self) -> int:
        """How many readers wait."""
        return len(self._paused)

    def is_paused(self, reader: Reader) -> bool:
        """True while ``reader`` is told to wait."""
        return reader in self._paused

    def join(self, reader: Reader) -> None:
        """From now on ``reader`` is told when to wait."""
        self._readers.add(reader)
        if self._is_full:
            self._pause(reader)

    def leave(self, reader: Reader) -> None:
        """The reader is gone; what it brought stays."""
        self._readers.discard(reader)
        self._paused.pop(reader, None)

    def add(self, piece: Piece, sender: Sender | None = None, reader: Reader | None = None) -> None:
        """Take what ``reader`` brought, and tell it to wait when that was the last it may hold."""
        self._shared.take(piece.holder, piece.size)
        lane = self._lanes.get(sender)
        if lane is None:
            lane = self._lanes[sender] = _Lane(sender)
        lane.pieces.append(piece)
        if lane.task is None:
            lane.task = asyncio.get_running_loop().create_task(self._drain(lane))
        if self._is_full:
            for other in self._readers:
                self._pause(other)
        elif reader is not None and not self._shared.has_room(reader.holder, CHUNK_BYTES):
            self._pause(reader)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``. Raises what a commit ended with."""
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait([stopped, self._failure], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if self._failure.done():
            self._failure.result()

    async def flush(self) -> None:
        """Until all that waits is durable. Raises what a commit ended with."""
        while tasks := [lane.task for lane in self._lanes.values() if lane.task is not None]:
            await asyncio.wait(tasks)
        if self._failure.done():
            self._failure.result()

    async def close(self) -> None:
        """End what still runs; what is not durable by now is not acknowledged."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._waiting.set(0)
        if not self._failure.done():
            self._failure.cancel()
        elif not self._failure.cancelled():
            self._failure.exception()

    @property
    def _is_full(self) -> bool:
        return self._shared.total >= self._shared.bytes_max

    def _pause(self, reader: Reader) -> None:
        if reader not in self._paused:
            self._paused[reader] = None
            reader.pause()

    async def _drain(self, lane: _Lane) -> None:
        """Commit what waits for one sender, batch by batch, until nothing does."""
        try:
            while lane.pieces:
                pieces, size = self._take(lane)
                try:
                    await self._commit_or_keep(pieces, size, lane.sender)
                finally:
                    self._give_back(pieces)
                for piece in pieces:
                    if piece.done is not None:
                        piece.done()
        except Exception as error:  # noqa: BLE001 - it is raised by `run` or `flush`
            if not self._failure.done():
                self._failure.set_exception(error)
        finally:
            lane.task = None
            if self._lanes.get(lane.sender) is lane:
                del self._lanes[lane.sender]

    def _take(self, lane: _Lane) -> tuple[list[Piece], int]:
        pieces, size = [lane.pieces.popleft()], 0
        size = pieces[0].size
        while lane.pieces and size + lane.pieces[0].size <= self._batch:
            piece = lane.pieces.popleft()
            pieces.append(piece)
            size += piece.size
        return pieces, size

    async def _commit_or_keep(self, pieces: list[Piece], size: int, sender: Sender | None) -> None:
        try:
            await self._commit(pieces, size, sender)
        except TallystickError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the records are kept
            log.exception("records could not be decoded; they go to the quarantine", source=self._name)
            message = "these records could not be decoded; the server's log says why"
            records = [record for piece in pieces for record in piece.records]
            faults = [Fault(line, DECODE_FAILED, message, record) for line, record in enumerate(records, 1)]
            await self._intake.commit_decoded(lambda: Decoded(faults=faults), size, sender, pieces[0].peer)

    def _give_back(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self._shared.give(piece.holder, piece.size)
        self._waiting.set(self._shared.total)
        # Room is promised to no more readers than it is there for, as long as a later commit will make more of it.
        free = self._shared.bytes_max - self._shared.total
        for reader in list(self._paused):
            if free < CHUNK_BYTES and self._shared.total:
                break
            if self._shared.has_room(reader.holder, CHUNK_BYTES):
                del self._paused[reader]
                free -= CHUNK_BYTES
                reader.resume()
