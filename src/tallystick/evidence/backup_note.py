"""Signed note of one backup: by the key ``<server name>/backup``, stored as ``backups/<id>.note``.

    tallystick.backup/v1
    <server name>
    id <yyyymmddThhmmss, microseconds, Z>-<8 hex digits>
    at <RFC 3339>
    mark <durable mark: the journal up to this seq is in it>
    root <size of the root log> <base64 of its root hash>
    files <count> <bytes>
    index <name of the object with the list of files> <bytes> <hex SHA-256>
    keys <name of the key backup made with it, or ->

The note is written last, when everything that it leads to is in the store: a backup without one does not exist. Its index names every
file with the SHA-256 of each of its pieces, so the note stands for every byte.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.errors import CheckpointError
from tallystick.evidence.note import VerifierKey, open_note, sign_note, split_note

_VERSION = "tallystick.backup/v1"
_TEXT = re.compile(
    r"\Atallystick\.backup/v1\n"
    r"(?P<server>[^\n]+)\n"
    r"id (?P<id>[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8})\n"
    r"at (?P<at>[0-9T:.-]+Z)\n"
    r"mark (?P<mark>[0-9]{1,19})\n"
    r"root (?P<root_size>[0-9]{1,19}) (?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"files (?P<files>[0-9]{1,19}) (?P<bytes>[0-9]{1,19})\n"
    r"index (?P<index>[0-9a-f]{64}) (?P<index_bytes>[0-9]{1,19}) (?P<index_sha256>[0-9a-f]{64})\n"
    r"keys (?P<keys>-|[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}\.age)\n\Z"
)


@dataclass(frozen=True, slots=True)
class BackupNote:
    """What a backup says of itself. ``files`` and ``bytes``: of the installation; digests are hexadecimal, ``root`` is 32 bytes."""

    server: str
    id: str
    at: str
    mark: int
    root_size: int
    root: bytes
    files: int
    bytes: int
    index: str
    index_bytes: int
    index_sha256: str
    keys: str = "-"

    def text(self) -> str:
        """The text that is signed."""
        lines = [
            _VERSION,
            self.server,
            f"id {self.id}",
            f"at {self.at}",
            f"mark {self.mark}",
            f"root {self.root_size} {base64.b64encode(self.root).decode()}",
            f"files {self.files} {self.bytes}",
            f"index {self.index} {self.index_bytes} {self.index_sha256}",
            f"keys {self.keys}",
        ]
        return "".join(f"{line}\n" for line in lines)


def backup_key_name(server_name: str) -> str:
    """The name of the key that signs backups."""
    return f"{server_name}/backup"


def sign_backup(note: BackupNote, key_name: str, key: Ed25519PrivateKey) -> str:
    """The signed note. Raises CheckpointError when a field cannot stand on its line."""
    _parse(note.text())
    return sign_note(note.text(), [(key_name, key)])


def open_backup(note: str, vkeys: Iterable[str | VerifierKey]) -> BackupNote:
    """The note that one of ``vkeys`` signed. Raises CheckpointError."""
    return _parse(open_note(note, vkeys))


def read_backup(note: str) -> BackupNote:
    """A note whose signature nobody checks here. Raises CheckpointError."""
    return _parse(split_note(note)[0])


def _parse(text: str) -> BackupNote:
    match = _TEXT.match(text)
    if match is None:
        raise CheckpointError("this is no note of a backup", hint=f"Its first line is {_VERSION}")
    return BackupNote(
        server=match["server"],
        id=match["id"],
        at=match["at"],
        mark=int(match["mark"]),
        root_size=int(match["root_size"]),
        root=base64.b64decode(match["root"]),
        files=int(match["files"]),
        bytes=int(match["bytes"]),
        index=match["index"],
        index_bytes=int(match["index_bytes"]),
        index_sha256=match["index_sha256"],
        keys=match["keys"],
    )
