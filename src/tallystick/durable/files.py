"""The one fsync seam: every step that a power cut could undo goes through a function here.

Rules that all callers rely on

1. A write is durable only after ``sync_data`` (or ``sync_file``) of the same descriptor returned. A failed sync says
   nothing about the past and a later success on the same descriptor proves nothing: the caller must write elsewhere.
2. A new, renamed or removed name is durable only after ``sync_dir`` of its directory.
3. ``replace_file`` gives readers the old bytes or the new bytes, never a mixture, also after a power cut.

Tests make these steps fail, or remember what was only pending, through ``set_observer``: it is called before each
step with the operation's name, the path (or None) and the descriptor (or -1), and may raise ``OSError``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path

Observer = Callable[[str, Path | None, int], None]

_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL})

_observer: Observer | None = None
_named: set[Path] = set()  # directories whose names this process has synced


def set_observer(observer: Observer | None) -> None:
    """Call ``observer(operation, path, fd)`` before every durable step; None takes it away."""
    global _observer
    _observer = observer


def _observe(operation: str, path: Path | None = None, fd: int = -1) -> None:
    if _observer is not None:
        _observer(operation, path, fd)


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of ``data`` at byte ``offset``, going on after short writes. Raises OSError."""
    _observe("write", None, fd)
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def append_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of ``data`` at the descriptor's end (it was opened with O_APPEND). Raises OSError."""
    _observe("write", None, fd)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_data(fd: int) -> None:
    """fdatasync: the bytes, and the length if it grew, are on the device when this returns."""
    _observe("sync_data", None, fd)
    os.fdatasync(fd)


def sync_file(fd: int) -> None:
    """fsync: as ``sync_data``, with all metadata."""
    _observe("sync_file", None, fd)
    os.fsync(fd)


def sync_dir(path: Path) -> None:
    """fsync a directory, so that names made, moved or removed in it stay so."""
    _observe("sync_dir", path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dir(path: Path) -> None:
    """Make a directory (0700) and its parents, and sync each parent that gained a name.

    One that is there already may be the work of a process that was killed before it synced the name: its parent is synced
    too, once in the life of this process.
    """
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    if path not in _named:
        try:
            sync_dir(path.parent)
        except OSError as error:
            if error.errno not in _NOT_OURS:  # then somebody else has made it
                raise
        _named.add(path)
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_dir(directory.parent)
        _named.add(directory)


def preallocate(fd: int, size: int) -> None:
    """Fill a new file with ``size`` zero bytes and sync it, so that later appends change no metadata."""
    _observe("preallocate", None, fd)
    os.posix_fallocate(fd, 0, size)
    os.fsync(fd)


def truncate(fd: int, size: int) -> None:
    """Cut or extend a file to ``size`` bytes and sync it."""
    _observe("truncate", None, fd)
    os.ftruncate(fd, size)
    os.fsync(fd)


def unlink(path: Path, *, missing_ok: bool = True) -> None:
    """Remove a name and sync its directory. What needs the file must have been persisted before."""
    _observe("unlink", path)
    path.unlink(missing_ok=missing_ok)
    sync_dir(path.parent)


def unlink_all(paths: Iterable[Path]) -> None:
    """`unlink` for names of one directory, with one sync behind them all; those that are gone already are passed over."""
    directories = set()
    for path in paths:
        _observe("unlink", path)
        path.unlink(missing_ok=True)
        directories.add(path.parent)
    for directory in directories:
        sync_dir(directory)


def rename(source: Path, target: Path) -> None:
    """Give a synced file its name, in the same directory and in one step, durably. Raises OSError."""
    _observe("rename", target)
    os.replace(source, target)
    sync_dir(target.parent)


def write_new(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Create a file that must not exist, with ``data``, durably. Raises FileExistsError."""
    _observe("write_new", path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        append_all(fd, data)
        sync_file(fd)
    finally:
        os.close(fd)
    sync_dir(path.parent)


def publish_new(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put ``data`` under a name that must not exist, durably and in one step: readers see all of it or no file.

    A crash before the link leaves a stray temporary file (``.<name>.tmp-<pid>``) and no name; one after it, the whole file.
    Raises FileExistsError, after a sync of the directory: the name may be that of an attempt that did not come so far.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        append_all(fd, data)
        sync_file(fd)
        _observe("link", path)
        os.link(temporary, path)
    finally:
        os.close(fd)
        temporary.unlink(missing_ok=True)
        sync_dir(path.parent)


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put ``data`` under ``path`` durably and in one step (temp file, fsync, rename, fsync of the directory).

    A crash before the rename leaves the old bytes and a stray ``.tmp`` that the next call overwrites.
    """
    _replace(path, data, mode, is_durable=True)


def replace_volatile(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """As ``replace_file`` but without any sync: for status pages and the like that a restart makes anew."""
    _replace(path, data, mode, is_durable=False)


def _replace(path: Path, data: bytes, mode: int, *, is_durable: bool) -> None:
    temporary = path.with_name(path.name + ".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        append_all(fd, data)
        if is_durable:
            sync_file(fd)
    finally:
        os.close(fd)
    if is_durable:
        _observe("rename", path)
    os.replace(temporary, path)
    if is_durable:
        sync_dir(path.parent)
