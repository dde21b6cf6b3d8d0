"""The commit thread: what is queued becomes one write and one fdatasync (DESIGN 7.3–7.5).

Rules

1. While one sync runs, what arrives queues; the next commit takes it, up to `COMMIT_BYTES_MAX`, tenants in turn (`backlog`).
   There is no timer.
2. Numbers are given when a commit is encoded and kept only when it is durable, so refused requests leave no gap.
3. Order after a sync: numbering, MARK, then the waiting requests hear of it.
4. A commit begins with a mark frame when the mark has moved since the last one; without a commit the mark frame is
   written within 100 ms. Its record ``{"seq","segment","offset","next":{handle: next index}}`` names the tenants of the
   commit before it, so that a damaged frame does not take the knowledge of its indexes with it.
5. A failed write or sync makes the file suspect: it is given up at its durable end, and the same commit is written to a new
   segment, whose header makes the rest of the old file void. A second failure in a row stops intake. From then on a fresh
   segment is tried every 1 to 10 seconds; when one is durable, intake goes on in it. No descriptor that failed is used again.
6. A segment ends when it is full, or holds 200,000 frames, so that a restart never has more than that to read.
7. When there is no space (ENOSPC, EDQUOT, EFBIG) the requests are refused with DiskFullError instead, and the next commit tries again.
   Want of descriptors or memory (EMFILE, ENFILE, ENOMEM) says nothing of the disk either: OverloadedError, and the next one tries again.
8. When it is not known any more what is on disk (a fault of this program, or a new segment that cannot be taken back) nobody is
   answered: the process ends as by kill -9, the supervisor starts the next, and recovery finds out.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec
import zstandard

from tallystick.durable import truncate
from tallystick.errors import DiskFullError, NotAcceptingError, OverloadedError, PushbackError
from tallystick.journal.backlog import Backlog
from tallystick.journal.fatal import end_process
from tallystick.journal.frame import FrameEncoder, FrameType, frame_bytes
from tallystick.journal.group import Encoded, Group, Part, encode_groups
from tallystick.journal.mark import NO_MARK, Mark, MarkWriter
from tallystick.journal.metrics import journal_metrics
from tallystick.journal.numbering import Numbering, NumberingFile
from tallystick.journal.segment import HEADER_BLOCK, KEY_BYTES, KeyWrapper, new_header
from tallystick.journal.segment_file import LeftoverError, SegmentFile, Spare, make_spare
from tallystick.journal.space import FULL_ERRNOS, SpaceGuard
from tallystick.telemetry import log

IDLE_MARK_S: Final = 0.1
FRAMES_MAX: Final = 200_000
_ATTEMPTS = 2
_HEAL_PAUSE_S: Final = (1.0, 10.0)
_WANT_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
ZSTD_LEVEL: Final = 1

Done = Callable[[list[Group], PushbackError | None], None]


@dataclass(slots=True)
class JournalEnd:
    """Where the journal stands without its active segment: UUID and valid end of the last one, and the next numbers.

    ``previous_path``: that file, when what lies behind its valid end may go.
    """

    previous: bytes = bytes(16)
    previous_end: int = 0
    previous_path: Path | None = None
    numbering: Numbering = field(default_factory=Numbering)


class CommitThread:
    """Owns the active segment. `submit` may be called from one thread; ``done`` is called on the commit thread, once per commit."""

    def __init__(
        self, data_dir: Path, keys: KeyWrapper, epoch: int, end: JournalEnd, segment_bytes: int, space: SpaceGuard, done: Done
    ) -> None:
        self.stopped: str | None = None
        self._heal_pause_s = _HEAL_PAUSE_S[0]
        self._heal_at = 0.0
        self._writing_since: float | None = None
        self._directory = data_dir / "journal"
        self._keys = keys
        self._epoch = epoch
        self._end = end
        self._segment_bytes = segment_bytes
        self._space = space
        self._done = done
        self._active: SegmentFile | None = None
        self._encoder: FrameEncoder | None = None
        self._mark = MarkWriter(self._directory)
        self._published = NO_MARK
        self._unmarked: dict[str, int] | None = None
        self._owed: list[Group] = []
        self._backlog = Backlog()
        self._numbering_file = NumberingFile(data_dir)
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self._queue: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._background = ThreadPoolExecutor(1, "journal-background")
        self._spare: Future[Spare] | None = None
        self._metrics = journal_metrics()
        self._thread = threading.Thread(target=self._run, name="journal-commit", daemon=True)

    @property
    def durable_seq(self) -> int:
        """The highest durable seq."""
        return self._end.numbering.next_seq - 1

    def sizes(self) -> dict[str, int]:
        """Durable events of each tenant, by handle. Copied in one step, so any thread may ask."""
        return dict(self._end.numbering.next_index)

    @property
    def segment_name(self) -> str:
        """File name of the active segment, empty when there is none."""
        active = self._active
        return active.path.name if active else ""

    @property
    def stalled_s(self) -> float:
        """How long the write that is under way has taken, in seconds; 0 when none is."""
        since = self._writing_since
        return time.monotonic() - since if since is not None else 0.0

    def start(self, first: Group | None = None) -> None:
        """Open this life's segment, with ``first`` (what recovery found lost) in it, and start the thread.

        A disk that is full or fails is no error here: intake refuses until it works.
        """
        groups = [first] if first else []
        for group in groups:
            group.prepare(self._compressor)
        error = self._make_durable(groups)
        self._owed = groups if error else []  # goes before the first commit that succeeds
        self._thread.start()

    def submit(self, group: Group) -> None:
        """Queue one request."""
        self._queue.put(group)
        if not self._thread.is_alive():
            self._refuse_queued()

    def close(self) -> None:
        """Commit what is queued, write the last mark, and let go. Blocking."""
        self._queue.put(None)
        self._thread.join()
        if self._active is not None:
            self._active.close()
        self._mark.close()
        self._background.shutdown(wait=True)
        if self._spare is not None and self._spare.exception() is None:
            self._spare.result().discard()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - rule 8: whatever it was, nobody knows what was written
            end_process("the commit thread failed", error)

    def _refuse_queued(self) -> None:
        groups = self._backlog.take_all()
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            groups += [item] if item is not None else []
        self._done(groups, NotAcceptingError(self.stopped or "the journal is closed", retry_after_s=5))

    def _serve(self) -> None:
        is_open = True
        while is_open or self._backlog:
            is_open = self._collect() and is_open
            if groups := self._backlog.take():
                self._commit(groups)
            elif self.stopped is not None:
                self._try_again()
            elif self._unmarked is not None:
                self._mark_alone()

    def _collect(self) -> bool:
        """Move what is queued to the backlog; waits when there is none, until the mark has waited long enough. False at the end."""
        try:
            item = self._queue.get_nowait() if self._backlog else self._queue.get(timeout=self._patience_s())
            while item is not None:
                self._backlog.add(item)
                item = self._queue.get_nowait()
        except queue.Empty:
            return True
        return False

    def _patience_s(self) -> float | None:
        """How long to wait for a request before there is something else to do."""
        if self.stopped is not None:
            return max(0.0, self._heal_at - time.monotonic())
        return IDLE_MARK_S if self._unmarked is not None else None

    def _commit(self, groups: list[Group]) -> None:
        for group in groups:
            group.prepare(self._compressor)
        waiting = self._owed + groups
        while waiting:
            taken = self._fitting(waiting)
            error = self._make_durable(waiting[:taken])
            if error is None:
                self._owed = []
            else:
                taken = len(waiting)
            self._done([group for group in waiting[:taken] if group.token is not None], error)
            waiting = waiting[taken:]

    def _fitting(self, groups: list[Group]) -> int:
        """How many groups go into the next write: as many as fit in the active segment, or else in a new one; at least one."""
        room = self._room
        mark = self._mark_bytes_max()
        if groups[0].size + mark > room:
            room = self._segment_bytes - HEADER_BLOCK
        total, taken = mark, 0
        for group in groups:
            total += group.size
            if total > room and taken:
                break
            taken += 1
        return taken

    @property
    def _room(self) -> int:
        """Bytes that may still be written to the active segment."""
        if self._active is None or self._encoder is None or self._encoder.ordinal >= FRAMES_MAX:
            return 0
        return self._active.room

    def _mark_alone(self) -> None:
        if self._room >= self._mark_bytes_max():
            self._make_durable([])
        else:
            self._unmarked = None  # the next segment's header says as much

    def _make_durable(self, groups: list[Group]) -> PushbackError | None:
        """Returns None when the groups are durable, or why they are refused."""
        return NotAcceptingError(self.stopped, retry_after_s=5) if self.stopped is not None else self._write_twice(groups)

    def _write_twice(self, groups: list[Group]) -> PushbackError | None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._writing_since = time.monotonic()
                self._write(groups)
                self._writing_since = None
                return None
            except LeftoverError as error:
                end_process("a new segment can neither be used nor removed", error)
            except OSError as error:
                log.error("journal_write_failed", error=str(error), segment=self.segment_name, attempt=attempt)
                if error.errno in FULL_ERRNOS:
                    self._writing_since = None
                    self._space.report_full(error)
                    return DiskFullError("the disk is full", hint="Free space, or raise the quota", retry_after_s=5)
                if error.errno in _WANT_ERRNOS:
                    self._writing_since = None
                    return OverloadedError(
                        f"no new segment can be opened: {error.strerror}", hint="Raise the limits of the process"
                    )
                reason = f"the journal cannot be written: {error.strerror or error}"
        self._writing_since = None
        if self.stopped is None:
            self._heal_at = time.monotonic() + self._heal_pause_s
        self.stopped = reason
        return NotAcceptingError(reason, hint="Check the disk", retry_after_s=5)

    def _try_again(self) -> None:
        """Intake is stopped: only a new segment, durable with its name, shows that the disk takes writes again (rule 5)."""
        if time.monotonic() < self._heal_at:
            return
        old, self._active = self._active, None
        if old is not None:  # it was whole when a rotation failed; but then its disk failed
            self._end.previous, self._end.previous_end, self._end.previous_path = old.header.uuid, old.end, old.path
            old.close()
        self._heal_pause_s = min(self._heal_pause_s * 2, _HEAL_PAUSE_S[1])
        self._heal_at = time.monotonic() + self._heal_pause_s
        error = self._write_twice(self._owed)
        if error is None:
            log.warning("journal_accepts_again", segment=self.segment_name, after=self.stopped)
            self._owed, self.stopped, self._heal_pause_s = [], None, _HEAL_PAUSE_S[0]
        elif isinstance(error, DiskFullError):
            self.stopped = None  # refused as such from now on, and tried with the next commit after there is room

    def _write(self, groups: list[Group]) -> None:
        mark = self._mark_part()
        if mark is not None:
            groups = [Group([mark], 0, size=mark.compress(self._compressor)), *groups]
        size = sum(group.size for group in groups)
        if self._active is None or self._encoder is None or size > self._room:
            encoded = self._write_new(groups, size)
        else:
            encoded = encode_groups(self._encoder, groups, self._end.numbering)
            self._append(self._active, encoded)
        self._settle(encoded, is_mark_alone=mark is not None and len(groups) == 1)

    def _append(self, active: SegmentFile, encoded: Encoded) -> None:
        try:
            self._metrics.sync_seconds.observe(active.append(encoded.frames))
        except OSError:
            # The pages may be lost while a later sync succeeds: this file proves nothing beyond `active.end` any more.
            self._metrics.poisoned.inc()
            self._end.previous, self._end.previous_end, self._end.previous_path = active.header.uuid, active.end, None
            self._active = None
            active.give_up()
            raise

    def _write_new(self, groups: list[Group], size: int) -> Encoded:
        """Open a new segment with ``groups`` in it. The old one, if any, stays active when this fails."""
        old = self._active
        if old is not None:
            self._end.previous, self._end.previous_end, self._end.previous_path = old.header.uuid, old.end, old.path
        key = os.urandom(KEY_BYTES)
        header = new_header(
            self._keys,
            key,
            first_seq=self._end.numbering.next_seq,
            epoch=self._epoch,
            previous=self._end.previous,
            previous_end=self._end.previous_end,
        )
        encoder = FrameEncoder(header.uuid, key, self._epoch)
        encoded = encode_groups(encoder, groups, self._end.numbering)
        spare = self._take_spare(HEADER_BLOCK + size)
        self._active = SegmentFile.create(spare, header, encoded.frames)
        self._encoder = encoder
        if old is not None:
            old.close()
        self._background.submit(self._after_rotation, header.uuid, replace(self._end, numbering=self._end.numbering.copy()))
        self._spare = self._background.submit(make_spare, self._directory, self._segment_bytes)
        return encoded

    def _take_spare(self, size: int) -> Spare:
        spare, self._spare = self._spare, None
        if spare is not None and spare.exception() is None:
            if spare.result().size >= size:
                return spare.result()
            spare.result().discard()
        return make_spare(self._directory, max(size, self._segment_bytes))

    def _after_rotation(self, segment: bytes, end: JournalEnd) -> None:
        """Nothing here is needed for what was acknowledged; each step left undone costs the next start some reading."""
        try:
            self._numbering_file.save(segment, end.numbering)
            if end.previous_path is not None:
                with end.previous_path.open("r+b") as file:
                    truncate(file.fileno(), end.previous_end)  # give back the zeros behind the valid end
        except OSError as error:
            log.warning("journal_rotation_unfinished", error=str(error))

    def _settle(self, encoded: Encoded, *, is_mark_alone: bool) -> None:
        """The commit is durable: keep its numbers and let readers go there."""
        active = self._active
        if active is None:
            raise RuntimeError("no segment is active after a commit")
        entries = encoded.next_seq - self._end.numbering.next_seq
        self._end.numbering.next_seq = encoded.next_seq
        self._end.numbering.next_index.update(encoded.sizes)
        self._unmarked = None if is_mark_alone or not encoded.frames else encoded.sizes
        self._published = Mark(self.durable_seq, active.header.uuid, active.end, self._epoch)
        self._mark.publish(self._published)
        self._metrics.commits.inc()
        self._metrics.entries.inc(entries)
        self._metrics.bytes.inc(sum(map(len, encoded.frames)))

    def _mark_part(self) -> Part | None:
        if self._unmarked is None:
            return None
        seq, segment, offset, _ = self._published
        record = {"seq": seq, "segment": segment.hex(), "offset": offset, "next": self._unmarked}
        return Part(FrameType.MARK, "", [msgspec.json.encode(record)], 0)

    def _mark_bytes_max(self) -> int:
        return frame_bytes(512 + 48 * len(self._unmarked or ()))
