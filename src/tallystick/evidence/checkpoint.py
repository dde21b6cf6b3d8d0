"""C2SP tlog-checkpoint v1.0.0: what a signed tree head says.

    <origin>\\n<size, decimal>\\n<base64 of the root hash>\\n[extension lines…]

We write no extension lines. Those of other logs are kept as they are and mean nothing here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.errors import CheckpointError
from tallystick.evidence.merkle import HASH_BYTES
from tallystick.evidence.note import VerifierKey, decode_base64, open_note, parse_vkey, sign_note, split_note

_SIZE = re.compile(r"\A(0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: the log's origin, its number of leaves, and its root hash (32 bytes)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """The text that is signed."""
        lines = [self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions]
        return "".join(f"{line}\n" for line in lines)


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint's text (without signatures). Raises CheckpointError."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] != "" or not lines[0]:
        raise CheckpointError("a checkpoint has an origin, a size and a root hash, one a line")
    if not _SIZE.match(lines[1]):
        raise CheckpointError("the size of a checkpoint is not a decimal number", place=lines[0])
    root = decode_base64(lines[2], "the root hash of a checkpoint")
    if len(root) != HASH_BYTES:
        raise CheckpointError("the root hash of a checkpoint is not 32 bytes long", place=lines[0])
    if "" in lines[3:-1]:
        raise CheckpointError("a checkpoint holds an empty extension line", place=lines[0])
    return Checkpoint(lines[0], int(lines[1]), root, tuple(lines[3:-1]))


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """The signed note; the key's name is the origin."""
    return sign_note(checkpoint.text(), [(checkpoint.origin, key)])


def open_checkpoint(note: str, vkeys: Iterable[str | VerifierKey]) -> Checkpoint:
    """The checkpoint of a note that one of ``vkeys`` signed and whose origin is that key's name. Raises CheckpointError."""
    checkpoint = read_checkpoint(note)
    keys = [parse_vkey(key) if isinstance(key, str) else key for key in vkeys]
    named = [key for key in keys if key.name == checkpoint.origin]
    if not named:
        raise CheckpointError("the checkpoint is of a log that none of the known keys is named for", place=checkpoint.origin)
    open_note(note, named)
    return checkpoint


def read_checkpoint(note: str) -> Checkpoint:
    """The checkpoint of a note whose signatures nobody checks here. Raises CheckpointError."""
    return parse_checkpoint(split_note(note)[0])
