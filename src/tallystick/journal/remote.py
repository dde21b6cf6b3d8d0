"""The journal as an intake worker sees it: ``append`` as in `journal.writer`, over `run/journal.sock` to the one writer.

1. A worker packs its batches (`journal.packed`) and hands them over; the answer comes after the writer's fdatasync, so it means
   what it means there.
2. While there is no connection every append is refused with NotAcceptingError: nothing was handed over, so nothing is stored. The
   worker tries to connect again and again.
3. When the connection ends, whatever was handed over and not answered may be stored or not: OutcomeUnknownError. The sender gets no
   answer, and finds out by sending again under the same ids.
4. What waits to be sent is bounded by the bodies in flight, whose requests all wait here; a call waits while the socket takes no more.
5. For conflicts in quarantine mode the writer asks back: it refuses the call with their places, and the call comes again with the
   records to keep for them. Nothing is sent twice where there is no conflict.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import zstandard

from tallystick.errors import ConflictError, IntegrityError, NotAcceptingError, OutcomeUnknownError
from tallystick.journal.commit import ZSTD_LEVEL
from tallystick.journal.dedupe_digest import Digester
from tallystick.journal.entries import Append, Committed, TenantBatch, TenantCommitted
from tallystick.journal.packed import HASH_BYTES, PackedBatch, pack_batch
from tallystick.journal.pieces import Pieces
from tallystick.journal.tenants import Tenant, TenantRegistry, UnknownTenantError
from tallystick.journal.wire import (
    Answer,
    AppendAnswer,
    AppendCall,
    Call,
    CommittedBatch,
    ConflictRecord,
    MessageSplitter,
    News,
    Refusal,
    TenantAnswer,
    TenantCall,
    decode_answer,
    encode_message,
)
from tallystick.telemetry import log

_INLINE_BYTES_MAX = 2 * 2**20
_SEND_BUFFER = 4 * 2**20
_AGAIN_S = 0.05
_SILENCE_S = 5.0
_AWAY = "the journal's writer is starting"

A = TypeVar("A", AppendAnswer, TenantAnswer)


class RemoteJournal:
    """Used from one event loop. ``socket``: the writer's; ``digester`` as in every process that takes in events."""

    def __init__(self, socket: Path, digester: Digester) -> None:
        self._socket = socket
        self._digester = digester
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self._thread = ThreadPoolExecutor(1, "pack", initializer=self._make_thread_compressor)
        self._link: _Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._number = 0

    def start(self) -> None:
        """Connect, and again whenever the connection ends."""
        self._task = asyncio.get_running_loop().create_task(self._stay_connected())

    async def close(self) -> None:
        """Let the connection go; whoever still waits is told that the outcome is unknown."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._link is not None:
            self._link.close()
        self._thread.shutdown(wait=True)

    async def append(self, request: Append) -> Committed:
        """As `Journal.append`; besides what that raises, OutcomeUnknownError."""
        self._connected()  # before the work
        packed, hashes = await self._pack(request)
        call = AppendCall(
            0,
            request.source,
            request.received_at,
            request.is_own,
            packed,
            request.quarantined,
            request.filtered,
            request.account,
            [],
        )
        while True:
            try:
                answer = await self._ask(call, AppendAnswer)
            except ConflictError as error:
                _foresee(call, request, error)
            else:
                return _committed(packed, hashes, answer)

    async def tenant(self, name: str) -> Tenant:
        """The tenant of that name, made when it is new. Raises PushbackError."""
        return (await self._ask(TenantCall(0, name), TenantAnswer)).tenant

    def not_ready(self) -> list[str]:
        """Why an append would be refused now; empty when it would not."""
        link = self._link
        if link is None or link.reasons is None:
            return [_AWAY]
        silence_s = time.monotonic() - link.heard_at
        return link.reasons if silence_s < _SILENCE_S else [f"the journal's writer has been silent for {silence_s:.0f} s"]

    def _connected(self) -> _Link:
        if self._link is None:
            raise NotAcceptingError(_AWAY)
        return self._link

    async def _ask(self, call: Call, kind: type[A]) -> A:
        self._number += 1
        call.number = self._number
        answer = await self._connected().ask(call)
        if not isinstance(answer, kind):
            raise IntegrityError(f"the writer answers a call with {answer!r}")
        return answer

    async def _pack(self, request: Append) -> tuple[list[PackedBatch], list[list[bytes]]]:
        """The batches packed, and the leaf hashes of each. What takes long is done in a thread: the loop goes on beside it."""
        batches = [batch for batch in request.batches if isinstance(batch, TenantBatch)]
        if sum(batch.size for batch in batches) > _INLINE_BYTES_MAX:
            pairs = await asyncio.get_running_loop().run_in_executor(self._thread, self._pack_here, batches, True)
        else:
            pairs = self._pack_here(batches, False)
        return [packed for packed, _ in pairs], [hashes for _, hashes in pairs]

    def _pack_here(self, batches: Sequence[TenantBatch], is_thread: bool) -> list[tuple[PackedBatch, list[bytes]]]:
        compressor = self._thread_compressor if is_thread else self._compressor
        return [pack_batch(batch, self._digester, compressor) for batch in batches]

    def _make_thread_compressor(self) -> None:
        self._thread_compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)  # one may not be used by two threads at once

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        is_away = False
        while True:
            try:
                link = await self._connect(loop)
            except OSError as error:
                if not is_away:  # once per outage
                    log.warning("writer_unreachable", socket=str(self._socket), error=str(error))
                is_away = True
                await asyncio.sleep(_AGAIN_S)
                continue
            log.info("writer_reachable")
            is_away, self._link = False, link
            await link.ended
            self._link = None

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _Link:
        # Through a descriptor of the directory: a Unix socket's path has at most 108 bytes.
        directory = os.open(self._socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _, link = await loop.create_unix_connection(lambda: _Link(loop), f"/proc/self/fd/{directory}/{self._socket.name}")
        finally:
            os.close(directory)
        return link


class RemoteTenants(TenantRegistry):
    """The tenants as a worker knows them: those that were there when it started, and those that it asked the writer for."""

    def __init__(self, data_dir: Path, journal: RemoteJournal) -> None:
        super().__init__(data_dir)
        self._journal = journal

    def create(self, name: str) -> Tenant:
        """The tenant of that name. Raises UnknownTenantError for one that is not known here: `fetch` it."""
        found = self.get(name)
        if found is None:
            raise UnknownTenantError(name)
        return found

    async def fetch(self, name: str) -> Tenant:
        """Have the writer make it, or tell. Raises PushbackError."""
        tenant = await self._journal.tenant(name)
        self._admit(tenant)
        return tenant


class _Link(asyncio.Protocol):
    """One connection to the writer, and the calls that wait for its answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reasons: list[str] | None = None
        self.heard_at = time.monotonic()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._splitter = MessageSplitter()
        self._waiting: dict[int, tuple[type[Call], asyncio.Future[Any]]] = {}
        self._writable: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.set_write_buffer_limits(high=_SEND_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        self.resume_writing()
        waiting, self._waiting = self._waiting, {}
        for kind, future in waiting.values():
            if not future.done():
                future.set_exception(_ended(kind))
                future.exception()  # so that nobody complains about one whose caller went away
        if waiting:
            log.warning("writer_gone", unanswered=len(waiting))

    def pause_writing(self) -> None:
        self._writable = self._writable or self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        try:
            for body in self._splitter.feed(data):
                self._take(decode_answer(body))
        except IntegrityError as error:
            log.error("writer_not_understood", error=str(error))
            self._transport.abort()

    async def ask(self, call: Call) -> Answer:
        """Send the call when the socket takes more, and wait for its answer. Raises what the writer refused it with."""
        head, body = encode_message(call)
        while self._writable is not None:
            await asyncio.shield(self._writable)
        if self.ended.done():
            raise NotAcceptingError(_AWAY)
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[call.number] = (type(call), future)
        self._transport.writelines((head, body))
        return await future

    def close(self) -> None:
        self._transport.close()

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, News):
            self.reasons = answer.reasons
            return
        _, future = self._waiting.pop(answer.number, (None, None))
        if future is None or future.done():
            return  # its caller went away
        if isinstance(answer, Refusal):
            future.set_exception(answer.error())
        else:
            future.set_result(answer)


def _ended(kind: type[Call]) -> Exception:
    """What to tell of a call that was sent and will not be answered."""
    if kind is AppendCall:
        return OutcomeUnknownError("the journal's writer ended before it answered")
    return NotAcceptingError(_AWAY)  # a tenant is made once, however often it is asked for


def _foresee(call: AppendCall, request: Append, error: ConflictError) -> None:
    """Put the records for these conflicts into the call. Raises the error where conflicts are refused."""
    if request.quarantine_conflict is None:
        raise error
    known = {(item.batch, item.position) for item in call.conflicts}
    more = [ConflictRecord(*place, request.quarantine_conflict(*place)) for place in error.positions if tuple(place) not in known]
    if not more:
        raise IntegrityError("the writer refuses conflicts that it was told how to keep")
    call.conflicts += more


def _committed(packed: Sequence[PackedBatch], hashes: Sequence[list[bytes]], answer: AppendAnswer) -> Committed:
    if len(answer.batches) != len(packed):
        raise IntegrityError(f"the writer answers {len(packed)} batches with {len(answer.batches)}")
    tenants = [_tenant_committed(*item) for item in zip(packed, hashes, answer.batches, strict=True)]
    return Committed(tenants, answer.conflicts, answer.seq)


def _tenant_committed(batch: PackedBatch, hashes: list[bytes], done: CommittedBatch) -> TenantCommitted:
    leaf_hashes: Sequence[bytes] = hashes if done.leaf_hashes is None else list(Pieces(done.leaf_hashes, HASH_BYTES))
    return TenantCommitted(batch.handle, done.ranges, done.accepted, done.duplicates, leaf_hashes, done.repeated)
