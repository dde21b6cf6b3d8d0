"""The durable mark: the highest seq whose frame is known to be synced, in a mapped file of 64 bytes that readers poll.

On disk (big-endian): magic "TSMARK01" | seq u64 | segment uuid 16 | offset u64 | epoch u32 | crc32c u32 over all before it | 16 zeros

1. The writer publishes after each fdatasync returned, never before. Nobody reads beyond the mark.
2. The file is never replaced, so a map stays valid; a reader that meets a half-written record sees a wrong CRC and reads again.
3. The mapped page outlives kill -9 but not a power cut. Then the mark is older than the journal, which costs nothing; a
   mark *newer* than the journal says that acknowledged entries are missing (`recovery`). Mark frames carry it too.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final, NamedTuple

import google_crc32c

from tallystick.durable import preallocate, sync_dir, sync_file

MARK_BYTES: Final = 64
_MAGIC = b"TSMARK01"
_FIELDS = struct.Struct(">8sQ16sQI")
_CRC = struct.Struct(">I")
_READ_AGAIN = 1000


class Mark(NamedTuple):
    """``seq`` 0 means that nothing is durable yet. ``offset``: end of the durable bytes in ``segment`` (a UUID)."""

    seq: int
    segment: bytes
    offset: int
    epoch: int


NO_MARK: Final = Mark(0, bytes(16), 0, 0)


class MarkWriter:
    """The one writer's side of MARK."""

    def __init__(self, directory: Path) -> None:
        path = directory / "MARK"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        status = os.fstat(self._fd)
        if status.st_size < MARK_BYTES or not status.st_blocks:
            # A crash here leaves a short MARK, which reads as none and is filled again. It must have its block before it is
            # mapped: the first touch of a hole, when the disk is full, would end the process.
            preallocate(self._fd, MARK_BYTES)
            sync_dir(directory)
        self._map = mmap.mmap(self._fd, MARK_BYTES)

    def publish(self, mark: Mark) -> None:
        """Let readers go up to ``mark``, whose bytes are synced."""
        fields = _FIELDS.pack(_MAGIC, *mark)
        self._map[: len(fields) + _CRC.size] = fields + _CRC.pack(google_crc32c.value(fields))

    def close(self) -> None:
        """Sync the mark and let go of the file."""
        sync_file(self._fd)
        self._map.close()
        os.close(self._fd)


class MarkReader:
    """A reader's side. The file may appear later than the reader."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "MARK"
        self._map: mmap.mmap | None = None

    def read(self) -> Mark | None:
        """The mark, or None when there is no file or it stays damaged."""
        if self._map is None and not self._open():
            return None
        for attempt in range(_READ_AGAIN):
            mark = decode_mark(self._map[:MARK_BYTES])  # type: ignore[index]
            if mark is not None:
                return mark
            if attempt:
                time.sleep(0)  # let the writer finish its copy
        return None

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    def _open(self) -> bool:
        try:
            with self._path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), MARK_BYTES, prot=mmap.PROT_READ)
        except (FileNotFoundError, ValueError):
            return False
        return True


def decode_mark(record: bytes) -> Mark | None:
    """None when the record is not whole."""
    fields, (crc,) = record[: _FIELDS.size], _CRC.unpack_from(record, _FIELDS.size)
    if google_crc32c.value(fields) != crc:
        return None
    magic, *values = _FIELDS.unpack(fields)
    return Mark(*values) if magic == _MAGIC else None
