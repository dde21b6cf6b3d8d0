"""Reads the archive: lines by index, one event by id, columns of one chunk. Never writes.

A local chunk is mapped into memory and only the columns and row groups asked for are read and decrypted. A chunk in a
bucket is fetched whole, once, and kept for a while: it is a few MiB, and a page of it costs a round trip as the whole does.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tallystick.archive.catalog import Catalog, ChunkRow, Window
from tallystick.archive.chunk import chunk_key, open_chunk, parse_name, read_columns, unreadable
from tallystick.archive.columns import CHUNK_SCHEMA
from tallystick.archive.filters import FilterReader
from tallystick.archive.store import ArchiveStore
from tallystick.config import Config
from tallystick.errors import IntegrityError, NotFoundError
from tallystick.privacy.keys import KeyStore

_FETCHED_BYTES_MAX = 64 << 20
_LINES_BATCH = 1_024  # lines of ordinary length, decompressed: less than a core's second cache


@dataclass(frozen=True, slots=True)
class Found:
    """One archived event."""

    index: int
    seq: int
    line: bytes


class ArchiveReader:
    """Thread-safe. Errors: NotFoundError (a chunk was merged away since the view was taken, or its key is destroyed),
    IntegrityError (a chunk does not decrypt, or is gone although the catalog counts on it), DestinationUnavailableError."""

    def __init__(self, config: Config, keys: KeyStore, store: ArchiveStore | None = None) -> None:
        self.catalog = Catalog(config.data_dir / "catalog.sqlite")
        self.filters = FilterReader(self.catalog, keys)
        self._store = store or ArchiveStore.open(config)
        self._keys = keys
        self._fetched = _Fetched(self._store)

    def lines(self, handle: str, first_index: int, count: int) -> list[tuple[int, bytes]]:
        """The archived ones of ``count`` events from ``first_index``, as (index, line) in index order."""
        try:
            return self._lines(handle, first_index, first_index + count)
        except NotFoundError:  # merged away and deleted between view and open: the new view has its successor
            return self._lines(handle, first_index, first_index + count)

    def _lines(self, handle: str, first_index: int, end: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        for row in self.catalog.chunks(handle, Window(first=first_index, end=end)):
            file = self._open(row)
            for group in range(file.num_row_groups):
                low, high = _index_range(file, group)
                if low < end and high >= first_index:
                    found += _lines_between(_read_group(file, group, ["index", "line"], row.name), first_index, end)
        return sorted(found)

    def find(self, handle: str, event_id: str) -> Found | None:
        """The archived event with that id, newest first if there are several (one past the dedupe window)."""
        rows = self.filters.having(self.catalog.chunks(handle), "id", event_id)
        for row in reversed(rows):
            place = pc.index(self.open_chunk(row, ["id"]).column("id"), event_id).as_py()
            if place >= 0:
                event = self.read_rows(row, [place], ["index", "seq", "line"]).to_pylist()[0]
                return Found(**event)
        return None

    def open_chunk(self, row: ChunkRow, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a chunk, in index order; only ``columns`` of them are read (default: all)."""
        return read_columns(self._open(row), columns, place=self._store.place(row.name))

    def read_rows(self, row: ChunkRow, positions: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Rows by their 0-based, ascending places in the chunk; reads only the row groups that they lie in."""
        file = self._open(row)
        wanted = np.asarray(positions, dtype=np.int64)
        parts, start = [], 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            inside = wanted[(wanted >= start) & (wanted < start + rows)] - start
            if inside.size:
                parts.append(_read_group(file, group, columns, row.name).take(pa.array(inside)))
            start += rows
        if not parts:
            return pa.schema([CHUNK_SCHEMA.field(name) for name in columns or CHUNK_SCHEMA.names]).empty_table()
        return pa.concat_tables(parts)

    def tables(self, row: ChunkRow) -> Iterator[pa.Table]:
        """A chunk's rows with all columns, one row group at a time."""
        file = self._open(row)
        for group in range(file.num_row_groups):
            yield _read_group(file, group, None, row.name)

    def _open(self, row: ChunkRow) -> pq.ParquetFile:
        key = chunk_key(self._keys.epoch_key(row.handle, row.retention_class, row.month), row.chunk_id)
        try:
            source = self._fetched.source(row.name)
        except NotFoundError as error:
            current = self.catalog.chunk(row.chunk_id)
            if current is None or current.replaced_by is not None:
                raise
            raise IntegrityError(
                "a chunk that the catalog counts on is gone", place=error.place, hint="Restore the object from a copy"
            ) from error
        return open_chunk(source, key, place=self._store.place(row.name))


class ChunkSource:
    """The archive as verify and a rebuild see it: what lies in the store. Names are paths below the store.

    ``catalog`` adds the chunks that it counts on, so that one that is gone is missed.
    """

    def __init__(self, store: ArchiveStore, keys: KeyStore, catalog: Catalog | None = None) -> None:
        self._store = store
        self._keys = keys
        self._catalog = catalog

    @classmethod
    def open(cls, config: Config, keys: KeyStore) -> ChunkSource:
        """The archive that the configuration names. Raises ConfigError."""
        return cls(ArchiveStore.open(config), keys, Catalog(config.data_dir / "catalog.sqlite"))

    def manifests(self) -> Iterator[tuple[str, bytes]]:
        """(name, signed note) of every manifest in the store, sorted by name."""
        for name in sorted(name for name in self._store.list() if name.endswith(".manifest")):
            yield name, self._store.get(name)

    def names(self) -> Iterator[str]:
        """Every chunk that the store holds or the catalog counts on, sorted."""
        yield from sorted(self.counted().union(name for name in self._store.list() if name.endswith(".parquet")))

    def counted(self) -> set[str]:
        """The chunks that the catalog counts on."""
        return set() if self._catalog is None else self._catalog.counted()

    def get(self, name: str) -> bytes:
        """An object's bytes as stored. Raises NotFoundError."""
        return self._store.get(name)

    def digest(self, name: str) -> tuple[int, str]:
        """Size in bytes and hexadecimal SHA-256 of an object as stored. Raises NotFoundError."""
        data = self._store.get(name)
        return len(data), hashlib.sha256(data).hexdigest()

    def lines(self, name: str) -> Iterator[tuple[Sequence[int], list[bytes]]]:
        """(indexes, lines) of a chunk, ascending, in batches that a core's cache holds. Raises NotFoundError, IntegrityError."""
        batches = self.open_chunk(name).iter_batches(_LINES_BATCH, columns=["index", "line"])
        while True:
            try:
                batch = next(batches, None)
            except (OSError, pa.ArrowException) as error:
                raise unreadable(name, error) from error
            if batch is None:
                return
            yield _as_range(batch.column("index").to_numpy()), batch.column("line").to_pylist()

    def open_chunk(self, name: str, data: bytes | None = None) -> pq.ParquetFile:
        """A chunk by its name alone; ``data`` are its bytes when the caller has them."""
        parts = parse_name(name)
        key = chunk_key(self._keys.epoch_key(parts.handle, parts.retention_class, parts.month), parts.chunk_id)
        return open_chunk(self._store.get(name) if data is None else data, key, place=self._store.place(name))


class _Fetched:
    """Bytes of chunks: mapped for a local store; from a bucket, the last few in memory."""

    def __init__(self, store: ArchiveStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._objects: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def source(self, name: str) -> Any:
        path = self._store.local_path(name)
        if path is not None:
            try:
                return pa.memory_map(str(path))
            except FileNotFoundError as error:
                raise NotFoundError("no such object in the archive", place=str(path)) from error
        with self._lock:
            data = self._objects.get(name)
            if data is not None:
                self._objects.move_to_end(name)
                return data
        data = self._store.get(name)
        with self._lock:
            if name not in self._objects:
                self._objects[name] = data
                self._size += len(data)
            while self._size > _FETCHED_BYTES_MAX and len(self._objects) > 1:
                self._size -= len(self._objects.popitem(last=False)[1])
        return data


def _read_group(file: pq.ParquetFile, group: int, columns: Sequence[str] | None, place: str) -> pa.Table:
    try:
        return file.read_row_group(group, columns=list(columns) if columns is not None else None)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(place, error) from error


def _as_range(indexes: NDArray[np.int64]) -> Sequence[int]:
    """A range where every index follows the one before, as in most chunks; a list otherwise."""
    first, last = int(indexes[0]), int(indexes[-1])
    if last - first == len(indexes) - 1 and bool((np.diff(indexes) == 1).all()):
        return range(first, last + 1)
    numbers: list[int] = indexes.tolist()
    return numbers


def _index_range(file: pq.ParquetFile, group: int) -> tuple[int, int]:
    statistics = file.metadata.row_group(group).column(0).statistics
    return statistics.min, statistics.max


def _lines_between(table: pa.Table, first: int, end: int) -> list[tuple[int, bytes]]:
    index = table.column("index")
    kept = table.filter(pc.and_(pc.greater_equal(index, first), pc.less(index, end)))
    return list(zip(kept.column("index").to_pylist(), kept.column("line").to_pylist(), strict=True))
