"""The store of backups.

    objects/<2 hex>/<62 hex>     one piece of a file, encrypted; named by its content under a key of the installation
    backups/<id>.note            signed note of one backup, written last

A piece's name is HMAC-SHA256(backup key, "ts-backup-name1" ‖ SHA-256 of the piece), so that equal pieces are stored once and nobody
without the keys can try a content against the store. It is encrypted with AES-256-GCM under HMAC-SHA256(backup key,
"ts-backup-piece1" ‖ name), nonce 0, AAD = name: one key a content, so no nonce is ever used twice with another content. The
backup key is derived from the key store ("backup").

1. A name stands for the whole piece: in a local directory it is given after the sync, a bucket shows no halves.
2. Nothing is overwritten. An object of the wrong size is damage, and is made anew.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.archive.store import ArchiveStore
from tallystick.durable import make_dir, publish_new
from tallystick.errors import IntegrityError, NotFoundError
from tallystick.evidence.backup_note import BackupNote

PIECE_BYTES = 4 * 2**20
_TAG_BYTES = 16
_NONCE = bytes(12)


class DerivesKeys(Protocol):
    """What the store needs of `privacy.keys.KeyStore`."""

    def derive(self, purpose: str) -> bytes: ...


class FileEntry(msgspec.Struct, frozen=True, array_like=True):
    """One file: its path below the data directory, its bytes, and the hexadecimal SHA-256 of each `PIECE_BYTES` of them."""

    path: str
    size: int
    pieces: list[str]


class Index(msgspec.Struct, frozen=True):
    """All files of one backup."""

    v: int
    piece: int
    files: list[FileEntry]


def piece_lengths(size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of every piece of a file of ``size`` bytes."""
    for offset in range(0, size, PIECE_BYTES):
        yield offset, min(PIECE_BYTES, size - offset)


class BackupStore:
    """Pieces and notes in one store. Every method raises DestinationUnavailableError while it cannot be reached."""

    def __init__(self, store: ArchiveStore) -> None:
        self.store = store

    def notes(self) -> Iterator[tuple[str, str]]:
        """(path, text) of every note, the oldest first. Text that is no UTF-8 is given with replacements: no signature holds then."""
        for path in sorted(path for path in self.store.list("backups/") if path.endswith(".note")):
            yield path, self.store.get(path).decode("utf-8", "replace")

    def put_note(self, note: BackupNote, text: str) -> None:
        """Make a backup exist. A crash before this returns leaves pieces that no note leads to, or the whole backup."""
        self.put(f"backups/{note.id}.note", text.encode())

    def delete_note(self, path: str) -> None:
        """End a backup. Its pieces go with the next sweep."""
        self.store.delete(path)

    def sizes(self) -> dict[str, int]:
        """Bytes of every object, by its name."""
        found = self.store.sizes("objects/")
        return {path.replace("/", "")[len("objects") :]: size for path, size in found if "/." not in path}

    def delete(self, name: str) -> None:
        """Remove an object that no note leads to."""
        self.store.delete(_path(name))

    def strays(self) -> list[str]:
        """Paths of temporary files that a crash has left in a local directory."""
        return [path for path, _ in self.store.sizes() if path.rpartition("/")[2].startswith(".")]

    def put(self, path: str, data: bytes) -> None:
        """Create an object, durably. One with the same bytes may be there already. Raises IntegrityError for another one."""
        local = self.store.local_path(path)
        if local is None:
            self.store.put_new(path, data)
            return
        make_dir(local.parent)
        # A crash inside leaves a temporary file, which the next sweep removes, or the whole object.
        try:
            publish_new(local, data)
        except FileExistsError as error:
            if self.store.get(path) != data:
                raise IntegrityError("another object has this name already", place=self.store.place(path)) from error


class Pieces:
    """Encrypted pieces of one installation."""

    def __init__(self, store: BackupStore, keys: DerivesKeys) -> None:
        self._store = store
        self._key = keys.derive("backup")

    def name(self, digest: str) -> str:
        """The object's name of the piece with this hexadecimal SHA-256."""
        return hmac.digest(self._key, b"ts-backup-name1" + bytes.fromhex(digest), hashlib.sha256).hex()

    def put(self, data: bytes, known: dict[str, int]) -> tuple[str, int]:
        """Store a piece unless ``known`` (`BackupStore.sizes`) has it whole; returns its SHA-256 and the bytes written."""
        digest = hashlib.sha256(data).hexdigest()
        name = self.name(digest)
        if self.has(digest, len(data), known):
            return digest, 0
        if name in known:
            self._store.delete(name)  # of a wrong size: damage, or a try that a power cut ended
        sealed = self._cipher(name).encrypt(_NONCE, data, name.encode())
        self._store.put(_path(name), sealed)
        known[name] = len(sealed)
        return digest, len(sealed)

    def has(self, digest: str, length: int, known: dict[str, int]) -> bool:
        """True when the store holds an object of the right size for this piece."""
        return known.get(self.name(digest)) == length + _TAG_BYTES

    def get(self, digest: str, length: int) -> bytes:
        """A piece, opened and compared with its digest. Raises IntegrityError when it is missing, changed or of another installation."""
        name = self.name(digest)
        place = self._store.store.place(_path(name))
        try:
            data = self._cipher(name).decrypt(_NONCE, self._store.store.get(_path(name)), name.encode())
        except NotFoundError as error:
            raise IntegrityError("a piece of a backup is missing", place=place) from error
        except InvalidTag as error:
            raise IntegrityError("a piece of a backup is damaged", place=place) from error
        if len(data) != length or hashlib.sha256(data).hexdigest() != digest:
            raise IntegrityError("a piece of a backup is not the one its index names", place=place)
        return data

    def put_index(self, index: Index, known: dict[str, int]) -> tuple[str, int, str]:
        """Store the list of files; returns name, bytes and SHA-256 for the note."""
        data = msgspec.json.encode(index)
        digest, _ = self.put(data, known)
        return self.name(digest), len(data), digest

    def get_index(self, note: BackupNote) -> Index:
        """The list of files that a note leads to. Raises IntegrityError."""
        if self.name(note.index_sha256) != note.index:
            raise IntegrityError("this backup was made with other keys", place=f"backup {note.id}")
        data = self.get(note.index_sha256, note.index_bytes)
        try:
            index = msgspec.json.decode(data, type=Index)
        except msgspec.DecodeError as error:
            raise IntegrityError("the list of files of a backup cannot be read", place=f"backup {note.id}") from error
        if index.v != 1 or index.piece != PIECE_BYTES:
            raise IntegrityError("the list of files has a form that this version does not know", place=f"backup {note.id}")
        return index

    def _cipher(self, name: str) -> AESGCM:
        return AESGCM(hmac.digest(self._key, b"ts-backup-piece1" + bytes.fromhex(name), hashlib.sha256))


def _path(name: str) -> str:
    return f"objects/{name[:2]}/{name[2:]}"
