"""Signed receipts: the sender's half of the tally stick (EVIDENCE section 2).

A signed note by the key ``<server name>/receipt``:

    tallystick.receipt/v1
    <origin of the event tree>
    <first>+<count>[,<first>+<count>…]
    <base64 batch_root>        tree hash over the leaf hashes, in order
    <base64 input_root>        tree hash over the records exactly as received
    <received_at>
    <include_by>               past it, an absent leaf is proof of misbehaviour
    fsynced
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.errors import CheckpointError
from tallystick.evidence.merkle import HASH_BYTES, joined_root, leaf_hashes, tree_root
from tallystick.evidence.note import VerifierKey, decode_base64, open_note, sign_note

_VERSION = "tallystick.receipt/v1"
_RANGES = re.compile(r"\A\d{1,19}\+[1-9]\d{0,18}(,\d{1,19}\+[1-9]\d{0,18})*\Z")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a receipt says. Ranges are (first index, count); times RFC 3339, UTC; roots 32 bytes."""

    origin: str
    ranges: tuple[tuple[int, int], ...]
    batch_root: bytes
    input_root: bytes
    received_at: str
    include_by: str

    def text(self) -> str:
        """The text that is signed."""
        ranges = ",".join(f"{first}+{count}" for first, count in self.ranges)
        roots = (base64.b64encode(root).decode() for root in (self.batch_root, self.input_root))
        return "\n".join([_VERSION, self.origin, ranges, *roots, self.received_at, self.include_by, "fsynced", ""])


def receipt_key_name(server_name: str) -> str:
    """The name of the key that signs receipts."""
    return f"{server_name}/receipt"


def batch_root(hashes: Sequence[bytes]) -> bytes:
    """The tree hash over a batch's leaf hashes, in the order of the request."""
    return tree_root(hashes)


def input_root(records: Sequence[bytes]) -> bytes:
    """The tree hash over one tenant's records exactly as received."""
    return joined_root(leaf_hashes(records))


def sign_receipt(receipt: Receipt, key_name: str, key: Ed25519PrivateKey) -> str:
    """The signed note."""
    return sign_note(receipt.text(), [(key_name, key)])


def open_receipt(note: str, vkeys: Iterable[str | VerifierKey]) -> Receipt:
    """The receipt of a note that one of ``vkeys`` signed. Raises CheckpointError."""
    lines = open_note(note, vkeys).split("\n")
    if len(lines) != 9 or lines[0] != _VERSION or lines[7] != "fsynced":
        raise CheckpointError("this note is no receipt", hint=f"Its first line is {_VERSION}")
    if not _RANGES.match(lines[2]):
        raise CheckpointError("the ranges of a receipt are not first+count,first+count…", place=lines[2][:80])
    roots = [decode_base64(line, "a root of a receipt") for line in lines[3:5]]
    if any(len(root) != HASH_BYTES for root in roots):
        raise CheckpointError("a root of a receipt is not 32 bytes long", place=lines[1])
    pairs = (part.split("+") for part in lines[2].split(","))
    ranges = tuple((int(first), int(count)) for first, count in pairs)
    return Receipt(lines[1], ranges, roots[0], roots[1], lines[5], lines[6])
