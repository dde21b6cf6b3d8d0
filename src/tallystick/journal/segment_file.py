"""The segment being written: made from a spare, appended to, given up when a write or sync fails.

A spare is `journal/spare-<16 hex>.tmp`, zeros of full length, prepared in the background so that rotation does not stall.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tallystick.durable import preallocate, rename, sync_data, unlink, write_all
from tallystick.journal.segment import SegmentHeader
from tallystick.telemetry import log

SPARE_PATTERN = "spare-*.tmp"


@dataclass(slots=True)
class Spare:
    """A preallocated file without a header; ``size`` in bytes."""

    path: Path
    fd: int
    size: int

    def discard(self) -> None:
        """Close and remove it. Raises OSError."""
        os.close(self.fd)
        unlink(self.path)


def make_spare(directory: Path, size: int) -> Spare:
    """A new file of ``size`` zero bytes, synced. Raises OSError, and then leaves none behind if it can."""
    path = directory / f"spare-{secrets.token_hex(8)}.tmp"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    spare = Spare(path, fd, size)
    try:
        preallocate(fd, size)
    except OSError:
        _discard_quietly(spare)
        raise
    return spare


class LeftoverError(OSError):
    """A segment that was not to be has its name and cannot be removed: only a restart, which reads it, may go on."""


class SegmentFile:
    """An open segment. ``end`` is the offset up to which its bytes are known to be durable."""

    def __init__(self, header: SegmentHeader, path: Path, fd: int, size: int, end: int) -> None:
        self.header = header
        self.path = path
        self.size = size
        self.end = end
        self._fd = fd
        self._written_to = end

    @classmethod
    def create(cls, spare: Spare, header: SegmentHeader, frames: Sequence[bytes]) -> SegmentFile:
        """Turn a spare into a segment that begins with ``frames``, all durable on return. Raises OSError.

        A crash before the rename leaves a spare, which the next start removes: nothing in it was acknowledged. After
        a failure the file is removed, so that it can never be taken for a segment; LeftoverError says that it may be.
        """
        data = b"".join((header.encode(), *frames))
        path = spare.path.with_name(header.name)
        try:
            write_all(spare.fd, data, 0)
            sync_data(spare.fd)
            rename(spare.path, path)
        except OSError as error:
            _discard_quietly(spare, path)
            if _may_be_there(path):
                raise LeftoverError(f"{path.name} is left over") from error
            raise
        return cls(header, path, spare.fd, spare.size, len(data))

    @property
    def room(self) -> int:
        """Bytes that still fit."""
        return self.size - self.end

    def append(self, frames: Sequence[bytes]) -> float:
        """Write ``frames`` at the end and sync. Returns the seconds that the sync took. Raises OSError: then the file is suspect.

        A crash before the sync returned loses only what was not acknowledged; `recovery` cuts it off as a torn tail.
        """
        data = b"".join(frames)
        self._written_to = self.end + len(data)
        write_all(self._fd, data, self.end)
        started = time.monotonic()
        sync_data(self._fd)
        self.end += len(data)
        return time.monotonic() - started

    def give_up(self) -> None:
        """Close a suspect file, and zero what is behind its durable end, so that a restart does not take up what was refused.

        Those bytes are void anyway once a successor names ``end``; a failure here changes nothing.
        """
        try:
            write_all(self._fd, bytes(self._written_to - self.end), self.end)
        except OSError as error:
            log.warning("journal_suspect_bytes_left", segment=self.path.name, error=str(error))
        finally:
            self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what counts was synced before
            os.close(self._fd)


def remove_spares(directory: Path) -> None:
    """Remove what a crash left; called by the writer before it makes its first."""
    for path in directory.glob(SPARE_PATTERN):
        unlink(path)


def _discard_quietly(spare: Spare, renamed: Path | None = None) -> None:
    os.close(spare.fd)
    for path in (spare.path, renamed):
        try:
            if path is not None:
                unlink(path)
        except OSError:
            continue  # `remove_spares` tries again at the next start


def _may_be_there(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
