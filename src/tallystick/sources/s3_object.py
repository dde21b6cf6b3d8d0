"""An object of a bucket as records, piece by piece: ranged reads, decompression, lines, documents of records, Parquet rows.

Every read is a request of its own for one range of one version (``if_match``), so no connection waits while the journal is slow,
and nothing lies on disk in the clear. In memory are one block as stored, one of content and one piece of records. Blocking: the
source reads each piece in a thread.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Literal, cast

import obstore
import zstandard
from obstore.exceptions import BaseError, NotFoundError

from tallystick.errors import TallystickError
from tallystick.plugin import Fault
from tallystick.protocols.json_records import RecordCutter, RecordsError, is_records
from tallystick.protocols.lines import Line, LineSplitter
from tallystick.sources.s3_parquet import MAGIC as PARQUET_MAGIC
from tallystick.sources.s3_parquet import DamagedParquetError, parquet_rows

Format = Literal["auto", "lines", "records", "parquet"]

_STORED_BLOCK = 4 << 20
_BLOCK = 1 << 20
_START = 512
_WINDOW_MAX = 128 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_GONE = ("NoSuchKey", "NoSuchVersion")
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, RecordsError, DamagedParquetError)


class ObjectUnavailableError(TallystickError):
    """The object cannot be read for now: its message stays in the queue."""

    code = "object_unavailable"


class ObjectGoneError(TallystickError):
    """There is no such object any more."""

    code = "object_gone"


class UnreadableObjectError(TallystickError):
    """The object can never be read as it is."""

    code = "object_unreadable"


@dataclass(frozen=True, slots=True)
class ObjectLimits:
    """Bytes: of an object's content, of one record, of a piece; and records of a piece."""

    object_max: int
    record_max: int
    piece_max: int
    piece_records: int


@dataclass(slots=True)
class Piece:
    """What is committed together: ``(number in the object from 1, record)``, and what is no record."""

    records: list[tuple[int, bytes]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    size: int = 0


class RangeFile(io.RawIOBase):
    """One version of one object as a file. Raises the two errors above; ValueError for a name that the store cannot have."""

    def __init__(self, store: Any, key: str, version: str = "") -> None:
        super().__init__()
        self._store, self._key = store, key
        self._options: dict[str, Any] = {"version": version} if version else {}
        self._at = 0
        meta = self._ask({"head": True}).meta
        self.size = int(meta["size"])
        if meta.get("e_tag"):
            self._options["if_match"] = meta["e_tag"]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self.size)
        if end <= self._at:
            return 0
        data = memoryview(self._fetch(self._at, end))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _fetch(self, start: int, end: int) -> Any:
        try:
            return self._ask({"range": (start, end)}).bytes()
        except BaseError as error:
            raise ObjectUnavailableError(_said(error)) from error

    def _ask(self, options: dict[str, Any]) -> Any:
        try:
            return obstore.get(self._store, self._key, options=cast("Any", {**self._options, **options}))
        except (NotFoundError, FileNotFoundError) as error:
            raise self._gone(error) from error
        except BaseError as error:
            raise ObjectUnavailableError(_said(error)) from error

    def _gone(self, error: Exception) -> TallystickError:
        """Whether the object is gone, or the bucket, which a wrong setting may be the reason of: an answer to HEAD does not say."""
        text = str(error)
        if not any(code in text for code in _GONE):
            try:
                obstore.get(self._store, self._key, options=cast("Any", self._options))
            except (BaseError, FileNotFoundError) as second:
                text = str(second)
        if any(code in text for code in _GONE):
            return ObjectGoneError("there is no such object any more")
        return ObjectUnavailableError(_said(error))


def read_pieces(file: RangeFile, form: Format, limits: ObjectLimits, place: bytes) -> Iterator[Piece]:
    """The object's records in pieces. What is damaged ends as a fault with ``place``, behind the records that were good before it.

    Raises ObjectUnavailableError and ObjectGoneError (pieces that came before may be committed: they come again with the same ids).
    """
    reader = _Reader(limits)
    try:
        yield from reader.read(file, form)
    except UnreadableObjectError as error:
        reader.fault(error.code, error.message, place)
    except _DAMAGE as error:
        reader.fault("object_unreadable", f"after record {reader.count}: {error or type(error).__name__}", place)
    if reader.piece.records or reader.piece.faults:
        yield reader.piece


class _Reader:
    """One object's way into pieces. ``count`` records came out."""

    def __init__(self, limits: ObjectLimits) -> None:
        self.piece = Piece()
        self.count = 0
        self._limits = limits
        self._content = 0

    def read(self, file: RangeFile, form: Format) -> Iterator[Piece]:
        """Whole pieces; the last stays in ``piece``."""
        stored = io.BufferedReader(cast("io.RawIOBase", file), _STORED_BLOCK)
        start = stored.peek(_START)[:_START]
        if form == "parquet" or (form == "auto" and start.startswith(PARQUET_MAGIC)):
            file.seek(0)
            yield from self._take_all(parquet_rows(file, self._limits.object_max, self._limits.piece_records))
            return
        content = _opened(stored, start)
        first = self._next(content)
        blocks = self._blocks(first, lambda: self._next(content))
        if form == "records" or (form == "auto" and is_records(first[:_START])):
            yield from self._take_document(blocks)
        else:
            yield from self._take_lines(blocks)

    def fault(self, code: str, message: str, record: bytes) -> None:
        """Something that is no record, for the quarantine."""
        self.piece.faults.append(Fault(self.count + 1, code, message, record))

    def _blocks(self, first: bytes, next_block: Callable[[], bytes]) -> Iterator[bytes]:
        while first:
            yield first
            first = next_block()

    def _next(self, content: IO[bytes]) -> bytes:
        block = content.read(_BLOCK)
        self._content += len(block)
        if self._content > self._limits.object_max:
            raise UnreadableObjectError(f"its content is longer than {self._limits.object_max} bytes (object_max)")
        return block

    def _take_document(self, blocks: Iterator[bytes]) -> Iterator[Piece]:
        cutter = RecordCutter(self._limits.record_max)
        for block in blocks:
            yield from self._take_all(cutter.feed(block))
        cutter.end()

    def _take_lines(self, blocks: Iterator[bytes]) -> Iterator[Piece]:
        splitter = LineSplitter(0, self._limits.record_max)
        for block in blocks:
            for line in splitter.feed(block):
                yield from self._take_line(line)
        for line in splitter.rest():
            yield from self._take_line(line)

    def _take_line(self, line: Line) -> Iterator[Piece]:
        if line.is_cut:
            self.fault("record_too_large", f"a line of {line.size} bytes; only its beginning is kept (record_max)", line.data)
            self.piece.size += len(line.data)
            self.count += 1
        elif line.data.strip():
            yield from self._take(line.data)
            return
        else:
            self.count += 1
        yield from self._give_full()

    def _take_all(self, records: Iterator[bytes]) -> Iterator[Piece]:
        for record in records:
            yield from self._take(record)

    def _take(self, record: bytes) -> Iterator[Piece]:
        self.count += 1
        self.piece.records.append((self.count, record))
        self.piece.size += len(record)
        yield from self._give_full()

    def _give_full(self) -> Iterator[Piece]:
        full = self.piece
        if full.size >= self._limits.piece_max or len(full.records) >= self._limits.piece_records:
            self.piece = Piece()
            yield full


def _opened(stored: Any, start: bytes) -> IO[bytes]:
    """The content, by what it begins with: names tell less."""
    if start.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stored))
    if start.startswith(_ZSTD):
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
        return cast("IO[bytes]", decompressor.stream_reader(stored, read_across_frames=True))
    return cast("IO[bytes]", stored)


def _said(error: Exception) -> str:
    """The first line of what obstore says; the rest is its innards."""
    return str(error).partition("\n")[0][:500]
