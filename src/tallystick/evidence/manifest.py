"""Signed manifest of one archive chunk: a note by the key ``<server name>/manifest``, stored beside the chunk.

    tallystick.manifest/v1
    <origin of the event tree>
    chunk <chunk id, 32 hex digits>
    object <chunk's path below the store>
    class <retention class>
    range <first index>-<last index>
    indexes <count> <hex SHA-256 over the indexes, ascending, each uint64 big-endian>
    bytes <size of the object>
    sha256 <hex SHA-256 of the object as stored>
    replaces <chunk id>              one line for each merged chunk, in order; none when nothing is replaced

With it the catalog can be rebuilt, and ``verify`` can say that a chunk is missing or changed without opening it.
"""

from __future__ import annotations

import hashlib
import re
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.errors import CheckpointError
from tallystick.evidence.note import VerifierKey, open_note, sign_note, split_note

_VERSION = "tallystick.manifest/v1"
_TEXT = re.compile(
    r"\Atallystick\.manifest/v1\n"
    r"(?P<origin>[^\n]+)\n"
    r"chunk (?P<chunk_id>[0-9a-f]{32})\n"
    r"object (?P<object>[^\n]+)\n"
    r"class (?P<retention_class>[^\n]+)\n"
    r"range (?P<first>[0-9]{1,19})-(?P<last>[0-9]{1,19})\n"
    r"indexes (?P<count>[1-9][0-9]{0,18}) (?P<indexes_sha256>[0-9a-f]{64})\n"
    r"bytes (?P<size>[0-9]{1,19})\n"
    r"sha256 (?P<sha256>[0-9a-f]{64})\n"
    r"(?P<replaces>(?:replaces [0-9a-f]{32}\n)*)\Z"
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says. ``first`` and ``last`` are indexes, both inclusive; digests and ids are hexadecimal."""

    origin: str
    chunk_id: str
    object: str
    retention_class: str
    first: int
    last: int
    count: int
    indexes_sha256: str
    size: int
    sha256: str
    replaces: tuple[str, ...] = ()

    def text(self) -> str:
        """The text that is signed."""
        lines = [
            _VERSION,
            self.origin,
            f"chunk {self.chunk_id}",
            f"object {self.object}",
            f"class {self.retention_class}",
            f"range {self.first}-{self.last}",
            f"indexes {self.count} {self.indexes_sha256}",
            f"bytes {self.size}",
            f"sha256 {self.sha256}",
            *(f"replaces {chunk_id}" for chunk_id in self.replaces),
        ]
        return "".join(f"{line}\n" for line in lines)


def manifest_key_name(server_name: str) -> str:
    """The name of the key that signs manifests."""
    return f"{server_name}/manifest"


def indexes_digest(indexes: Sequence[int]) -> str:
    """Hex SHA-256 over ``indexes`` (ascending), each as eight bytes, big-endian."""
    values = array("Q", indexes)
    if sys.byteorder == "little":
        values.byteswap()
    return hashlib.sha256(values).hexdigest()


def sign_manifest(manifest: Manifest, key_name: str, key: Ed25519PrivateKey) -> str:
    """The signed note. Raises CheckpointError when a field cannot stand on its line."""
    text = manifest.text()
    _parse(text)
    return sign_note(text, [(key_name, key)])


def open_manifest(note: str, vkeys: Iterable[str | VerifierKey]) -> Manifest:
    """The manifest of a note that one of ``vkeys`` signed. Raises CheckpointError."""
    return _parse(open_note(note, vkeys))


def read_manifest(note: str) -> Manifest:
    """The manifest of a note whose signature nobody checks here. Raises CheckpointError."""
    return _parse(split_note(note)[0])


def _parse(text: str) -> Manifest:
    match = _TEXT.match(text)
    if match is None:
        raise CheckpointError("this note is no chunk manifest", hint=f"Its first line is {_VERSION}")
    first, last, count, size = (int(match[name]) for name in ("first", "last", "count", "size"))
    if first > last or count > last - first + 1:
        raise CheckpointError("the range of a manifest does not fit its count", place=match["object"])
    return Manifest(
        origin=match["origin"],
        chunk_id=match["chunk_id"],
        object=match["object"],
        retention_class=match["retention_class"],
        first=first,
        last=last,
        count=count,
        indexes_sha256=match["indexes_sha256"],
        size=size,
        sha256=match["sha256"],
        replaces=tuple(line.split()[1] for line in match["replaces"].splitlines()),
    )
