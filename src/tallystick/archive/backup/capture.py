"""What belongs into a backup, taken beside a running server and without stopping it.

The parts of an installation lean on each other: a cursor on the work that it stands for, a head on the tree's leaves, the archive's
marks on its chunks, all of them on the journal. Copied in the wrong order they would describe a state that never was. The order here
is that of leaning, so that what is copied later may be newer but never lacks anything:

1. small state: cursors, sources' places, dead letters, quarantine, reviews … What they stand for is durable already.
2. the journal's segments are opened (a segment that is retired from now on stays readable), and `cursors/numbering`
3. the catalog is asked which chunks are current; chunks, their manifests, and manifests of what has expired
4. signed heads, and of every tree what its last head covers
5. the durable mark, and segments that came since: everything that 1 to 4 name lies before it

Left out: the catalog itself (made anew from the chunks), locks, `run/`, the reserve file, names of unfinished writes. Nothing of
the key directory is ever in it.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from tallystick.archive.backup.objects import PIECE_BYTES
from tallystick.archive.catalog import Catalog
from tallystick.archive.store import ArchiveStore
from tallystick.archive.writer import INTENT
from tallystick.durable import StateFile
from tallystick.errors import IntegrityError, NotFoundError, TransientError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.heads import Head, Heads, HeadState, encode_line
from tallystick.evidence.origin import ROOT, tree_dir
from tallystick.evidence.tile_path import TILE_WIDTH
from tallystick.journal.mark import MARK_BYTES, decode_mark
from tallystick.journal.numbering import NumberingFile
from tallystick.journal.segment import SegmentHeader, list_segments

_ATTEMPTS = 5
_PAUSE_S = 0.5
_NOT_COPIED = frozenset(
    {"run", "locks", "journal", "trees", "archive", "dedupe", "backups", "reserve", "RESTORED", "tenants.a", "tenants.b"}
)
_HASH_BYTES, _ROW_BYTES = 32, 16


class Growth(StrEnum):
    """How a file changes: never under this name, only at its end, or at any place."""

    FIXED = "fixed"
    GROWING = "growing"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a backup: its path below the data directory, its bytes, and ``read(offset, length)``."""

    path: str
    size: int
    growth: Growth
    read: Callable[[int, int], bytes]


@dataclass(slots=True)
class Captured:
    """What one backup holds. ``root``: the root log's last head; ``mark``: the durable seq."""

    parts: list[Part]
    root: Head
    mark: int


class ChangedMeanwhileError(TransientError):
    """The server moved on while it was copied, in a way that needs another look."""

    code = "changed_meanwhile"


def capture(data_dir: Path, archive: ArchiveStore, held: ExitStack) -> Captured:
    """The parts of a consistent backup. Descriptors stay open until ``held`` is closed. Raises IntegrityError, NotFoundError before the first head."""
    for attempt in range(_ATTEMPTS):
        with ExitStack() as trial:
            try:
                captured = _capture(data_dir, archive, trial)
            except (ChangedMeanwhileError, FileNotFoundError):
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(_PAUSE_S)
                continue
            held.push(trial.pop_all())
            return captured
    raise AssertionError("the last attempt returns or raises")


def _capture(data_dir: Path, archive: ArchiveStore, held: ExitStack) -> Captured:
    parts = list(_small_state(data_dir, archive, held))  # 1
    parts += _dedupe(data_dir)
    segments = _Segments(data_dir, held)  # 2
    numbering = _slots(data_dir, "cursors/numbering")
    parts += _archived(data_dir, archive)  # 3
    heads = Heads(data_dir, unpublished=True).state  # 4
    root = heads.heads.get(ROOT)
    if root is None:
        raise NotFoundError("nothing is sealed yet", place=str(data_dir / "trees"), hint="A backup needs a signed root head")
    parts += _trees(data_dir, heads)
    mark, journal = segments.finish()  # 5
    parts += [*journal, *numbering, *_slots(data_dir, "tenants")]
    return Captured(sorted(parts, key=lambda part: part.path), root, mark)


def _small_state(data_dir: Path, archive: ArchiveStore, held: ExitStack) -> Iterator[Part]:
    own_archive = archive.local_path("")
    for path in sorted(data_dir.rglob("*")):
        name = path.relative_to(data_dir)
        if name.parts[0] in _NOT_COPIED or name.parts[0].startswith("catalog.sqlite"):
            continue
        if own_archive is not None and path.is_relative_to(own_archive):
            continue
        if path.is_symlink() or not path.is_file() or path.name.endswith((".tmp", "-wal", "-shm", "-journal")):
            continue
        if name.parts[0] == "cursors" and path.name.rpartition(".")[0] in ("numbering", INTENT):
            continue  # numbering: taken with its segment; the intent names chunks that no backup has
        yield _database(path, str(name), data_dir, held) if path.suffix == ".sqlite" else _file(path, str(name))


def _file(path: Path, name: str) -> Part:
    """A file that may change: small ones are read now, large ones (encrypted logs, which only grow) up to their present end."""
    size = path.stat().st_size
    if size <= PIECE_BYTES:
        return _bytes(name, path.read_bytes())
    return Part(name, size, Growth.STATE, lambda offset, length: _read_at(path, offset, length))


def _bytes(name: str, data: bytes) -> Part:
    return Part(name, len(data), Growth.STATE, lambda offset, length: data[offset : offset + length])


def _database(path: Path, name: str, data_dir: Path, held: ExitStack) -> Part:
    """A database that another process may write: as one of its snapshots has it."""
    (data_dir / "run").mkdir(mode=0o700, exist_ok=True)
    copy = Path(held.enter_context(tempfile.TemporaryDirectory(dir=data_dir / "run", prefix="backup-"))) / path.name
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return Part(name, copy.stat().st_size, Growth.STATE, lambda offset, length: _read_at(copy, offset, length))


def _slots(data_dir: Path, name: str) -> list[Part]:
    """Both slots of a state file."""
    found = []
    for slot in ("a", "b"):
        path = data_dir / f"{name}.{slot}"
        if path.exists():
            found.append(_bytes(f"{name}.{slot}", path.read_bytes()))
    return found


def _dedupe(data_dir: Path) -> Iterator[Part]:
    """The register first, then the runs that it names: they never change, and a merged one is gone (then: once more)."""
    register = StateFile(data_dir / "dedupe" / "runs").load()
    yield from _slots(data_dir, "dedupe/runs")
    for name in msgspec.json.decode(register)["runs"] if register else ():
        path = data_dir / "dedupe" / name
        yield _opened(path, f"dedupe/{name}")


def _opened(path: Path, name: str) -> Part:
    size = path.stat().st_size
    return Part(name, size, Growth.FIXED, lambda offset, length: _read_at(path, offset, length))


def _archived(data_dir: Path, archive: ArchiveStore) -> Iterator[Part]:
    """Current chunks with their manifests, and manifests of chunks that have expired: they say how far the archive went."""
    catalog = Catalog(data_dir / "catalog.sqlite")
    try:
        rows = [row for handle in catalog.marks() for row in catalog.chunks(handle)]
    finally:
        catalog.close()
    stored = dict(archive.sizes())
    chunks = {row.name for row in rows}
    expired = {path for path in stored if path.endswith(".manifest") and path.removesuffix(".manifest") + ".parquet" not in stored}
    manifests = {name.removesuffix(".parquet") + ".manifest" for name in chunks} | expired
    for name in sorted(chunks | manifests):
        if name not in stored:
            # Merged away since the catalog was asked, or gone: the next look tells.
            raise ChangedMeanwhileError("an object that the catalog counts on is not in the archive", place=archive.place(name))
        yield Part(f"archive/{name}", stored[name], Growth.FIXED, _ObjectReader(archive, name).read)


class _ObjectReader:
    """One object of the archive, fetched whole at the first read and let go after the last byte."""

    def __init__(self, archive: ArchiveStore, name: str) -> None:
        self._archive, self._name = archive, name
        self._data = b""

    def read(self, offset: int, length: int) -> bytes:
        if not self._data:
            self._data = self._archive.get(self._name)
        piece = self._data[offset : offset + length]
        if offset + length >= len(self._data):
            self._data = b""
        return piece


def _trees(data_dir: Path, heads: HeadState) -> Iterator[Part]:
    text = b"tallystick.heads/v1 1\n" + b"".join(map(encode_line, heads.lines()))
    yield _bytes("trees/heads", text)
    for name, head in heads.heads.items():
        directory = tree_dir(data_dir, name)
        size, level = head.size, 0
        while size:
            yield _grown(directory / f"level-{level}", data_dir, size * _HASH_BYTES)
            size, level = size // TILE_WIDTH, level + 1
        if name == ROOT or name.endswith("/account"):
            entries = AccountLog(directory, head.size)
            end = entries.end()
            entries.close()
            yield _grown(directory / "entries", data_dir, end)
            yield _grown(directory / "entries.index", data_dir, head.size * _ROW_BYTES)


def _grown(path: Path, data_dir: Path, size: int) -> Part:
    """A file whose first ``size`` bytes never change again."""
    if not path.exists() or path.stat().st_size < size:
        raise IntegrityError("a tree is shorter than its signed head", place=str(path), hint="`tallystick verify` says more")
    name = str(path.relative_to(data_dir))
    return Part(name, size, Growth.GROWING, lambda offset, length: _read_at(path, offset, length))


class _Segments:
    """The journal, from when this object was made to the durable mark at `finish`."""

    def __init__(self, data_dir: Path, held: ExitStack) -> None:
        self._data_dir = data_dir
        self._directory = data_dir / "journal"
        self._held = held
        self._opened: dict[bytes, tuple[Path, SegmentHeader, int]] = {}
        self._damaged: list[Path] = []
        self._open_new()

    def finish(self) -> tuple[int, list[Part]]:
        """The durable mark's seq, and a part for each segment up to it. Raises ChangedMeanwhileError."""
        record = self._read_mark()
        mark = decode_mark(record)
        if mark is None:
            raise IntegrityError("the durable mark cannot be read", place=str(self._directory / "MARK"))
        self._open_new()
        numbering = NumberingFile(self._data_dir).load()
        self._check_chain(numbering[0] if numbering else None)
        ends = {header.previous: header.previous_end for _, header, _ in self._opened.values()}
        parts = [_bytes("journal/MARK", record)]
        for path, header, fd in self._opened.values():
            end = mark.offset if header.uuid == mark.segment else ends.get(header.uuid)
            if end is None:
                continue  # begun after the mark was read: nothing in it belongs to this backup
            parts.append(Part(f"journal/{path.name}", end, Growth.GROWING, _pread(fd)))
        parts += [_file(path, f"journal/{path.name}") for path in self._damaged]
        if not any(header.uuid == mark.segment for _, header, _ in self._opened.values()):
            raise ChangedMeanwhileError("the active segment is not there", place=str(self._directory))
        return mark.seq, parts

    def _open_new(self) -> None:
        listed = list_segments(self._directory)
        self._damaged = listed.unreadable
        for path, header in listed.segments:
            if header.uuid not in self._opened:
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                except FileNotFoundError as error:
                    raise ChangedMeanwhileError("a segment was retired meanwhile", place=str(path)) from error
                self._held.callback(os.close, fd)
                self._opened[header.uuid] = (path, header, fd)

    def _check_chain(self, numbering: bytes | None) -> None:
        """Segments that were opened at both looks must follow each other, unless damage broke the chain before."""
        headers = [header for _, header, _ in self._opened.values()]
        known = {header.uuid for header in headers}
        broken = [header for header in headers[1:] if header.previous not in known]
        if (broken and not self._damaged) or (numbering is not None and numbering not in known):
            raise ChangedMeanwhileError("the journal went on while it was listed", place=str(self._directory))

    def _read_mark(self) -> bytes:
        for _ in range(_ATTEMPTS * 200):
            record = (self._directory / "MARK").read_bytes()[:MARK_BYTES]
            if decode_mark(record) is not None:
                break
        return record


def _pread(fd: int) -> Callable[[int, int], bytes]:
    return lambda offset, length: os.pread(fd, length, offset)


def _read_at(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), length, offset)
