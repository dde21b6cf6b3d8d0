"""The frame: one tenant's part of one request, and the smallest thing in the journal that is whole or not there.

On disk (integers big-endian, 58 bytes of header)

    len u32 | crc32c u32 | type u8 | flags u8 | epoch u32 | ordinal u64 | first_seq u64 | handle 16 | first_index u64
    | count u32 | ciphertext | tag 16

1. ``len`` counts the bytes after the crc field. It is checked against ``FRAME_BYTES_MAX`` before anything is allocated.
   Zero means: nothing was ever written here.
2. ``crc32c`` covers segment UUID ‖ everything after the crc field. The UUID is a salt: bytes of another file, or of the
   same disk block in an earlier life, are never a frame of this one. It finds accidents and needs no key.
3. Payload: AES-256-GCM under the segment's key, nonce = ordinal as 12 bytes, AAD = segment UUID ‖ header without len and
   crc. Ordinals count from 0 in each segment, and each segment is written by one process life only, so no nonce repeats.
4. Flag bit 0 marks the last frame of its group, the frames of one request. Recovery keeps whole groups only.
5. ``first_seq`` numbers every entry of the journal from 1; an entry is an event, a quarantined record, a filter count, an
   account entry or a lost leaf. Entry *k* of a frame is ``first_seq + k``. ``first_index`` is the tree index of the
   first event or lost leaf, 0 for other types. ``handle`` is zero bytes where no tenant is meant.

Plaintext of EVENTS: ``u32 length of the dedupe section ‖ dedupe section ‖ zstd(lines joined by LF)``; of the others,
zstd(JSON lines joined by LF), or nothing when there are none. A MARK frame numbers no entry; its ``first_seq`` is the
durable seq + 1 at that time, and its one record names the mark and the tenants of the commit before it (see `commit`).
A LOST frame gives new seqs to lost leaves; with no handle it only declares a span whose tenants are unknown (`recovery`).

Resynchronisation after damage looks for the bytes that every header of a segment shares, ``epoch ‖ upper half of the
ordinal``, and accepts a place only when bounds and CRC hold there.

This file does no IO.
"""

from __future__ import annotations

import enum
import struct
import threading
from dataclasses import dataclass
from typing import Final

import google_crc32c
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.errors import IntegrityError

FRAME_BYTES_MAX: Final = 256 * 2**20
LAST_OF_GROUP: Final = 1
HANDLE_BYTES: Final = 16
TAG_BYTES: Final = 16

_LENGTH = struct.Struct(">I")
_PREFIX = struct.Struct(">II")
_FIELDS = struct.Struct(">BBIQQ16sQI")
_HEADER = struct.Struct(">IIBBIQQ16sQI")
_NO_HANDLE = bytes(HANDLE_BYTES)
_PREFIX_BYTES = _PREFIX.size
_RESYNC_AT = _PREFIX_BYTES + 2
HEADER_BYTES: Final = _HEADER.size
FRAME_BYTES_MIN: Final = HEADER_BYTES + TAG_BYTES
_LENGTH_MIN = FRAME_BYTES_MIN - _PREFIX_BYTES
_LENGTH_MAX = FRAME_BYTES_MAX - _PREFIX_BYTES
_of_thread = threading.local()


class FrameType(enum.IntEnum):
    """What the entries of a frame are. Readers pass over types they do not know."""

    EVENTS = 1
    QUARANTINED = 2
    FILTERED = 3
    ACCOUNT = 4
    LOST = 5
    MARK = 6


@dataclass(slots=True)
class Frame:
    """A frame whose CRC holds. Its payload is opened on demand; ``offset`` and ``size`` are bytes in its segment."""

    type: int
    flags: int
    epoch: int
    ordinal: int
    first_seq: int
    handle: str
    first_index: int
    count: int
    segment: bytes
    offset: int
    size: int
    body: bytes
    cipher: AESGCM | None
    _plain: bytes | None = None

    @property
    def end(self) -> int:
        """Offset of the first byte after this frame."""
        return self.offset + self.size

    @property
    def next_seq(self) -> int:
        """The seq that follows this frame's last entry."""
        return self.first_seq + self.count

    @property
    def is_last_of_group(self) -> bool:
        return bool(self.flags & LAST_OF_GROUP)

    def payload(self) -> bytes:
        """The plaintext. Raises IntegrityError when the AEAD tag does not hold, or no key was given."""
        if self._plain is None:
            if self.cipher is None:
                raise IntegrityError("the segment's key is not open", place=self.place)
            header, sealed = self.body[: _FIELDS.size], self.body[_FIELDS.size :]
            try:
                self._plain = self.cipher.decrypt(self.ordinal.to_bytes(12, "big"), sealed, self.segment + header)
            except InvalidTag as error:
                raise IntegrityError("a journal frame does not open under its key", place=self.place) from error
            self.body = b""
        return self._plain

    def lines(self) -> list[bytes]:
        """The canonical lines of an EVENTS frame, ``count`` of them."""
        return self._split(self.text())

    def text(self) -> bytes:
        """The lines of an EVENTS frame as one text, joined by LF."""
        return _decompressor().decompress(split_payload(self.payload())[1])

    def dedupe_section(self) -> bytes:
        """What dedupe stored beside the lines of an EVENTS frame."""
        return split_payload(self.payload())[0]

    def records(self) -> list[bytes]:
        """The JSON lines of any other frame."""
        payload = self.payload()
        return self._split(_decompressor().decompress(payload)) if payload else []

    @property
    def place(self) -> str:
        return f"segment {self.segment.hex()}, offset {self.offset}"

    def _split(self, text: bytes) -> list[bytes]:
        lines = text.split(b"\n")
        if len(lines) != self.count and self.type not in (FrameType.MARK, FrameType.LOST):
            raise IntegrityError(f"a frame of {self.count} entries holds {len(lines)}", place=self.place)
        return lines


def _decompressor() -> zstandard.ZstdDecompressor:
    """This thread's own: making one costs more than a small frame's content, and two threads cannot share one."""
    found: zstandard.ZstdDecompressor | None = getattr(_of_thread, "decompressor", None)
    if found is None:
        found = _of_thread.decompressor = zstandard.ZstdDecompressor()
    return found


def events_payload(section: bytes, compressed: bytes) -> bytes:
    """Plaintext of an EVENTS frame, from the dedupe section and the compressed lines."""
    return b"".join((_LENGTH.pack(len(section)), section, compressed))


def split_payload(payload: bytes) -> tuple[bytes, bytes]:
    """The inverse of `events_payload`. Raises IntegrityError for bytes that are too short."""
    if len(payload) < _LENGTH.size:
        raise IntegrityError("the plaintext of a frame of events is cut short")
    (length,) = _LENGTH.unpack_from(payload)
    return payload[_LENGTH.size : _LENGTH.size + length], payload[_LENGTH.size + length :]


def frame_bytes(payload: int) -> int:
    """Size in bytes on disk of a frame with ``payload`` bytes of plaintext."""
    return FRAME_BYTES_MIN + payload


class FrameEncoder:
    """Makes the frames of one segment, in order. Each call takes the next ``ordinal``, also when its bytes are never written."""

    def __init__(self, segment: bytes, key: bytes, epoch: int) -> None:
        self._segment = segment
        self._salt = google_crc32c.value(segment)
        self._cipher = AESGCM(key)
        self._epoch = epoch
        self.ordinal = 0

    def encode(
        self,
        kind: FrameType,
        payload: bytes,
        *,
        first_seq: int,
        handle: str = "",
        first_index: int = 0,
        count: int = 0,
        is_last: bool = True,
    ) -> tuple[bytes, bytes]:
        """Header and body to be written one after the other. Raises ValueError for a payload past the bound."""
        if len(payload) > FRAME_BYTES_MAX - FRAME_BYTES_MIN:
            raise ValueError(f"a frame of {len(payload)} bytes is over the bound of {FRAME_BYTES_MAX}")
        ordinal = self.ordinal
        self.ordinal += 1
        name = handle.encode("ascii") if handle else _NO_HANDLE
        flags = LAST_OF_GROUP if is_last else 0
        fields = _FIELDS.pack(kind, flags, self._epoch, ordinal, first_seq, name, first_index, count)
        body = self._cipher.encrypt(ordinal.to_bytes(12, "big"), payload, self._segment + fields)
        crc = google_crc32c.extend(google_crc32c.extend(self._salt, fields), body)
        return _PREFIX.pack(len(fields) + len(body), crc) + fields, body


class Stop(enum.Enum):
    """Why a pass over a buffer ended."""

    MORE = "the buffer ends inside a frame"
    END = "a length of zero: nothing was written here"
    BAD = "no whole frame begins here"


class FrameDecoder:
    """Finds the frames of one segment in bytes. Without ``key`` payloads stay shut, but everything else can be read."""

    def __init__(self, segment: bytes, epoch: int, key: bytes | None = None) -> None:
        self._segment = segment
        self._salt = google_crc32c.value(segment)
        self._cipher = AESGCM(key) if key is not None else None
        self._needle = struct.pack(">II", epoch, 0)

    def decode_run(self, buffer: bytes, at: int, base: int, ordinal: int) -> tuple[list[Frame], int]:
        """All frames from ``buffer[at]`` on that follow one another with rising ordinals above ``ordinal``, and where they end.

        ``base`` is the buffer's offset in the segment. What stops the run, `decode` tells.
        """
        frames = []
        unpack, extend, salt, segment, cipher = _HEADER.unpack_from, google_crc32c.extend, self._salt, self._segment, self._cipher
        last = len(buffer) - FRAME_BYTES_MIN
        while at <= last:
            length, crc, kind, flags, epoch, number, first_seq, name, first_index, count = unpack(buffer, at)
            end = at + _PREFIX_BYTES + length
            if number <= ordinal or length < _LENGTH_MIN or length > _LENGTH_MAX or end > len(buffer):
                break
            body = buffer[at + _PREFIX_BYTES : end]
            if extend(salt, body) != crc:
                break
            handle = "" if name == _NO_HANDLE else name.decode("latin-1")
            frames.append(
                Frame(kind, flags, epoch, number, first_seq, handle, first_index, count, segment, base + at, end - at, body, cipher)
            )
            ordinal = number
            at = end
        return frames, at

    def decode(self, buffer: bytes, at: int, base: int) -> Frame | Stop:
        """The frame at ``buffer[at]``, whatever its ordinal, or why there is none."""
        frames, _ = self.decode_run(buffer[at : at + self._size_at(buffer, at)], 0, base + at, -1)
        if frames:
            return frames[0]
        size = self.claimed_size(buffer, at)
        if isinstance(size, Stop):
            return size
        return Stop.MORE if at + size > len(buffer) else Stop.BAD

    def _size_at(self, buffer: bytes, at: int) -> int:
        size = self.claimed_size(buffer, at)
        return 0 if isinstance(size, Stop) else size

    def claimed_size(self, buffer: bytes, at: int) -> int | Stop:
        """The size in bytes of the frame at ``at`` as its length field claims, bounded; MORE when that is not in the buffer."""
        if at + 4 > len(buffer):
            return Stop.MORE
        (length,) = _LENGTH.unpack_from(buffer, at)
        if length == 0:
            return Stop.END
        return length + _PREFIX_BYTES if _LENGTH_MIN <= length <= _LENGTH_MAX else Stop.BAD

    def candidates(self, buffer: bytes, start: int) -> list[int]:
        """Places at or after ``start`` where a frame of this segment might begin, in order."""
        found = []
        hit = buffer.find(self._needle, start + _RESYNC_AT)
        while hit >= 0:
            found.append(hit - _RESYNC_AT)
            hit = buffer.find(self._needle, hit + 1)
        return found
