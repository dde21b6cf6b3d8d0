"""Destination `file`: cuts appended to one file, exactly once.

How exactly-once works: ``Cut.after`` says where the cut settled last ended (inode and offset), so this cut's bytes belong
right there. Writing is therefore a positioned write that may be repeated at will; a retry and a restart do the same as the
first attempt. Cases, by what is found beyond that offset (``tail``):

1. nothing: the ordinary case; write and sync.
2. a beginning of this cut, or this cut and more: an attempt whose end we did not see. The bytes are written again at their
   place (so that they are synced by *this* attempt: a failed sync says nothing about pages written before), nothing is cut.
3. other bytes: somebody wrote into the file, or it was damaged. They are copied to ``<path>.salvage``, then cut off.

Rotation: when the name leads to another inode than ``after`` says, the file was moved away (logrotate). Then the moved file is looked
for by its inode in the same directory: a whole cut found there at its place is done; part of one is cut off there; the
new file begins with the cut. A file that shrank below the offset (copytruncate) counts as new. Rotated files that are compressed or
moved to another directory at the very moment of a crash cannot be looked into (docs/destinations/file.md).

The file settles only after fsync, and after fsync of its directory when it is new.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mmap
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from tallystick.config import DestinationSettings
from tallystick.destinations.encodings import EncodingSettings
from tallystick.durable import append_all, make_dir, sync_data, sync_dir, sync_file, truncate, write_all
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut

_WHERE = re.compile(r"file:(?P<path>.*)#inode=(?P<inode>\d+)&offset=(?P<offset>\d+)&length=(?P<length>\d+)", re.DOTALL)
_PARKING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_BLOCK = 1 << 20


class FileSettings(EncodingSettings, frozen=True, kw_only=True):
    """`type = "file"`"""

    path: Annotated[str, Meta(description="The file; relative to the configuration file. Its directory must exist or be makeable.")]

    def rooted(self, base_dir: Path) -> FileSettings:
        return msgspec.structs.replace(self, path=str(base_dir / self.path))


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where the last settled bytes ended."""

    inode: int
    end: int


class FileDestination:
    """Lines in one local file."""

    settings: ClassVar[type[DestinationSettings]] = FileSettings
    guarantee: ClassVar[str] = "exactly once"
    window: ClassVar[int] = 1
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=20_000, max_bytes=16 << 20, max_age_s=0.25)
    answers: ClassVar[dict[str, str]] = {
        "written and synced": "delivered",
        "ENOSPC, EDQUOT, EFBIG, EIO and other errors": "retry: written again at the same offset",
        "EACCES, EPERM, EROFS, EISDIR, ENOTDIR, ELOOP, ENAMETOOLONG": "park: probed until the path can be written",
        "other bytes after the settled offset": "delivered; those bytes are first copied to <path>.salvage",
    }

    def __init__(self, name: str, settings: FileSettings) -> None:
        self.name = name
        self.encoder = settings.make_encoder()
        self._path = Path(settings.path)
        self._named_inode = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"file-{name}")

    def place(self, cut: Cut) -> str:
        return ""

    async def find(self, place: str, sha256: str) -> bool | None:
        return None

    async def send(self, cut: Cut) -> Answer:
        return await self._in_thread(lambda: self._send(cut))

    async def probe(self) -> Answer:
        return await self._in_thread(self._probe)

    async def close(self) -> None:
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OSError as error:
            kind = AnswerKind.PARK if error.errno in _PARKING else AnswerKind.RETRY
            return Answer(kind, reason=f"{errno.errorcode.get(error.errno or 0, 'OSError')}: {error.strerror}: {self._path}")

    def _probe(self) -> Answer:
        with self._open():
            return Answer(AnswerKind.DELIVERED, where=str(self._path))

    def _send(self, cut: Cut) -> Answer:
        mark = _parse_where(cut.after)
        with self._open() as fd:
            inode = os.fstat(fd).st_ino
            start = self._find_start(fd, inode, mark, cut.body)
            if start is None:
                return self._answer(mark.inode if mark else 0, mark.end if mark else 0, len(cut.body))
            self._clear_tail(fd, start, cut.body)
            write_all(fd, cut.body, start)
            # A crash before this returns: the bytes may be there in part. The cut is open, and is written again here.
            sync_data(fd)
            return self._answer(inode, start, len(cut.body))

    def _answer(self, inode: int, start: int, length: int) -> Answer:
        return Answer(AnswerKind.DELIVERED, where=f"file:{self._path}#inode={inode}&offset={start}&length={length}")

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        """The file under the path as it is now: opened anew for each cut, so that rotation is seen and a failed descriptor is gone."""
        make_dir(self._path.parent)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            inode = os.fstat(fd).st_ino
            if inode != self._named_inode:
                # A crash before this: no file, or one whose name is not durable yet. Each process syncs the name once, whoever made it.
                sync_dir(self._path.parent)
                self._named_inode = inode
            yield fd
        finally:
            os.close(fd)

    def _find_start(self, fd: int, inode: int, mark: _Mark | None, body: bytes) -> int | None:
        """Where the cut belongs in the open file; None when it was found whole in the file rotated away."""
        size = os.fstat(fd).st_size
        if mark is None:
            return _find_beginning(fd, size, body)
        if inode == mark.inode and size >= mark.end:
            return mark.end
        if inode != mark.inode and self._settle_rotated(mark, body):
            return None
        return _find_beginning(fd, size, body)

    def _settle_rotated(self, mark: _Mark, body: bytes) -> bool:
        """True when the file rotated away holds the whole cut at its place; a part of it is cut off there."""
        for entry in os.scandir(self._path.parent):
            if entry.inode() != mark.inode or not entry.is_file(follow_symlinks=False):
                continue
            fd = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                tail = _read(fd, mark.end, len(body))
                if tail == body:
                    write_all(fd, body, mark.end)
                    sync_data(fd)
                    return True
                if tail and body.startswith(tail):
                    # A crash here or right after: the cut is open still, and is written whole to the new file.
                    truncate(fd, mark.end)
            finally:
                os.close(fd)
        return False

    def _clear_tail(self, fd: int, start: int, body: bytes) -> None:
        """Cases 1 to 3: leaves either nothing or this cut's own bytes after ``start``."""
        tail = _read(fd, start, len(body))
        if body.startswith(tail):
            return
        salvage = os.open(self._path.with_name(self._path.name + ".salvage"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            offset = start
            while block := _read(fd, offset, _BLOCK):
                append_all(salvage, block)
                offset += len(block)
            sync_file(salvage)
            sync_dir(self._path.parent)
        finally:
            os.close(salvage)
        # A crash before this: the copy may be made twice; nothing is lost.
        truncate(fd, start)


def _parse_where(where: str) -> _Mark | None:
    match = _WHERE.fullmatch(where)
    return _Mark(int(match["inode"]), int(match["offset"]) + int(match["length"])) if match else None


def _read(fd: int, offset: int, length: int) -> bytes:
    """Up to ``length`` bytes at ``offset``, fewer only at the end of the file."""
    parts = []
    while length > 0 and (part := os.pread(fd, length, offset)):
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


def _find_beginning(fd: int, size: int, body: bytes) -> int:
    """Where the cut begins in a file that has no settled bytes of ours: where an earlier attempt began, else at the end.

    Each line names its tenant and the event's id, whatever its encoding, so a beginning of the cut is recognised by its first line,
    wherever it stands: later cuts of the same round may have been written behind it before a crash. When that first
    line itself is torn, it is the file's unfinished last line.
    """
    first_line = body[: body.index(b"\n") + 1]
    at = _find_last(fd, size, first_line)
    if at >= 0:
        return at
    base = max(0, size - len(first_line))
    tail = _read(fd, base, len(first_line))
    at = tail.rfind(b"\n") + 1
    if at < len(tail) and first_line.startswith(tail[at:]):
        return base + at
    if tail and not tail.endswith(b"\n"):
        # Somebody's unfinished line: closed first, so that it does not swallow ours. A repeat finds it closed.
        write_all(fd, b"\n", size)
        return size + 1
    return size


def _find_last(fd: int, size: int, line: bytes) -> int:
    """The last place of ``line`` in the file, -1 when it is nowhere. Pages are looked at from the end, never all held."""
    if not size:
        return -1
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as view:
        return view.rfind(line)
