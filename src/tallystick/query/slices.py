"""Where rows come from: row groups of chunks, and batches of the hot part, behind one small interface.

A `Slice` is what one round of a scan reads at once: rows of one tenant with known bounds of time. Slices of a chunk are
packs of its row groups, latest first; packs grow (1, 2, 4, 8 row groups) so that the first page comes early and a long scan
pays little per row, but never past `PACK_BYTES` of decoded columns.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tallystick.archive.catalog import ChunkRow
from tallystick.archive.chunk import chunk_key, open_chunk, unreadable
from tallystick.archive.store import ArchiveStore
from tallystick.errors import NotFoundError
from tallystick.privacy.keys import KeyStore
from tallystick.query.values import micros_of

PACK_BYTES = 24 * 2**20
_PACK_GROUPS_MAX = 8
_OPEN_MAX = 64
_BATCH_ROWS = 1_024
_AHEAD = 2
_REMOTE_BYTES_MAX = 64 * 2**20


class StaleSnapshotError(Exception):
    """Part of the snapshot has moved (merged, or archived) since it was taken: take another. Never leaves the engine."""


class ErasedError(Exception):
    """The chunk's epoch key is destroyed: its events expired or were erased. Never leaves the engine."""


class Slice(Protocol):
    """Rows of one tenant. ``low`` and ``high`` bound the scan's time column, in microseconds; None: not known yet."""

    handle: str
    low: int | None
    high: int | None

    def read(self, columns: Sequence[str]) -> pa.Table:
        """All rows, in index order, with these columns of `CHUNK_SCHEMA`."""

    def lines(self, indexes: Sequence[int]) -> list[bytes]:
        """The lines of rows in this slice, in the order asked for."""


class HotSlice:
    """A batch of events that are not archived yet, held or to be read again for every use."""

    def __init__(self, handle: str, table: pa.Table | Callable[[], pa.Table], time: str) -> None:
        self.handle = handle
        self._table = table
        self.low: int | None = None
        self.high: int | None = None
        if isinstance(table, pa.Table):
            bounds = pc.min_max(table[time])
            self.low, self.high = micros_of(bounds["min"].as_py()), micros_of(bounds["max"].as_py())

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self._rows().select(list(columns))

    def lines(self, indexes: Sequence[int]) -> list[bytes]:
        return _pick(self._rows(), indexes)

    def _rows(self) -> pa.Table:
        return self._table if isinstance(self._table, pa.Table) else self._table()


class ReadAhead:
    """A slice whose columns are being read by another thread."""

    def __init__(self, source: Slice, columns: Sequence[str], pool: Executor) -> None:
        self.handle, self.low, self.high = source.handle, source.low, source.high
        self._source = source
        self._columns = frozenset(columns)
        self._table: Future[pa.Table] | None = pool.submit(source.read, sorted(self._columns))

    def read(self, columns: Sequence[str]) -> pa.Table:
        """The first reading of what was read ahead takes it, so that it is not held longer than it is used."""
        if self._table is None or not self._columns.issuperset(columns):
            return self._source.read(columns)
        table, self._table = self._table.result(), None
        return table.select(list(columns))

    def lines(self, indexes: Sequence[int]) -> list[bytes]:
        return self._source.lines(indexes)


def read_ahead(
    sources: Iterator[tuple[float, Slice]], columns_of: Callable[[Slice], Sequence[str]], pool: Executor
) -> Iterator[tuple[float, Slice]]:
    """The same slices; from the second on, two are read while one is worked on. A scan that stops early wastes no more."""
    first = next(sources, None)
    if first is None:
        return
    yield first
    waiting: deque[tuple[float, Slice]] = deque()
    for urgency, source in sources:
        waiting.append((urgency, ReadAhead(source, columns_of(source), pool)))
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


class ChunkFiles:
    """Opens chunks and keeps some open: parsing and decrypting a footer costs more than reading a small column.

    A file is lent to one thread at a time. Descriptors, and bytes held for objects of a remote store, are bounded.
    """

    def __init__(self, store: ArchiveStore, keys: KeyStore) -> None:
        self._store = store
        self._keys = keys
        self._idle: list[tuple[bytes, pq.ParquetFile, int]] = []
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, row: ChunkRow) -> Iterator[pq.ParquetFile]:
        """The chunk's reader. Raises ErasedError, StaleSnapshotError, and IntegrityError when the chunk is damaged."""
        with self._lock:
            place = next((place for place, idle in enumerate(self._idle) if idle[0] == row.chunk_id), None)
            _, file, held = self._idle.pop(place) if place is not None else (None, None, 0)
        if file is None:
            file, held = self._open(row)
        try:
            yield file
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self._store.place(row.name), error) from error
        with self._lock:
            self._idle.append((row.chunk_id, file, held))
            while len(self._idle) > _OPEN_MAX or sum(size for _, _, size in self._idle) > _REMOTE_BYTES_MAX:
                self._idle.pop(0)[1].close()

    def close(self) -> None:
        with self._lock:
            for _, file, _ in self._idle:
                file.close()
            self._idle.clear()

    def _open(self, row: ChunkRow) -> tuple[pq.ParquetFile, int]:
        try:
            key = chunk_key(self._keys.epoch_key(row.handle, row.retention_class, row.month), row.chunk_id)
        except NotFoundError as error:
            raise ErasedError from error
        place = self._store.place(row.name)
        path = self._store.local_path(row.name)
        try:
            if path is not None:
                return open_chunk(pa.memory_map(str(path)), key, place=place), 0
            data = self._store.get(row.name)
        except (FileNotFoundError, NotFoundError) as error:
            raise StaleSnapshotError(place) from error
        return open_chunk(data, key, place=place), len(data)


class ChunkSlice:
    """Some row groups of a chunk."""

    def __init__(self, files: ChunkFiles, row: ChunkRow, groups: list[int], low: int | None, high: int | None) -> None:
        self.handle = row.handle
        self.low, self.high = low, high
        self._files, self._row, self._groups = files, row, groups

    def read(self, columns: Sequence[str]) -> pa.Table:
        with self._files.lend(self._row) as file:
            return file.read_row_groups(self._groups, columns=list(columns))

    def lines(self, indexes: Sequence[int]) -> list[bytes]:
        """Only the row groups that hold the rows are read, and of each only the pages up to the last one wanted."""
        found: dict[int, bytes] = {}
        with self._files.lend(self._row) as file:
            for group in self._groups:
                first, last = _bounds(file.metadata.row_group(group), "index")
                here = sorted({index for index in indexes if first <= index <= last})
                if here:
                    found.update(zip(here, _lines_of_group(file, group, here), strict=True))
        return [found[index] for index in indexes]


def _lines_of_group(file: pq.ParquetFile, group: int, indexes: Sequence[int]) -> list[bytes]:
    """The lines with these ascending indexes in one row group."""
    metadata = file.metadata.row_group(group)
    first, last = _bounds(metadata, "index")
    if last - first + 1 == metadata.num_rows:
        places = [index - first for index in indexes]
    else:
        column = file.read_row_group(group, columns=["index"])["index"]
        places = pc.index_in(pa.array(indexes, pa.int64()), value_set=column).to_pylist()
    lines: list[bytes] = []
    start = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=["line"]):
        inside = [place - start for place in places[len(lines) :] if place < start + len(batch)]
        lines += batch.column(0).take(pa.array(inside, pa.int64())).to_pylist()
        if len(lines) == len(places):
            break
        start += len(batch)
    return lines


def chunk_slices(files: ChunkFiles, row: ChunkRow, time: str, columns: Sequence[str], *, newest_first: bool) -> list[ChunkSlice]:
    """A chunk's slices for a scan that reads ``columns``, in the order of their bounds."""
    with files.lend(row) as file:
        groups = [_Group(file, number, time, columns) for number in range(file.metadata.num_row_groups)]
    groups = [group for group in groups if group.low is not None]
    groups.sort(key=lambda group: group.high if newest_first else -group.low, reverse=True)
    slices: list[ChunkSlice] = []
    size = 1
    while groups:
        pack = [groups.pop(0)]
        while groups and len(pack) < size and sum(group.bytes for group in pack) + groups[0].bytes <= PACK_BYTES:
            pack.append(groups.pop(0))
        size = min(size * 2, _PACK_GROUPS_MAX)
        numbers = sorted(group.number for group in pack)
        slices.append(ChunkSlice(files, row, numbers, min(group.low for group in pack), max(group.high for group in pack)))
    return slices


def chunk_pieces(files: ChunkFiles, row: ChunkRow) -> Iterator[tuple[int, Slice]]:
    """(highest index, slice) for every row group of a chunk, in index order."""
    with files.lend(row) as file:
        highs = [_bounds(file.metadata.row_group(number), "index")[1] for number in range(file.metadata.num_row_groups)]
    for number, high in enumerate(highs):
        yield high, ChunkSlice(files, row, [number], None, None)


class _Group:
    """One row group: its number, its bounds of time, and the decoded size of some columns."""

    def __init__(self, file: pq.ParquetFile, number: int, time: str, columns: Sequence[str]) -> None:
        metadata = file.metadata.row_group(number)
        wanted = set(columns)
        self.number = number
        self.low: Any
        self.high: Any
        self.low, self.high = (micros_of(bound) for bound in _bounds(metadata, time))
        self.bytes = sum(
            column.total_uncompressed_size
            for column in map(metadata.column, range(metadata.num_columns))
            if column.path_in_schema.split(".")[0] in wanted
        )


def _bounds(metadata: Any, name: str) -> tuple[Any, Any]:
    """Lowest and highest value of a column in a row group, from its statistics; None without any value."""
    position = next(place for place in range(metadata.num_columns) if metadata.column(place).path_in_schema == name)
    statistics = metadata.column(position).statistics
    if statistics is None or not statistics.has_min_max:
        return None, None
    return statistics.min, statistics.max


def _pick(table: pa.Table, indexes: Sequence[int]) -> list[bytes]:
    places = pc.index_in(pa.array(indexes, pa.int64()), value_set=table["index"])
    lines: list[bytes] = table["line"].take(places).to_pylist()
    return lines
