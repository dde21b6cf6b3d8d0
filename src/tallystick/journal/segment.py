"""The segment: one file of the journal, written by one process life under one random key.

Its first 4,096 bytes, one block, are the header; frames follow without gaps; the rest is zero.

    magic "TALLYSEG" | major u16 | minor u16 | uuid 16 | first_seq u64 | epoch u32 | previous uuid 16 | previous end u64
    | wall clock i64 ns | boot id 16 | wrapped key length u16 | wrapped key | zeros | crc32c u32 over all before it

1. The header is the truth. The name, ``<first seq, 20 digits>-<8 hex of the uuid>.seg``, is for people; files with
   swapped names read the same.
2. ``previous uuid`` and ``previous end`` name the segment before it and the offset where that one's valid bytes end;
   whatever lies there beyond is void. Zeros in the first segment. So every end is known once a successor is durable.
3. The key is random, wrapped under the current key generation with the segment's UUID as AAD, and never re-wrapped.
4. A file becomes a segment by rename: a spare (zeros, of full length) gets header and first frames, is synced, and only
   then gets its name. A crash before leaves a spare that the next start removes; no segment without a header exists.
5. A newer major version is refused and nothing is written (FormatRefusedError); unknown minor additions lie in what is
   zero here and are ignored.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import google_crc32c

from tallystick.errors import FormatRefusedError, IntegrityError, UnreadableError

HEADER_BLOCK: Final = 4096
KEY_BYTES: Final = 32
MAJOR: Final = 1
MINOR: Final = 0

_MAGIC = b"TALLYSEG"
_FIELDS = struct.Struct(">8sHH16sQI16sQq16sH")
_CRC = struct.Struct(">I")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class KeyWrapper(Protocol):
    """What the journal needs of `privacy.keys.KeyStore`."""

    def wrap(self, key: bytes, aad: bytes) -> bytes: ...

    def unwrap(self, blob: bytes, aad: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The header block's fields. ``wall_ns`` and ``boot_id`` are data only: no order is taken from them."""

    uuid: bytes
    first_seq: int
    epoch: int
    previous: bytes
    previous_end: int
    wrapped_key: bytes
    wall_ns: int
    boot_id: bytes

    @property
    def name(self) -> str:
        return f"{self.first_seq:020d}-{self.uuid.hex()[:8]}.seg"

    def encode(self) -> bytes:
        """The 4,096-byte block."""
        fields = _FIELDS.pack(
            _MAGIC, MAJOR, MINOR, self.uuid, self.first_seq, self.epoch, self.previous, self.previous_end,
            self.wall_ns, self.boot_id, len(self.wrapped_key),
        )  # fmt: skip
        block = (fields + self.wrapped_key).ljust(HEADER_BLOCK - _CRC.size, b"\0")
        if len(block) != HEADER_BLOCK - _CRC.size:
            raise ValueError(f"a wrapped key of {len(self.wrapped_key)} bytes does not fit the header block")
        return block + _CRC.pack(google_crc32c.value(block))

    @classmethod
    def decode(cls, block: bytes, place: str = "") -> SegmentHeader:
        """Raises FormatRefusedError for a newer major version, IntegrityError for anything that is no whole header."""
        if len(block) != HEADER_BLOCK or not block.startswith(_MAGIC):
            raise IntegrityError("no segment header", place=place)
        body, (crc,) = block[: -_CRC.size], _CRC.unpack_from(block, HEADER_BLOCK - _CRC.size)
        if google_crc32c.value(body) != crc:
            raise IntegrityError("a segment header is damaged", place=place)
        _, major, _, uuid, first_seq, epoch, previous, previous_end, wall_ns, boot_id, length = _FIELDS.unpack_from(body)
        if major > MAJOR:
            raise FormatRefusedError(
                f"journal format {major} is newer than {MAJOR}", place=place, hint="Use the version of Tallystick that wrote it"
            )
        return cls(uuid, first_seq, epoch, previous, previous_end, body[_FIELDS.size : _FIELDS.size + length], wall_ns, boot_id)


def new_header(
    keys: KeyWrapper, key: bytes, *, first_seq: int, epoch: int, previous: bytes = bytes(16), previous_end: int = 0
) -> SegmentHeader:
    """A header with a fresh UUID for a segment under ``key``."""
    uuid = os.urandom(16)
    return SegmentHeader(uuid, first_seq, epoch, previous, previous_end, keys.wrap(key, uuid), time.time_ns(), _boot_id())


def read_header(path: Path) -> SegmentHeader:
    """Raises FileNotFoundError, FormatRefusedError, IntegrityError for a damaged header, UnreadableError when the disk refuses."""
    try:
        with path.open("rb") as file:
            return SegmentHeader.decode(file.read(HEADER_BLOCK), str(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableError(f"a segment header cannot be read: {error.strerror}", place=str(path)) from error


@dataclass(frozen=True, slots=True)
class SegmentList:
    """The segments of a directory in order of the journal, and the files whose header cannot be read; ``failing`` are those of
    them where the disk gave an error, so that the header may be whole."""

    segments: list[tuple[Path, SegmentHeader]]
    unreadable: list[Path]
    failing: list[Path]

    def ends(self) -> dict[bytes, int]:
        """Segment UUID → offset where its valid bytes end, for each one whose successor is here."""
        return {header.previous: header.previous_end for _, header in self.segments}


def list_segments(directory: Path, known: dict[str, SegmentHeader] | None = None) -> SegmentList:
    """Read the headers of all segments; ``known`` (by file name) spares reading again what a caller has read before."""
    segments: list[tuple[Path, SegmentHeader]] = []
    unreadable: list[Path] = []
    failing: list[Path] = []
    for path in sorted(directory.glob("*.seg")):
        header = known.get(path.name) if known else None
        try:
            segments.append((path, header or read_header(path)))
        except FileNotFoundError:
            continue  # retired between the listing and the reading
        except IntegrityError:
            unreadable.append(path)
        except UnreadableError:
            unreadable.append(path)
            failing.append(path)
    return SegmentList(_in_order(segments), unreadable, failing)


def _in_order(segments: list[tuple[Path, SegmentHeader]]) -> list[tuple[Path, SegmentHeader]]:
    """By first seq, which never falls from one segment to the next; those that share it (the earlier ones hold no entry) by who names
    whom as previous. Epochs do not decide: they begin anew when the lock files are lost."""
    ordered: list[tuple[Path, SegmentHeader]] = []
    waiting = sorted(segments, key=lambda item: (item[1].first_seq, item[1].epoch))
    while waiting:
        equals = [item for item in waiting if item[1].first_seq == waiting[0][1].first_seq]
        uuids = {header.uuid for _, header in equals}
        chosen = next((item for item in equals if item[1].previous not in uuids), equals[0])
        ordered.append(chosen)
        waiting.remove(chosen)
    return ordered


def _boot_id() -> bytes:
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)
