"""The archiver: the follower that moves events from the journal into the archive.

Each step

1. reads on in the journal, unless ``hot_bytes`` of lines wait already; buffers events by tenant, keeps quarantined records
   (durably, at once), notes lost spans;
2. archives the tenants that are due, each whole up to one index: at ``chunk_size`` bytes of lines, at ``max_age`` since
   receipt of the oldest, or the largest ones while more than ``hot_bytes`` wait in all (`writer.ChunkWriter.archive`);
3. saves the cursor: where the oldest event that still waits was read. It may lag, never lead;
4. lets segments go that every reader has passed;
5. lets go of what has expired (`expiry`);
6. with nothing else to do, merges small chunks and deletes merged ones.

After any crash the journal is read again from the cursor. What lies below a tenant's mark is passed over, quarantined
records are told by their seq, so everything is archived exactly once. While the store cannot be reached nothing is lost:
the buffers fill to ``hot_bytes``, then the journal waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tallystick.archive.buffer import TenantBuffer
from tallystick.archive.catalog import CatalogDamagedError, CatalogWriter
from tallystick.archive.columns import received_at
from tallystick.archive.expiry import Expirer, Record
from tallystick.archive.hold import CompileQuery
from tallystick.archive.merge import Merger
from tallystick.archive.metrics import archive_metrics
from tallystick.archive.quarantine import QuarantineWriter
from tallystick.archive.reader import ArchiveReader, ChunkSource
from tallystick.archive.rebuild import discard_catalog, open_catalog, rebuild_catalog
from tallystick.archive.store import ArchiveStore
from tallystick.archive.writer import ChunkWriter
from tallystick.config import Config
from tallystick.errors import IntegrityError, TransientError
from tallystick.journal.cursor import Cursor, Position
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import DamagedSpan, JournalReader
from tallystick.journal.retire import retire_segments
from tallystick.privacy.keys import KeyStore
from tallystick.telemetry import log, publish_status

ROLE = "archiver"
NEEDED_BY = ["sealer", ROLE]  # whose cursors must have passed a segment before it is deleted

_CURSOR_INTERVAL_S = 1.0
_RETRY_MAX_S = 30.0
_WAIT_S = 0.2
_READ_BYTES = 1 << 20  # compressed: up to about 8 MiB of lines


class Archiver:
    """One per data directory, in a process that holds the role's lock: ``run``, or ``start`` and then ``step`` by hand."""

    def __init__(
        self,
        config: Config,
        keys: KeyStore,
        *,
        store: ArchiveStore | None = None,
        journal: JournalReader | None = None,
        clock: Callable[[], float] = time.time,
        needed_by: Sequence[str] = NEEDED_BY,
        record: Record | None = None,
        compile_query: CompileQuery | None = None,
    ) -> None:
        """``record`` takes account entries to the intake, ``compile_query`` is for holds; without them nothing expires."""
        self._config = config
        self._settings = config.archive
        self._keys = keys
        self._store = store or ArchiveStore.open(config)
        self._journal = journal or JournalReader(config.data_dir, keys, patience_s=config.journal.read_patience.seconds)
        self._cursor = Cursor(config.data_dir, ROLE)
        self._clock = clock
        self._needed_by = needed_by
        self._record = record
        self._compile = compile_query
        self._expirer: Expirer | None = None
        self._buffers: dict[str, TenantBuffer] = {}
        self._reads = 0
        self._saved_at = 0.0
        self._reason = ""
        self._is_started = False

    def start(self) -> None:
        """Clean up after a crash, open or rebuild the catalog, and find the place to go on. Raises DestinationUnavailableError."""
        path, server_name = self._config.data_dir / "catalog.sqlite", self._config.server.name
        self._writer = ChunkWriter(self._config.data_dir, server_name, self._keys, self._store)
        self._position = self._saved = self._cursor.load() or self._journal.oldest()
        catalog = open_catalog(path)
        if catalog is not None and sum(catalog.marks().values()) < self._cursor.extra.get("archived", 0):
            # Somebody put an older copy back. The journal may not have any more what is missing in it, but the store has.
            log.error("the catalog is older than the cursor and will be rebuilt", path=str(path))
            catalog.close()
            discard_catalog(path)
            catalog = None
        self._writer.settle(catalog)
        if catalog is None:
            source = ChunkSource(self._store, self._keys)
            catalog = rebuild_catalog(path, server_name, self._keys, source, int(self._clock()))
        self._catalog: CatalogWriter = catalog
        self._quarantine = QuarantineWriter(self._config.data_dir, self._keys, catalog)
        reader = ArchiveReader(self._config, self._keys, self._store)
        self._merger = Merger(
            catalog, self._store, reader, self._writer, self._settings.merge_below.bytes, self._settings.merge_grace.seconds
        )
        if self._record is not None and self._compile is not None:
            self._expirer = Expirer(
                self._config.data_dir,
                self._config.retention,
                self._keys,
                catalog,
                self._store,
                reader,
                self._writer,
                self._record,
                self._compile,
                self._clock,
            )
        self._to_merge = set(catalog.marks())
        self._merge_month = self._month()
        self._buffers.clear()
        self._is_started = True

    def run(self, stop: threading.Event) -> None:
        """Archive until ``stop`` is set. Troubles that can pass are retried for ever, and named in the status meanwhile."""
        pause_s = 1.0
        while not stop.is_set():
            try:
                if not self._is_started:
                    self.start()
                if not self.step():
                    self._journal.wait(self._position, _WAIT_S, stop)
            except CatalogDamagedError as error:
                log.error("the catalog will be rebuilt", error=str(error))
                self._catalog.close()
                discard_catalog(self._catalog.path)
                self._is_started = False
            except (TransientError, OSError) as error:
                self._reason = str(error)
                archive_metrics().retries.inc()
                log.warning("the archiver tries again", error=str(error), seconds=pause_s)
                self._publish()
                stop.wait(pause_s)
                pause_s = min(2 * pause_s, _RETRY_MAX_S)
                continue
            self._reason, pause_s = "", 1.0
            self._publish()

    def step(self) -> bool:
        """One round of the six steps; False when there was nothing to do."""
        before = self._position
        if self._waiting_bytes() <= self._settings.hot_bytes.bytes:
            items, after = self._journal.read(before, _READ_BYTES)
            self._reads += 1
            self._take(items)
            self._position = after
        has_read = self._position != before
        has_archived = self._archive(self._due())
        self._save_cursor(is_due=has_archived)
        has_expired = self._expirer is not None and self._expirer.step()  # 5
        if has_read or has_archived or has_expired:
            return True
        return self._tidy()

    def flush(self) -> None:
        """Archive all that is buffered, whatever its age."""
        self._archive(list(self._buffers.values()))
        self._save_cursor(is_due=True)

    # 1. reading

    def _take(self, items: Iterable[Frame | DamagedSpan]) -> None:
        quarantined: list[tuple[int, bytes]] = []
        for item in items:
            if isinstance(item, DamagedSpan):
                for handle, (first_index, count) in item.lost.items():
                    self._add_lost(handle, first_index, count)
                continue
            try:
                if item.type == FrameType.EVENTS:
                    self._add_events(item)
                elif item.type == FrameType.LOST:
                    self._add_lost(item.handle, item.first_index, item.count)
                elif item.type == FrameType.QUARANTINED:
                    quarantined += enumerate(item.records(), item.first_seq)
            except IntegrityError as error:
                # Its CRC holds but it does not open: not an accident. Its events will be missing (a gap before the tenant's
                # next ones), and verify, which has their leaves, fails.
                log.error("a journal frame cannot be archived", error=str(error))
        self._quarantine.store(quarantined)

    def _add_events(self, frame: Frame) -> None:
        buffer = self._buffers.get(frame.handle)
        archived = buffer.end if buffer else self._catalog.mark(frame.handle)
        skipped = archived - frame.first_index
        if skipped >= frame.count:
            return
        lines = frame.lines()[max(0, skipped) :]
        if skipped < 0:
            log.error("events are missing in the journal", handle=frame.handle, first=archived, count=-skipped)
        buffer = buffer or self._new_buffer(frame.handle, archived, received_at(lines[0]))
        buffer.add(max(frame.first_index, archived), frame.first_seq + max(0, skipped), lines)

    def _add_lost(self, handle: str, first_index: int, count: int) -> None:
        buffer = self._buffers.get(handle)
        archived = buffer.end if buffer else self._catalog.mark(handle)
        if first_index + count > archived:
            log.error("events were lost before they were archived", handle=handle, first=first_index, count=count)
            (buffer or self._new_buffer(handle, archived, None)).add_lost(first_index, count)

    def _new_buffer(self, handle: str, start: int, since: float | None) -> TenantBuffer:
        now = self._clock()
        buffer = TenantBuffer(handle, start, min(now, since or now), self._reads, self._position)
        self._buffers[handle] = buffer
        return buffer

    # 2. archiving

    def _due(self) -> list[TenantBuffer]:
        oldest = self._clock() - self._settings.max_age.seconds
        chunk_size = self._settings.chunk_size.bytes
        due = [buffer for buffer in self._buffers.values() if buffer.size >= chunk_size or buffer.since <= oldest]
        too_much = self._waiting_bytes() - sum(buffer.size for buffer in due) - self._settings.hot_bytes.bytes
        for buffer in sorted(self._buffers.values(), key=lambda buffer: buffer.size, reverse=True):
            if too_much > 0 and buffer not in due:
                due.append(buffer)
                too_much -= buffer.size
        return due

    def _archive(self, buffers: list[TenantBuffer]) -> bool:
        """In rounds of about one chunk's size: that much is in memory at a time, and many small tenants share the syncs."""
        start = 0
        while start < len(buffers):
            end, size = start + 1, buffers[start].size
            while end < len(buffers) and size + buffers[end].size <= self._settings.chunk_size.bytes:
                size += buffers[end].size
                end += 1
            self._archive_round(buffers[start:end])
            start = end
        return bool(buffers)

    def _archive_round(self, buffers: list[TenantBuffer]) -> None:
        self._writer.settle(self._catalog)
        rows = self._writer.archive(self._catalog, [buffer.take() for buffer in buffers])
        for buffer in buffers:
            del self._buffers[buffer.handle]
            self._to_merge.add(buffer.handle)
        metrics = archive_metrics()
        metrics.events.inc(sum(row.count for row in rows))
        metrics.chunks.inc(len(rows))
        metrics.bytes.inc(sum(row.size for row in rows))
        log.info(
            "archived",
            tenants=len(buffers),
            chunks=len(rows),
            events=sum(row.count for row in rows),
            bytes=sum(row.size for row in rows),
        )

    # 3. and 4. the cursor, and what it lets go

    def _save_cursor(self, *, is_due: bool) -> None:
        first = min(self._buffers.values(), key=lambda buffer: buffer.read_at, default=None)
        position: Position = first.position if first else self._position
        if position == self._saved or not (is_due or time.monotonic() - self._saved_at >= _CURSOR_INTERVAL_S):
            return
        # A crash before this: events that are archived are read again and passed over. After it: segments may go.
        self._cursor.save(position, {"archived": sum(self._catalog.marks().values())})
        self._saved, self._saved_at = position, time.monotonic()
        retire_segments(self._config.data_dir, self._needed_by)

    # 6. idle work

    def _tidy(self) -> bool:
        now, month = self._clock(), self._month()
        if month != self._merge_month:  # a month is over: what is left of it can be merged
            self._to_merge, self._merge_month = set(self._catalog.marks()), month
        if self._merger.delete_replaced(now):
            return True
        self._writer.settle(self._catalog)
        while self._to_merge:
            handle = next(iter(self._to_merge))
            if self._merger.merge_one(handle, now, month):
                return True
            self._to_merge.discard(handle)
        return False

    def _month(self) -> str:
        return time.strftime("%Y-%m", time.gmtime(self._clock()))

    def _waiting_bytes(self) -> int:
        return sum(buffer.size for buffer in self._buffers.values())

    def _publish(self) -> None:
        reason = self._reason or (self._expirer.reason if self._expirer is not None else "")
        oldest = min((buffer.since for buffer in self._buffers.values()), default=None)
        archive_metrics().waiting_bytes.set(self._waiting_bytes())
        page: dict[str, Any] = {
            "state": "retrying" if self._reason else "running",
            "reason": reason,
            "waiting_bytes": self._waiting_bytes(),
            "waiting_tenants": len(self._buffers),
            "oldest_waiting_seconds": max(0.0, self._clock() - oldest) if oldest is not None else 0.0,
        }
        publish_status(self._config.data_dir, ROLE, page)
