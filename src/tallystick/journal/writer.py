"""The journal as the intake sees it: ``await journal.append(request)`` returns when the request is on disk.

On the event loop: dedupe, leaf hashes, one queue bounded in bytes, the answers. On the commit thread (`commit`):
numbers, compression, encryption, one write and one fdatasync for all that waits. The two meet once per commit.

1. An append is claimed in dedupe, queued and answered; a caller that goes away does not stop it.
2. An id that is in flight in another append is waited for, then looked up again: its answer is that append's position.
3. What is refused (OverloadedError, DiskFullError, NotAcceptingError, ConflictError) leaves no claim and no number behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tallystick.config import DataSettings, JournalSettings
from tallystick.durable import RoleLock, make_dir
from tallystick.errors import ConflictError, DiskFullError, IntegrityError, NotAcceptingError, OverloadedError, PushbackError
from tallystick.journal.claimed import (
    AccountBatch,
    Claimed,
    account_batches,
    claim_events,
    other_parts,
    prepare_account,
    prepare_events,
    replay,
    tenant_committed,
)
from tallystick.journal.commit import CommitThread
from tallystick.journal.cursor import START, Cursor, Position
from tallystick.journal.dedupe import Claim, Dedupe
from tallystick.journal.entries import Append, Committed
from tallystick.journal.fatal import end_process
from tallystick.journal.frame import FRAME_BYTES_MAX, Frame
from tallystick.journal.group import Group
from tallystick.journal.metrics import journal_metrics
from tallystick.journal.recovery import Recovered, recover
from tallystick.journal.retire import DEDUPE_CURSOR
from tallystick.journal.segment_file import remove_spares
from tallystick.journal.space import SpaceGuard, fitting_segment_bytes
from tallystick.shared_bytes import SharedBytes
from tallystick.telemetry import log

_WATCH_INTERVAL_S = 1.0
_PART_COST = 512


@dataclass(slots=True)
class _Waiting:
    """What the commit thread's answer is turned into. ``claimed``: the request's batches, then its account entries."""

    future: asyncio.Future[Committed]
    claimed: list[Claimed]
    batches: int
    conflicts: list[tuple[int, int]]


class Journal:
    """The one writer of a data directory. Used from one event loop."""

    def __init__(
        self,
        data_dir: Path,
        lock: RoleLock,
        recovered: Recovered,
        dedupe: Dedupe,
        commits: CommitThread,
        space: SpaceGuard,
        queue: int,
    ) -> None:
        self.recovered = recovered
        self.dedupe = dedupe
        self._data_dir = data_dir
        self._lock = lock
        self._commits = commits
        self._space = space
        self._queue = SharedBytes(queue)
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._progress: asyncio.Future[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._dedupe_cursor = Cursor(data_dir, DEDUPE_CURSOR)
        self._dedupe_position: Position | None = None
        self._flushed_segment = commits.segment_name
        self._measuring = ThreadPoolExecutor(1, "journal-space")
        self._metrics = journal_metrics()

    @classmethod
    def open(
        cls,
        data_dir: Path,
        keys: Any,
        settings: JournalSettings,
        data_settings: DataSettings,
        *,
        known_sizes: Mapping[str, int] | None = None,
        known_seq: int = 0,
    ) -> Journal:
        """Take the writer's lock, recover, and open a new segment. Blocking. Call `start` on the event loop that appends.

        ``known_sizes`` (handle → sealed tree size) and ``known_seq`` (highest seq in a signed head) let it notice a
        journal that ends too early. Raises LockedError, FormatRefusedError, StartError, OSError.
        """
        make_dir(data_dir / "journal")
        lock = RoleLock(data_dir, "writer")
        epoch = lock.acquire()
        try:
            remove_spares(data_dir / "journal")
            dedupe = Dedupe.open(data_dir, keys, settings.dedupe_events)
            forgotten: list[str] = []
            recovered = recover(
                data_dir,
                keys,
                known_sizes,
                max(known_seq, dedupe.durable_seq),
                replay=partial(_replay, dedupe, forgotten),
                replay_from=dedupe.durable_seq + 1,
            )
            recovered.damage += forgotten
            size = fitting_segment_bytes(data_dir, data_settings, settings.segment_size.bytes)
            space = SpaceGuard(data_dir, data_settings, size)
            journal: Journal

            def done(groups: list[Group], error: PushbackError | None) -> None:
                journal.on_commit(groups, error)

            commits = CommitThread(data_dir, keys, epoch, recovered.end, size, space, done)
            journal = cls(data_dir, lock, recovered, dedupe, commits, space, settings.queue.bytes)
            space.measure()
            commits.start(recovered.lost_group())
        except BaseException:
            lock.release()
            raise
        return journal

    async def append(self, request: Append) -> Committed:
        """Commit one request and say where it is. Returns after fdatasync.

        Raises ConflictError (without ``quarantine_conflict``), OverloadedError, DiskFullError, NotAcceptingError; then nothing
        of the request is stored.
        """
        loop = self.start()
        account = account_batches(request.account, self.dedupe.digester) if request.account else []
        cost = _cost(request, account)
        lane = request.lane
        self._refuse_if_unable(lane, cost)
        while (claims := self._claim(request, account)) is None:
            if self._progress is not None:
                await asyncio.shield(self._progress)
            self._refuse_if_unable(lane, cost)
        try:
            conflicts = self._conflicts(request, claims)
            claimed = list(map(prepare_events, request.batches, claims))
            if account:
                claimed += map(prepare_account, account, claims[len(claimed) :])
        except BaseException:
            self._release(claims)
            raise
        parts = [item.part for item in claimed if item.part is not None] + other_parts(request, conflicts)
        waiting = _Waiting(loop.create_future(), claimed, len(request.batches), conflicts)
        if not parts:
            return _committed(waiting, 0)
        self._queue.take(lane, cost)
        self._commits.submit(Group(parts, cost, waiting, lane=lane))
        return await waiting.future

    def on_commit(self, groups: list[Group], error: PushbackError | None) -> None:
        """The commit thread's report; goes to the event loop in one step."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, groups, error)

    def status(self) -> dict[str, Any]:
        """What the intake publishes: durable seq, whether it accepts and why not, how long the disk has
        owed an answer (seconds), queue, segment, what recovery found."""
        reason = self._commits.stopped or self._space.refusal
        return {
            "durable": self._commits.durable_seq,
            "accepting": reason is None and not self._is_closed,
            "reason": reason,
            "segment": self._commits.segment_name,
            "stalled_seconds": round(self._commits.stalled_s, 3),
            "queue_bytes": self._queue.total,
            "queue_bytes_max": self._queue.bytes_max,
            "data_bytes": self._space.used_bytes,
            "dedupe": self.dedupe.status(),
            "damage": list(self.recovered.damage),
            "salvaged": [path.name for path in self.recovered.salvaged],
        }

    def accepted(self) -> dict[str, int]:
        """Durable events of each tenant, by handle."""
        return self._commits.sizes()

    async def close(self) -> None:
        """Refuse new appends, commit what is queued, answer it, and let the lock go."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._commits.close)
        await loop.run_in_executor(self._measuring, self.dedupe.close)  # after the last report, which was queued before
        self._save_dedupe_cursor()
        self._measuring.shutdown(wait=True)
        self._lock.release()

    def start(self) -> asyncio.AbstractEventLoop:
        """Belong to the running event loop, and look at the disk from now on; the first append does it too. Harmless twice."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._progress = self._loop.create_future()
            self._watcher = self._loop.create_task(self._watch())
        return self._loop

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            if self._commits.segment_name != self._flushed_segment:
                self._flushed_segment = self._commits.segment_name
                self.dedupe.flush()  # so that the closed segment can be retired, however few its ids
            await asyncio.get_running_loop().run_in_executor(self._measuring, self._look_around)

    def _look_around(self) -> None:
        """Once a second, off the loop: is there space, and which segments does dedupe not need any more."""
        try:
            self._space.measure()
            self._save_dedupe_cursor()
        except OSError as error:
            log.error("journal_watch_failed", error=str(error))

    def _save_dedupe_cursor(self) -> None:
        """A crash before this is durable keeps segments longer, nothing else."""
        position = Position(START.segment, START.offset, self.dedupe.durable_seq + 1)
        if position != self._dedupe_position:
            self._dedupe_cursor.save(position)
            self._dedupe_position = position

    def _refuse_if_unable(self, lane: str, cost: int) -> None:
        error: PushbackError
        if self._is_closed:
            error = NotAcceptingError("the journal is closing")
        elif self._commits.stopped is not None:
            error = NotAcceptingError(self._commits.stopped, hint="Check the disk", retry_after_s=5)
        elif self._space.refusal is not None:
            error = DiskFullError(self._space.refusal, hint="Free space, or raise the quota", retry_after_s=5)
        elif not self._queue.has_room(lane, cost, is_own=not lane):
            error = OverloadedError(
                f"{self._queue.total} bytes wait for the disk, {self._queue.held(lane)} of them this tenant's; "
                f"{self._queue.bytes_max} is the bound, and one tenant may hold as much as is left free"
            )
        else:
            return
        self._metrics.refused.labels(error.code).inc()
        try:
            raise error
        finally:
            # Else this frame and the error hold each other, and with them all frames up to the request's, its body and events
            # included, until the collector looks for cycles: hundreds of megabytes while a flood is being refused.
            del error

    def _claim(self, request: Append, account: list[AccountBatch]) -> list[Claim] | None:
        """Claim all batches, or none and None while an id is in flight elsewhere: wait for a commit and claim again."""
        claims: list[Claim] = []
        try:
            for batch in request.batches:
                claim = claim_events(self.dedupe, batch)
                if claim.in_flight:
                    self._release(claims)
                    return None
                claims.append(claim)
            for entries in account:
                claim = self.dedupe.claim(entries.handle, entries.id_digests, entries.content_digests)
                if claim.in_flight:
                    self._release(claims)
                    return None
                claims.append(claim)
        except BaseException:
            self._release(claims)
            raise
        return claims

    def _release(self, claims: list[Claim]) -> None:
        for claim in claims:
            self.dedupe.release(claim)

    def _conflicts(self, request: Append, claims: list[Claim]) -> list[tuple[int, int]]:
        conflicts = [(place, at) for place, claim in enumerate(claims) if claim.conflicts for at in claim.conflicts]
        is_refused = request.quarantine_conflict is None or (
            request.foreseen is not None and not set(conflicts).issubset(request.foreseen)
        )
        if conflicts and is_refused:
            raise ConflictError("an id was used before with other content", positions=conflicts)
        return conflicts

    def _settle(self, groups: list[Group], error: PushbackError | None) -> None:
        """On the loop, once per commit. When it fails half way (no memory, say), dedupe and the answers are apart, and nobody would
        ever answer the rest: the process ends as by kill -9, and the next life brings everything up from the journal."""
        try:
            self._settle_groups(groups, error)
        except BaseException as fault:  # noqa: BLE001 - whatever it was, going on would be wrong
            end_process("a commit could not be settled", fault)

    def _settle_groups(self, groups: list[Group], error: PushbackError | None) -> None:
        """Move claims on, answer, and wake who waits for an id in flight."""
        for group in groups:
            waiting: _Waiting = group.token
            self._queue.give(group.lane, group.cost)
            for item in waiting.claimed:
                if error is not None or item.part is None:
                    self.dedupe.release(item.claim)
                else:
                    self.dedupe.commit(item.claim, item.part.first_seq, item.part.first_index, item.hashes)
            if waiting.future.done():
                continue  # the caller went away; its request is durable all the same
            if error is not None:
                waiting.future.set_exception(error)
            else:
                waiting.future.set_result(_committed(waiting, max(part.first_seq + part.count - 1 for part in group.parts)))
        self._metrics.queue_bytes.set(self._queue.total)
        progress = self._progress
        if progress is not None and self._loop is not None:
            self._progress = self._loop.create_future()
            progress.set_result(None)


def _replay(dedupe: Dedupe, forgotten: list[str], frame: Frame) -> None:
    """Bring the dedupe window up to the journal's end."""
    try:
        replay(dedupe, frame)
    except (IntegrityError, msgspec.MsgspecError) as error:
        forgotten.append(f"ids of a frame are forgotten: {error}")


def _cost(request: Append, account: list[AccountBatch]) -> int:
    """Bytes that the request holds in the queue; refuses what no frame can hold."""
    cost = _PART_COST
    for batch in request.batches:
        size = batch.size
        if size > FRAME_BYTES_MAX // 2:
            raise OverloadedError(f"one tenant's lines of one request are {size} bytes; {FRAME_BYTES_MAX // 2} is the bound")
        cost += size + _PART_COST
    for record in request.quarantined:
        cost += len(record.data) + _PART_COST
    for entries in account:
        cost += sum(map(len, entries.lines)) + _PART_COST
    return cost


def _committed(waiting: _Waiting, seq: int) -> Committed:
    for item in waiting.claimed:
        seq = max([seq, *(first.seq for first in item.claim.duplicates.values())])
    return Committed(list(map(tenant_committed, waiting.claimed[: waiting.batches])), waiting.conflicts, seq)
