"""Encrypted append-only log in one file: quarantine and dead letters (docs/formats/state-files.md).

On disk the file is a run of *parts*, each begun by a header with a key of its own, written twice in a row so that one
flipped bit does not cost the part:

    part header   magic "TSELOG1\\n" | length u32 | crc32c u32 | part id 16 | first ordinal u64 | wrapped key
                  crc over everything after it; length is the whole header's, in bytes
    record        magic "TSr1" | length u32 | crc32c u32 | ordinal u64 | ciphertext and tag
                  crc over part id ‖ length ‖ ordinal ‖ ciphertext; length is the ciphertext's and tag's, in bytes

All numbers are big endian. AES-256-GCM, nonce = ordinal (12 bytes), AAD = "ts-elog1" ‖ 0 ‖ purpose ‖ 0 ‖ part id.

Rules

1. Every process that appends begins a new part, and so does every append after a failed one. A nonce is therefore never
   used twice with one key, even when bytes that reached the disk are lost, cut or restored from an older copy.
2. `append` returns after fdatasync; what it returned is never cut again. A failed append is cut off and may be repeated.
3. The first append of a process repairs the tail: bytes after the last whole record are copied to `<path>.torn`, synced,
   then cut. A crash at any step of this repeats it; the copy may then hold the same bytes twice.
4. Readers never change the file. A torn tail looks like the end to them. Damage before the end is skipped up to the
   next whole record, reported once in the log and kept in ``damage``; other records are unharmed.
5. An append of several records is not atomic: a crash may keep some of them, unacknowledged; a power cut may leave a hole
   between them, which reads as damage. Repeating the append gives duplicates, never loss.
"""

from __future__ import annotations

import os
import re
import secrets
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.durable import append_all, make_dir, sync_data, sync_dir, truncate
from tallystick.privacy.keys import KeyStore
from tallystick.telemetry import log

_PART_MAGIC = b"TSELOG1\n"
_RECORD_MAGIC = b"TSr1"
_PART_HEAD = struct.Struct(">8sII16sQ")
_RECORD_HEAD = struct.Struct(">4sIIQ")
_SALTED = struct.Struct(">IQ")
_RECORD_MAX = 64 << 20
_SCAN_SIZE = 1 << 20
_MAGICS = re.compile(re.escape(_PART_MAGIC) + b"|" + _RECORD_MAGIC)


@dataclass(frozen=True)
class Damage:
    """Bytes [start, end) of the file that hold no whole record; ordinals from ``first_ordinal`` on may have been there."""

    start: int
    end: int
    first_ordinal: int


@dataclass(frozen=True)
class _Part:
    """One part's header: its id, its key as wrapped by the key store, and where the header ends."""

    id: bytes
    first_ordinal: int
    wrapped: bytes
    end: int


@dataclass(frozen=True)
class _Record:
    """One whole record, still encrypted, at bytes [start, end)."""

    part: _Part
    ordinal: int
    ciphertext: bytes
    start: int
    end: int


class EncryptedLog:
    """One log file. One process appends; any process that has the key store reads. ``purpose`` is bound into every record."""

    def __init__(self, path: Path, keys: KeyStore, purpose: str) -> None:
        self.path = path
        self.damage: list[Damage] = []
        self._keys = keys
        self._aad = b"ts-elog1\x00" + purpose.encode() + b"\x00"
        self._lock = threading.Lock()
        self._fd = -1
        self._end = 0
        self._next = 0
        self._has_suspect_tail = False
        self._part: tuple[bytes, AESGCM] | None = None

    def append(self, records: list[bytes]) -> list[int]:
        """Store records durably; returns their ordinals. Raises OSError; then none of them counts and all may be sent again."""
        with self._lock:
            if self._fd < 0:
                self._open_for_append()
            try:
                return self._append(records)
            except OSError:
                self._give_up()
                raise

    def read(self, from_ordinal: int = 0) -> Iterator[tuple[int, bytes]]:
        """Records from an ordinal on, in order, up to what is whole now. Raises KeysMissingError, IntegrityError (a part's key)."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            cipher: tuple[bytes, AESGCM] | None = None
            for record in _scan(file, self._report):
                if record.ordinal < from_ordinal:
                    continue
                if cipher is None or cipher[0] != record.part.id:
                    cipher = (record.part.id, AESGCM(self._keys.unwrap(record.part.wrapped, self._aad + record.part.id)))
                try:
                    nonce = record.ordinal.to_bytes(12, "big")
                    yield record.ordinal, cipher[1].decrypt(nonce, record.ciphertext, self._aad + cipher[0])
                except InvalidTag:
                    self._report(Damage(record.start, record.end, record.ordinal))

    def close(self) -> None:
        """Close the descriptor; the next append opens it again."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd, self._part = -1, None

    def _append(self, records: list[bytes]) -> list[int]:
        data = bytearray()
        if self._part is None:
            self._part, header = self._begin_part()
            data += header * 2
        part_id, cipher = self._part
        first = self._next
        for ordinal, record in enumerate(records, first):
            ciphertext = cipher.encrypt(ordinal.to_bytes(12, "big"), record, self._aad + part_id)
            data += _RECORD_HEAD.pack(_RECORD_MAGIC, len(ciphertext), _record_crc(part_id, ordinal, ciphertext), ordinal)
            data += ciphertext
        append_all(self._fd, data)
        # A crash before this line: the records may or may not be there, and the caller was told nothing.
        sync_data(self._fd)
        self._end += len(data)
        self._next += len(records)
        return list(range(first, self._next))

    def _begin_part(self) -> tuple[tuple[bytes, AESGCM], bytes]:
        part_id, key = secrets.token_bytes(16), secrets.token_bytes(32)
        header = _encode_part(part_id, self._next, self._keys.wrap(key, self._aad + part_id))
        return (part_id, AESGCM(key)), header

    def _open_for_append(self) -> None:
        make_dir(self.path.parent)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # A crash before this: no file, or an empty one; nothing was acknowledged. Also when it was there: whoever made it
            # may not have come so far.
            sync_dir(self.path.parent)
            if self._has_suspect_tail:
                # Whole-looking records that a failed sync may have left in memory only must not be taken for stored.
                truncate(fd, self._end)
                self._has_suspect_tail = False
            self._repair_tail(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._part = fd, None

    def _repair_tail(self, fd: int) -> None:
        """Rule 3. Also syncs what it keeps: another process's last append may not have come to its sync."""
        with self.path.open("rb") as file:
            end, next_ordinal = _find_end(file)
            file.seek(end)
            torn = file.read()
        if torn:
            self._keep_torn(torn)
            truncate(fd, end)
            log.warning("torn tail of an encrypted log cut off", path=str(self.path), offset=end, bytes=len(torn))
        sync_data(fd)
        self._end, self._next = end, next_ordinal

    def _keep_torn(self, torn: bytes) -> None:
        path = self.path.with_name(self.path.name + ".torn")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            append_all(fd, torn)
            sync_data(fd)
        finally:
            os.close(fd)
        sync_dir(path.parent)

    def _give_up(self) -> None:
        """After a failed append: cut back to the last acknowledged byte; whatever happens, begin anew with a new key."""
        self._has_suspect_tail = True
        try:
            truncate(self._fd, self._end)
            self._has_suspect_tail = False
        except OSError as error:
            log.error("a failed append could not be cut off; the next one tries again", path=str(self.path), error=str(error))
        os.close(self._fd)
        self._fd, self._part = -1, None

    def _report(self, damage: Damage) -> None:
        if damage not in self.damage:
            self.damage.append(damage)
            log.error("damaged bytes in an encrypted log", path=str(self.path), start=damage.start, end=damage.end)


def _encode_part(part_id: bytes, first_ordinal: int, wrapped: bytes) -> bytes:
    tail = part_id + first_ordinal.to_bytes(8, "big") + wrapped
    length = _PART_HEAD.size + len(wrapped)
    return _PART_MAGIC + struct.pack(">II", length, google_crc32c.value(tail)) + tail


def _record_crc(part_id: bytes, ordinal: int, ciphertext: bytes) -> int:
    crc: int = google_crc32c.value(part_id + _SALTED.pack(len(ciphertext), ordinal) + ciphertext)
    return crc


def _scan(
    file: BinaryIO, report: Callable[[Damage], None], ended: Callable[[int, int], None] = lambda _end, _next: None
) -> Iterator[_Record]:
    """Whole records in file order. ``ended`` gets the end of the last whole item and the next free ordinal."""
    position, next_ordinal = 0, 0
    part: _Part | None = None
    while True:
        item = _read_part(file, position) or (part and _read_record(file, position, part, next_ordinal))
        if item is None:
            found = _find_next(file, position + 1, part, next_ordinal)
            if found is None:
                break
            report(Damage(position, found, next_ordinal))
            position = found
        elif isinstance(item, _Record):
            yield item
            position, next_ordinal = item.end, item.ordinal + 1
        else:
            part, position, next_ordinal = item, item.end, max(next_ordinal, item.first_ordinal)
    ended(position, next_ordinal)


def _read_part(file: BinaryIO, position: int) -> _Part | None:
    file.seek(position)
    head = file.read(_PART_HEAD.size)
    if len(head) < _PART_HEAD.size or not head.startswith(_PART_MAGIC):
        return None
    _magic, length, crc, part_id, first_ordinal = _PART_HEAD.unpack(head)
    if not _PART_HEAD.size < length <= _PART_HEAD.size + 4096:
        return None
    wrapped = file.read(length - _PART_HEAD.size)
    if len(wrapped) != length - _PART_HEAD.size or google_crc32c.value(head[16:] + wrapped) != crc:
        return None
    return _Part(part_id, first_ordinal, wrapped, position + length)


def _read_record(file: BinaryIO, position: int, part: _Part, ordinal_min: int) -> _Record | None:
    file.seek(position)
    head = file.read(_RECORD_HEAD.size)
    if len(head) < _RECORD_HEAD.size or not head.startswith(_RECORD_MAGIC):
        return None
    _magic, length, crc, ordinal = _RECORD_HEAD.unpack(head)
    if not 16 <= length <= _RECORD_MAX or ordinal < ordinal_min:
        return None
    ciphertext = file.read(length)
    if len(ciphertext) != length or _record_crc(part.id, ordinal, ciphertext) != crc:
        return None
    return _Record(part, ordinal, ciphertext, position, position + _RECORD_HEAD.size + length)


def _find_next(file: BinaryIO, position: int, part: _Part | None, ordinal_min: int) -> int | None:
    """Offset of the next whole part header or record at or after ``position``, or None when there is none."""
    overlap = len(_PART_MAGIC) - 1
    while True:
        file.seek(position)
        block = file.read(_SCAN_SIZE)
        for match in _MAGICS.finditer(block):
            at = position + match.start()
            if _read_part(file, at) or (part and _read_record(file, at, part, ordinal_min)):
                return at
        if len(block) < _SCAN_SIZE:
            return None
        position += len(block) - overlap


def _find_end(file: BinaryIO) -> tuple[int, int]:
    """End of the last whole item (bytes) and the next free ordinal."""
    found = [(0, 0)]
    for _record in _scan(file, lambda _damage: None, lambda end, next_ordinal: found.append((end, next_ordinal))):
        pass
    return found[-1]
