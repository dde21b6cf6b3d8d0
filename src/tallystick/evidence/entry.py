"""Leaf data (EVIDENCE section 2): of events, of the account tree's entries, and of the root log's.

An event's leaf data is its canonical line. A line over 65,535 bytes (what a tile entry can hold) is replaced by
``tallystick.large/v1 <decimal length> <hex SHA-256>``, a lost index by ``tallystick.lost/v1 <index>``.

An entry is one JSON object in UTF-8 without spaces or line breaks, ``type`` first, ``salt`` (16 bytes, base64url without
padding) second: with it, the leaf hash alone confirms no guess. Salts are HMACs under a key of this installation over the
entry's place, so that an entry made anew after a crash is the same entry.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from tallystick.errors import IntegrityError
from tallystick.evidence.merkle import leaf_hash, leaf_hashes

LINE_BYTES_MAX = 65_535
SALT_BYTES = 16

ACCOUNT_TYPES = frozenset(
    {"delivery", "statement", "filter", "gap", "hold", "erasure", "erasure-final", "expiry", "open", "review", "backup", "drill"}
)
ROOT_TYPES = frozenset({"checkpoint", "config", "key", "heartbeat", "anchor", "restore", "policy"})


def large_text(line: bytes) -> bytes:
    """Leaf data of a line that no tile entry can hold."""
    return f"tallystick.large/v1 {len(line)} {hashlib.sha256(line).hexdigest()}".encode()


def lost_text(index: int) -> bytes:
    """Leaf data of an index whose event the disk itself lost."""
    return f"tallystick.lost/v1 {index}".encode()


def leaf_data(line: bytes) -> bytes:
    """What is hashed for an event, and what its entry bundle carries."""
    return line if len(line) <= LINE_BYTES_MAX else large_text(line)


def event_hashes(lines: Sequence[bytes]) -> bytes:
    """The joined leaf hashes of canonical lines, 32 bytes each."""
    if lines and max(map(len, lines)) > LINE_BYTES_MAX:
        lines = [leaf_data(line) for line in lines]
    return leaf_hashes(lines)


def lost_hashes(first: int, count: int) -> bytes:
    """The joined leaf hashes of ``count`` lost indexes from ``first``."""
    return leaf_hashes([lost_text(index) for index in range(first, first + count)])


def is_lost(index: int, value: bytes) -> bool:
    """True when ``value`` is the leaf hash of a lost index."""
    return value == leaf_hash(lost_text(index))


class Salter:
    """Makes the salts of entries from a secret key: unpredictable to everyone else, the same for the same place."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def salt(self, origin: str, place: int | str) -> bytes:
        """16 bytes for the entry of the tree ``origin`` at ``place`` (a journal seq, or an index of the root log)."""
        return hmac.digest(self._key, f"{origin}\n{place}".encode(), hashlib.sha256)[:SALT_BYTES]


def build_entry(kind: str, salt: bytes, fields: Mapping[str, Any]) -> bytes:
    """The canonical JSON line. ``fields`` follow in their order; a ``type`` or ``salt`` among them is left out."""
    text = base64.urlsafe_b64encode(salt).rstrip(b"=").decode()
    rest = {name: value for name, value in fields.items() if name not in ("type", "salt")}
    return msgspec.json.encode({"type": kind, "salt": text, **rest})


def read_entry(line: bytes, types: Collection[str] | None = None) -> dict[str, Any]:
    """The entry's members. ``types``: those that belong in the tree, None for any. Raises IntegrityError unless it has a type and salt."""
    try:
        entry = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError("an entry of a tree is no JSON object") from error
    if not isinstance(entry.get("type"), str) or (types is not None and entry["type"] not in types):
        raise IntegrityError(f"an entry has the type {entry.get('type')!r}, which does not belong in this tree")
    salt = entry.get("salt")
    if not isinstance(salt, str) or len(salt) != 22:
        raise IntegrityError("an entry has no salt of 16 bytes")
    return entry
