"""The writer's door for intake workers: `run/journal.sock`, in the process that holds the journal (`journal.wire`).

Each call becomes an ordinary `Journal.append`, so all that holds there holds for workers: the bound and the shares of the queue, turns
between tenants, waiting for ids in flight, refusals that leave nothing behind. A worker that dies takes nothing with it: what it
handed over is committed, and its answers go nowhere. What is read and waits here belongs to requests that wait in the worker, whose bodies
in flight are bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from socket import socket

from tallystick.errors import DiskFullError, IntegrityError, NotAcceptingError
from tallystick.journal.entries import Append, Appender, Committed, QuarantinedRecord, TenantCommitted
from tallystick.journal.pieces import Pieces, joined
from tallystick.journal.space import FULL_ERRNOS
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.wire import (
    INTERNAL,
    Answer,
    AppendAnswer,
    AppendCall,
    Call,
    CommittedBatch,
    MessageSplitter,
    News,
    Refusal,
    TenantAnswer,
    TenantCall,
    decode_call,
    encode_message,
)
from tallystick.telemetry import log

_LOOK_S = 0.1
_NEWS_S = 1.0


class JournalDoor:
    """``not_ready``: why an append would be refused now; ``note``: hears of each append that is durable. Used from one event loop."""

    def __init__(
        self,
        journal: Appender,
        tenants: TenantRegistry,
        not_ready: Callable[[], list[str]],
        note: Callable[[Append, Committed], None],
    ) -> None:
        self._journal = journal
        self._tenants = tenants
        self._not_ready = not_ready
        self._note = note
        self._links: set[_WorkerLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None
        self._ticker: asyncio.Task[None] | None = None

    @property
    def connected(self) -> int:
        """How many workers are connected."""
        return len(self._links)

    async def serve(self, listener: socket, stop: asyncio.Event) -> None:
        """Serve workers until ``stop``; calls that came are answered first."""
        await self.open(listener)
        await stop.wait()
        await self.close()

    async def open(self, listener: socket) -> None:
        """Serve the workers that connect to ``listener``."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _WorkerLink(self), sock=listener)
        self._ticker = loop.create_task(self._spread_news())

    async def close(self) -> None:
        """Take no more calls, answer those that came, and let go."""
        if self._server is not None:
            self._server.close()
        if self._ticker is not None:
            self._ticker.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in list(self._links):
            link.close()

    def admit(self, link: _WorkerLink) -> None:
        self._links.add(link)
        link.send(News(self._not_ready()))

    def leave(self, link: _WorkerLink) -> None:
        self._links.discard(link)

    def take(self, link: _WorkerLink, call: Call) -> None:
        """Answer a call, now or later."""
        task = asyncio.get_running_loop().create_task(self._answer(link, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, link: _WorkerLink, call: Call) -> None:
        answer: Answer
        try:
            answer = self._make_tenant(call) if isinstance(call, TenantCall) else await self._append(call)
        except Exception as error:  # noqa: BLE001 - the worker waits for an answer, whatever went wrong
            answer = Refusal.of(call.number, error)
            if answer.code == INTERNAL:
                log.exception("call of a worker failed")
        link.send(answer)

    async def _append(self, call: AppendCall) -> AppendAnswer:
        append = _append_of(call)
        committed = await self._journal.append(append)
        self._note(append, committed)
        return AppendAnswer(call.number, list(map(_batch_answer, committed.tenants)), committed.conflicts, committed.seq)

    def _make_tenant(self, call: TenantCall) -> TenantAnswer:
        try:
            return TenantAnswer(call.number, self._tenants.create(call.name))
        except OSError as error:
            kind = DiskFullError if error.errno in FULL_ERRNOS else NotAcceptingError
            raise kind(f"the register of tenants cannot be written: {error.strerror}", retry_after_s=5) from error

    async def _spread_news(self) -> None:
        """Tell the workers at once what changes, and once a second that nothing does."""
        told, age_s = self._not_ready(), 0.0
        while True:
            await asyncio.sleep(_LOOK_S)
            age_s += _LOOK_S
            reasons = self._not_ready()
            if reasons != told or age_s >= _NEWS_S:
                told, age_s = reasons, 0.0
                for link in list(self._links):
                    link.send(News(reasons))


class _WorkerLink(asyncio.Protocol):
    """One worker's connection."""

    def __init__(self, door: JournalDoor) -> None:
        self._door = door
        self._splitter = MessageSplitter()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._door.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._splitter.feed(data):
                self._door.take(self, decode_call(body))
        except IntegrityError as error:
            log.error("worker_not_understood", error=str(error))
            self._transport.abort()

    def send(self, answer: Answer) -> None:
        """Answers are small, and a worker has as many of them coming as it has requests waiting."""
        if not self._transport.is_closing():
            self._transport.writelines(encode_message(answer))

    def close(self) -> None:
        self._transport.close()


def _append_of(call: AppendCall) -> Append:
    append = Append(
        call.batches,
        call.quarantined,
        call.filtered,
        call.account,
        is_own=call.is_own,
        source=call.source,
        received_at=call.received_at,
    )
    if call.conflicts:
        records = {(item.batch, item.position): item.record for item in call.conflicts}
        append.foreseen = records.keys()

        def record_of(batch: int, position: int) -> QuarantinedRecord:
            return records[batch, position]

        append.quarantine_conflict = record_of
    return append


def _batch_answer(done: TenantCommitted) -> CommittedBatch:
    """Without leaf hashes where they are those of the batch as it came: nothing of it repeats or conflicts."""
    hashes = done.leaf_hashes
    own = None if isinstance(hashes, Pieces) else joined(hashes)
    return CommittedBatch([list(pair) for pair in done.ranges], done.accepted, done.duplicates, list(done.repeated), own)
