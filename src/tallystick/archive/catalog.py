"""The catalog: `catalog.sqlite`, the table of chunks and of every tenant's mark (docs/formats/catalog.md).

Rules

1. One process writes (the archiver, `CatalogWriter`); WAL with synchronous = FULL, so a transaction that returned survives
   a power cut. Any process reads.
2. A tenant's mark moves in the transaction that adds the chunks up to it: a reader sees both or neither, so "chunks, and
   the journal from the mark on" has neither holes nor repeats. Read both with `view`, in one snapshot.
3. Everything here can be made again from the store's manifests and chunks (`rebuild`). A catalog counts only when its
   ``complete`` row is there, which the one transaction that makes it writes.
4. In clear: names, ranges, counts, times, sizes. What values occur is in encrypted filters (`filters`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from tallystick.durable import sync_dir
from tallystick.errors import FormatRefusedError, IntegrityError, TransientError

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE marks (handle TEXT PRIMARY KEY, mark INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE chunks (
    chunk_id BLOB PRIMARY KEY, handle TEXT NOT NULL, retention_class TEXT NOT NULL, month TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL,
    occurred_min INTEGER, occurred_max INTEGER, received_min INTEGER, received_max INTEGER,
    size INTEGER NOT NULL, sha256 BLOB NOT NULL, name TEXT NOT NULL,
    replaced_by BLOB, replaced_at INTEGER);
CREATE INDEX chunks_by_index ON chunks (handle, last);
CREATE INDEX chunks_replaced ON chunks (replaced_at) WHERE replaced_at IS NOT NULL;
CREATE TABLE filters (chunk_id BLOB NOT NULL, field TEXT NOT NULL, data BLOB NOT NULL);
CREATE INDEX filters_by_chunk ON filters (chunk_id, field);
CREATE TABLE lost (handle TEXT NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (handle, first)) WITHOUT ROWID;
CREATE TABLE quarantine (
    seq INTEGER PRIMARY KEY, ordinal INTEGER NOT NULL, handle TEXT NOT NULL, source TEXT NOT NULL,
    code TEXT NOT NULL, received_at TEXT NOT NULL);
CREATE TABLE complete (version INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """One chunk. ``first`` and ``last`` are inclusive indexes; times are microseconds since 1970, None when no row has one;
    ``month`` is "yyyy-mm"; ``size`` is the object's, in bytes; ``name`` is the path under the store; ``replaced_at`` is in whole Unix seconds."""

    chunk_id: bytes
    handle: str
    retention_class: str
    month: str
    first: int
    last: int
    count: int
    occurred_min: int | None
    occurred_max: int | None
    received_min: int | None
    received_max: int | None
    size: int
    sha256: bytes
    name: str
    replaced_by: bytes | None = None
    replaced_at: int | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Which chunks may matter: index ``first`` to ``end`` (exclusive), times in microseconds since 1970, ``to`` exclusive."""

    first: int | None = None
    end: int | None = None
    occurred_from: int | None = None
    occurred_to: int | None = None
    received_from: int | None = None
    received_to: int | None = None


@dataclass(frozen=True, slots=True)
class View:
    """One snapshot of a tenant: events below ``mark`` are in ``chunks`` (in index order), all others in the journal."""

    mark: int
    chunks: list[ChunkRow]


@dataclass(frozen=True, slots=True)
class MarkMove:
    """A tenant's mark goes from ``old`` to ``new`` (first index not archived)."""

    handle: str
    old: int
    new: int


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """Where one quarantined record is: its journal seq, its ordinal in the quarantine log; what may be shown of it unopened."""

    seq: int
    ordinal: int
    handle: str
    source: str
    code: str
    received_at: str


class CatalogDamagedError(IntegrityError):
    """The file is no whole database any more. The archiver makes it again from the manifests; nothing else is lost."""

    code = "catalog_damaged"


_COLUMNS = tuple(field.name for field in fields(ChunkRow))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM chunks"  # noqa: S608
_INSERT = f"INSERT INTO chunks VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_CONDITIONS = {
    "first": "last >= ?",
    "end": "first < ?",
    "occurred_from": "occurred_max >= ?",
    "occurred_to": "occurred_min < ?",
    "received_from": "received_max >= ?",
    "received_to": "received_min < ?",
}


class Catalog:
    """Reads the catalog; thread-safe. Before the archiver's first start every answer is empty.

    Every method raises CatalogDamagedError, or TransientError when SQLite cannot answer now.
    """

    def __init__(self, path: Path, *, read_only: bool = True) -> None:
        self.path = path
        self._read_only = read_only
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def view(self, handle: str, window: Window = Window()) -> View:
        """Mark and current chunks of a tenant that can matter to ``window``, from one snapshot."""
        with self._reading() as connection:
            if connection is None:
                return View(0, [])
            return View(_mark(connection, handle), _chunks(connection, handle, window))

    def mark(self, handle: str) -> int:
        """The tenant's first index that is not archived."""
        with self._reading() as connection:
            return _mark(connection, handle) if connection else 0

    def marks(self) -> dict[str, int]:
        """The mark of every tenant that has one."""
        with self._reading() as connection:
            return dict(connection.execute("SELECT handle, mark FROM marks")) if connection else {}

    def chunks(self, handle: str, window: Window = Window()) -> list[ChunkRow]:
        """The current chunks of a tenant, in index order."""
        return self.view(handle, window).chunks

    def counted(self) -> set[str]:
        """Names of the current chunks of all tenants."""
        return {row.name for handle in self.marks() for row in self.chunks(handle)}

    def chunk(self, chunk_id: bytes) -> ChunkRow | None:
        """One chunk, also when it is replaced and not yet deleted."""
        with self._reading() as connection:
            rows = connection.execute(f"{_SELECT} WHERE chunk_id = ?", (chunk_id,)) if connection else ()
            return next((ChunkRow(*row) for row in rows), None)

    def replaced(self, before: int) -> list[ChunkRow]:
        """Chunks that were replaced at or before that Unix second."""
        with self._reading() as connection:
            rows = connection.execute(f"{_SELECT} WHERE replaced_at <= ? ORDER BY replaced_at", (before,)) if connection else ()
            return [ChunkRow(*row) for row in rows]

    def has_chunks(self, handle: str, retention_class: str, month: str) -> bool:
        """True while a chunk is under the key of that tenant, class and month, replaced ones included."""
        with self._reading() as connection:
            query = "SELECT 1 FROM chunks WHERE handle = ? AND retention_class = ? AND month = ? LIMIT 1"
            rows = connection.execute(query, (handle, retention_class, month)) if connection else ()
            return any(True for _ in rows)

    def filter(self, chunk_id: bytes, field: str) -> bytes | None:
        """The stored filter of one column of a chunk."""
        with self._reading() as connection:
            query = "SELECT data FROM filters WHERE chunk_id = ? AND field = ?"
            rows = connection.execute(query, (chunk_id, field)) if connection else ()
            return next((row[0] for row in rows), None)

    def lost(self, handle: str) -> list[tuple[int, int]]:
        """(first index, count) of spans that the journal lost before they were archived."""
        with self._reading() as connection:
            query = "SELECT first, count FROM lost WHERE handle = ? ORDER BY first"
            return list(connection.execute(query, (handle,))) if connection else []

    def quarantined(self, after_seq: int = -1, handles: Sequence[str] | None = None, limit: int = 1000) -> list[QuarantineRow]:
        """Quarantined records in journal order, of these handles ("" is: of no tenant)."""
        where, arguments = "seq > ?", [after_seq, *(handles or ())]
        if handles is not None:
            where += f" AND handle IN ({', '.join('?' * len(handles))})"
        with self._reading() as connection:
            query = f"SELECT seq, ordinal, handle, source, code, received_at FROM quarantine WHERE {where} ORDER BY seq LIMIT ?"  # noqa: S608
            rows = connection.execute(query, (*arguments, limit)) if connection else ()
            return [QuarantineRow(*row) for row in rows]

    def quarantine_end(self) -> tuple[int, int]:
        """(highest seq, highest ordinal) of the quarantine, -1 when it is empty."""
        with self._reading() as connection:
            query = "SELECT coalesce(max(seq), -1), coalesce(max(ordinal), -1) FROM quarantine"
            return next(connection.execute(query)) if connection else (-1, -1)

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """A connection inside one read transaction, or None while there is no complete catalog."""
        with self._lock, _translating(self.path):
            connection = self._open()
            if connection is None:
                yield None
                return
            connection.execute("BEGIN")
            try:
                yield connection if _is_complete(connection, self.path) else None
            finally:
                connection.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection | None:
        """The connection, made again when the file was replaced; None when there is no file."""
        try:
            inode = self.path.stat().st_ino
        except FileNotFoundError:
            return None
        if self._connection is None or inode != self._inode:  # the archiver may have rebuilt it under a new file
            self.close()
            mode = "ro" if self._read_only else "rw"
            self._connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=30
            )
            self._connection.execute("PRAGMA synchronous = FULL")
            self._inode = inode
        return self._connection


class CatalogWriter(Catalog):
    """The one writer. Every method is one transaction, durable when it returns."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, read_only=False)

    @property
    def is_complete(self) -> bool:
        """Whether this is a whole catalog. Raises CatalogDamagedError."""
        with self._reading() as connection:
            if connection is None:
                return False
            connection.execute("SELECT count(*), sum(count), max(name) FROM chunks").fetchone()
            connection.execute("SELECT count(*) FROM marks").fetchone()
            return True

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Make the schema, run the body (which may use the other methods), and count as complete, in one transaction."""
        with self._lock:
            self.path.touch(mode=0o600)
            sync_dir(self.path.parent)
            with self._writing(is_new=True) as connection:
                # A crash in here leaves a file without tables, which counts as no catalog: the next start comes here again.
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                yield
                connection.execute("INSERT INTO complete VALUES (?)", (SCHEMA_VERSION,))

    def add_chunks(
        self,
        chunks: Iterable[tuple[ChunkRow, dict[str, bytes]]],
        marks: Iterable[MarkMove] = (),
        lost: Iterable[tuple[str, int, int]] = (),
    ) -> None:
        """New chunks with their filters, lost spans (handle, first, count), and the marks that they move.

        Raises IntegrityError, changing nothing, when a mark is not where the move starts: somebody else archived.
        """
        with self._writing() as connection:
            for row, filters in chunks:
                _insert_chunk(connection, row, filters)
            connection.executemany("INSERT OR IGNORE INTO lost VALUES (?, ?, ?)", lost)
            for move in marks:
                if _mark(connection, move.handle) != move.old:
                    raise IntegrityError("a tenant's mark is not where the archiver left it", place=f"{self.path}, {move.handle}")
                connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (move.handle, move.new))

    def replace_chunks(self, row: ChunkRow, filters: dict[str, bytes], replaced: Sequence[bytes], at: int) -> None:
        """One chunk takes the place of others from Unix second ``at`` on; their objects still exist."""
        with self._writing() as connection:
            _insert_chunk(connection, row, filters)
            for chunk_id in replaced:
                self.mark_replaced(chunk_id, row.chunk_id, at)

    def swap_chunk(self, old: bytes, new: Iterable[tuple[ChunkRow, dict[str, bytes]]]) -> None:
        """Drop a chunk's row; those of ``new`` hold what is kept of it."""
        with self._writing() as connection:
            connection.execute("DELETE FROM filters WHERE chunk_id = ?", (old,))
            connection.execute("DELETE FROM chunks WHERE chunk_id = ?", (old,))
            for row, filters in new:
                _insert_chunk(connection, row, filters)

    def mark_replaced(self, chunk_id: bytes, by: bytes, at: int) -> None:
        """A chunk is current no longer: another holds its events."""
        with self._writing() as connection:
            connection.execute("UPDATE chunks SET replaced_by = ?, replaced_at = ? WHERE chunk_id = ?", (by, at, chunk_id))
            connection.execute("DELETE FROM filters WHERE chunk_id = ?", (chunk_id,))

    def forget_chunks(self, chunk_ids: Iterable[bytes]) -> None:
        """Drop rows whose objects are deleted."""
        with self._writing() as connection:
            for chunk_id in chunk_ids:
                connection.execute("DELETE FROM filters WHERE chunk_id = ?", (chunk_id,))
                connection.execute("DELETE FROM chunks WHERE chunk_id = ?", (chunk_id,))

    def add_quarantined(self, rows: Iterable[QuarantineRow]) -> None:
        """Index records of the quarantine log; a seq that is there already stays as it is."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)",
                [(row.seq, row.ordinal, row.handle, row.source, row.code, row.received_at) for row in rows],
            )

    @contextmanager
    def _writing(self, *, is_new: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock, _translating(self.path):
            connection = self._open()
            if connection is None:
                raise CatalogDamagedError("the catalog is gone", place=str(self.path))
            if connection.in_transaction:  # inside `creating`
                yield connection
                return
            if is_new:
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            # A crash before this line: none of it happened. After it: all of it, durably (rule 1).
            connection.execute("COMMIT")


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    """SQLite's errors as ours: damage, or what can pass by itself (busy, disk full, input/output)."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise CatalogDamagedError(f"the catalog is damaged: {error}", place=str(path)) from error
        raise TransientError(f"the catalog cannot be used now: {error}", place=str(path)) from error


def _is_complete(connection: sqlite3.Connection, path: Path) -> bool:
    try:
        row = connection.execute("SELECT version FROM complete").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:  # that one is: no such table
            raise
        return False
    if row is not None and row[0] > SCHEMA_VERSION:
        raise FormatRefusedError(f"the catalog has format {row[0]}, newer than this program", place=str(path))
    return row is not None


def _mark(connection: sqlite3.Connection, handle: str) -> int:
    row = connection.execute("SELECT mark FROM marks WHERE handle = ?", (handle,)).fetchone()
    return row[0] if row else 0


def _chunks(connection: sqlite3.Connection, handle: str, window: Window) -> list[ChunkRow]:
    where, arguments = ["handle = ?", "replaced_by IS NULL"], [handle]
    for name, condition in _CONDITIONS.items():
        bound = getattr(window, name)
        if bound is not None:
            where.append(condition)
            arguments.append(bound)
    rows = connection.execute(f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY first, last", arguments)
    return [ChunkRow(*row) for row in rows]


def _insert_chunk(connection: sqlite3.Connection, row: ChunkRow, filters: dict[str, bytes]) -> None:
    connection.execute(_INSERT, [getattr(row, name) for name in _COLUMNS])
    connection.executemany("INSERT INTO filters VALUES (?, ?, ?)", [(row.chunk_id, field, data) for field, data in filters.items()])
