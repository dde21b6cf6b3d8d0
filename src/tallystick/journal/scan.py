"""Reading a segment's frames in order, and going on behind damage. Recovery and readers share this one path.

1. Frames are read in blocks, never a whole segment at once; a frame larger than a block is read alone.
2. A place that holds no frame is read once more, past the page cache, before it is believed.
3. Behind damage the next frame is searched (`frame.FrameDecoder.candidates`). Ordinals rise along a segment, so a whole
   frame that was copied here from elsewhere in the file is refused: one from an earlier place by its ordinal; one from a
   later place because the frames after the damage then go backwards.
4. A range that cannot be read (EIO) looks like damage, page by page; the rest of the segment stays readable. ``unreadable``
   says that it was no more than that: the bytes may be whole, and the caller tries again before it believes in damage.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tallystick.journal.frame import HEADER_BYTES, Frame, FrameDecoder, Stop
from tallystick.journal.segment import SegmentHeader

BLOCK_BYTES: Final = 8 * 2**20
_PAGE = 4096
_FOLLOW_MAX = 256


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes ``start`` to ``end`` (exclusive) of a segment that hold no whole frame."""

    start: int
    end: int


def written_range(fd: int, start: int, limit: int) -> tuple[int, int]:
    """The next range of written bytes at or after ``start`` as the file system knows it; empty at ``limit`` when there is none.

    Zeros that were only reserved are passed over without being read.
    """
    try:
        first = min(os.lseek(fd, start, os.SEEK_DATA), limit)
        return first, min(os.lseek(fd, first, os.SEEK_HOLE), limit)
    except OSError:
        return limit, limit  # ENXIO: nothing written behind ``start``


def written_end(path: Path, start: int) -> int:
    """Offset behind the last byte at or after ``start`` that is not zero; ``start`` when there is none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        last, limit = start, os.fstat(fd).st_size
        at, end = written_range(fd, start, limit)
        while at < limit:
            block = os.pread(fd, min(BLOCK_BYTES, end - at), at)
            written = len(block.rstrip(b"\0"))
            last = at + written if written else last
            at += max(len(block), 1)
            if at >= end:
                at, end = written_range(fd, end, limit)
        return last
    finally:
        os.close(fd)


class SegmentScanner:
    """Reads the frames of one open segment. ``key`` opens payloads; without it only headers can be used."""

    def __init__(self, fd: int, header: SegmentHeader, key: bytes | None = None) -> None:
        self._fd = fd
        self._decoder = FrameDecoder(header.uuid, header.epoch, key)
        self.unreadable: OSError | None = None
        self._end = 0
        self._ordinal = -1
        # Blocks are large enough without read-ahead; pages read ahead would count as written in `written_range`.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, offset: int, limit: int, bytes_max: int = BLOCK_BYTES) -> tuple[list[Frame | Gap], int]:
        """Frames and gaps from ``offset``, at least one when ``offset < limit``, and the offset to go on from.

        ``limit`` is where valid bytes end. At most about ``bytes_max`` bytes are read, or one frame if it is larger.
        Afterwards ``unreadable`` is the first read error that it met, or None.
        """
        self.unreadable = None
        if offset != self._end:
            self._ordinal = -1
        items: list[Frame | Gap] = []
        buffer = self._pread(offset, min(bytes_max, limit - offset))
        at = 0
        while at < len(buffer):
            frames, at = self._decoder.decode_run(buffer, at, offset, self._ordinal)
            if frames:
                items += frames
                self._ordinal = frames[-1].ordinal
                continue
            if items and self._decoder.decode(buffer, at, offset) is Stop.MORE:
                break
            found = self._read_again(offset + at, limit)
            if not isinstance(found, Frame):
                gap = Gap(offset + at, self._resynchronise(offset + at, limit))
                items.append(gap)
                at = gap.end - offset
                break
            items.append(found)
            self._ordinal = found.ordinal
            at += found.size
        self._end = offset + at
        return items, self._end

    def _decode(self, buffer: bytes, at: int, base: int) -> Frame | Stop:
        found = self._decoder.decode(buffer, at, base)
        if isinstance(found, Frame) and found.ordinal <= self._ordinal:
            return Stop.BAD
        return found

    def _read_again(self, place: int, limit: int) -> Frame | Stop:
        """The frame at ``place``, from the device rather than the page cache where the kernel allows."""
        os.posix_fadvise(self._fd, place, min(BLOCK_BYTES, limit - place), os.POSIX_FADV_DONTNEED)
        return self._frame_at(place, limit)

    def _frame_at(self, place: int, limit: int) -> Frame | Stop:
        size = self._decoder.claimed_size(self._pread(place, min(HEADER_BYTES, limit - place)), 0)
        if isinstance(size, Stop) or place + size > limit:
            return Stop.BAD
        return self._decode(self._pread(place, size), 0, place)

    def _resynchronise(self, place: int, limit: int) -> int:
        """The offset of the first frame behind ``place`` that belongs there, or ``limit``."""
        found = self._next_frame(place + 1, limit)
        while found is not None:
            last, broken_at = self._follow(found, limit)
            later = self._next_frame(broken_at + 1, limit) if broken_at < limit else None
            if later is None or later.ordinal > last:
                return found.offset
            found = later
        return limit

    def _follow(self, frame: Frame, limit: int) -> tuple[int, int]:
        """Ordinal of the last frame in an unbroken run from ``frame``, and where the run breaks (``limit``: it does not)."""
        for _ in range(_FOLLOW_MAX):
            following = self._frame_at(frame.end, limit) if frame.end < limit else None
            if not isinstance(following, Frame) or following.ordinal <= frame.ordinal:
                return frame.ordinal, frame.end
            frame = following
        return frame.ordinal, limit

    def _next_frame(self, start: int, limit: int) -> Frame | None:
        start, end = written_range(self._fd, start, limit)
        while start < limit:
            # Not a byte past ``end``: touching a page of reserved zeros would make it count as written.
            window = self._pread(start, min(BLOCK_BYTES + HEADER_BYTES, end - start))
            for at in self._decoder.candidates(window, 0):
                found = self._decode(window, at, start)
                if found is Stop.MORE:
                    found = self._frame_at(start + at, limit)
                if isinstance(found, Frame):
                    return found
            start += BLOCK_BYTES
            if start >= end:
                start, end = written_range(self._fd, end, limit)
        return None

    def _pread(self, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._fd, size, offset)
        except OSError as error:
            self.unreadable = self.unreadable or error
            return b"".join(self._pread_page(at, min(_PAGE, offset + size - at)) for at in range(offset, offset + size, _PAGE))
        while len(data) < size:
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                return data.ljust(size, b"\0")  # a cut file reads as zeros, which are no frame
            data += more
        return data

    def _pread_page(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset).ljust(size, b"\0")
        except OSError:
            return bytes(size)
