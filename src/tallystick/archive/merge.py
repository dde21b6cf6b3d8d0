"""Merging small chunks: adjacent ones of one tenant, class and month become one, with a manifest that names them.

Which ones (`plan_merge`), among neighbours below ``merge_below``:

1. as many as give one chunk that is no longer small;
2. in a month that is over, all that are left;
3. otherwise eight of about the same size (a factor of eight), so that an event is rewritten a few times, not at each flush.

The old objects stay for ``merge_grace`` after the switch in the catalog, for searches that took their view before it.
Deleting: objects first, catalog rows after; a crash between the two deletes them again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pyarrow as pa

from tallystick.archive.catalog import CatalogWriter, ChunkRow
from tallystick.archive.metrics import archive_metrics
from tallystick.archive.reader import ArchiveReader
from tallystick.archive.store import ArchiveStore
from tallystick.archive.writer import ChunkWriter
from tallystick.telemetry import log

_FAN_IN = 8
_CHUNKS_MAX = 256


def plan_merge(rows: Sequence[ChunkRow], merge_below: int, this_month: str) -> list[ChunkRow] | None:
    """The next chunks to merge out of one tenant's current ones, or None. ``merge_below`` is in bytes."""
    ordered = sorted(rows, key=lambda row: (row.retention_class, row.month, row.first))
    for (_, month), group in itertools.groupby(ordered, key=lambda row: (row.retention_class, row.month)):
        for is_small, run in itertools.groupby(group, key=lambda row: row.size < merge_below):
            chosen = _choose(list(run), merge_below, is_over=month < this_month) if is_small else None
            if chosen is not None:
                return chosen
    return None


def _choose(run: list[ChunkRow], merge_below: int, *, is_over: bool) -> list[ChunkRow] | None:
    sizes = list(itertools.accumulate(row.size for row in run))
    if sizes[-1] >= merge_below or is_over or len(run) > _CHUNKS_MAX:
        enough = next((place for place, size in enumerate(sizes, 1) if size >= merge_below), len(run))
        return run[: min(enough, _CHUNKS_MAX)] if len(run) > 1 else None
    for level in sorted({_level(row) for row in run}):
        for is_like, part in itertools.groupby(run, key=lambda row: _level(row) <= level):
            chosen = list(part)
            if is_like and len(chosen) >= _FAN_IN:
                return chosen
    return None


def _level(row: ChunkRow) -> int:
    return row.size.bit_length() // 3


class Merger:
    """Merges, and deletes what was merged. One object in the archiver; not thread-safe."""

    def __init__(
        self,
        catalog: CatalogWriter,
        store: ArchiveStore,
        reader: ArchiveReader,
        writer: ChunkWriter,
        merge_below: int,
        grace_s: float,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._reader = reader
        self._writer = writer
        self._merge_below = merge_below
        self._grace_s = grace_s

    def merge_one(self, handle: str, now: float, this_month: str) -> bool:
        """Do the next merge of a tenant; False when there is none. Raises TransientError; then nothing has changed."""
        rows = plan_merge(self._catalog.chunks(handle), self._merge_below, this_month)
        if rows is None:
            return False
        merged = self._writer.merge(self._catalog, rows, self._tables(rows), int(now))
        metrics = archive_metrics()
        metrics.chunks.inc()
        metrics.bytes.inc(merged.size)
        metrics.merged.inc(len(rows))
        log.info("chunks merged", handle=handle, chunks=len(rows), events=merged.count, bytes=merged.size)
        return True

    def delete_replaced(self, now: float) -> int:
        """Delete objects that were replaced longer ago than the grace; returns how many."""
        rows = self._catalog.replaced(int(now - self._grace_s))
        for row in rows:
            self._store.delete(row.name.removesuffix(".parquet") + ".manifest")
            self._store.delete(row.name)
        if rows:
            self._catalog.forget_chunks([row.chunk_id for row in rows])
        return len(rows)

    def _tables(self, rows: Sequence[ChunkRow]) -> Iterator[pa.Table]:
        for row in rows:
            yield from self._reader.tables(row)
