"""Keyed digests of ids and contents, and the section of a frame that keeps them (docs/formats/dedupe.md).

    id digest        BLAKE2b-128(key, 0 ‖ handle ‖ 0 ‖ id)
    prefix digest    BLAKE2b-128(key, 1 ‖ handle ‖ 0 ‖ first 30 characters), last 3 bytes zero; stands for all ids of a batch made here
    id digest of a   its prefix digest with the last six digits as the last 3 bytes, and
      UUIDv7         digits x spread (mod 2^64) added to the first 8
    content digest   BLAKE2b-128(key, 2 ‖ record as sent, compacted)

So the prefix of any UUIDv7 can be computed back from its id digest alone (`prefix_of`), and yet ids that differ only in
their last digits lie far apart in a table sorted by digest. ``spread`` is odd and comes from the key. For any other id the
same computation gives an unrelated value, which matches a prefix with a chance of 2^-104.

Section of an EVENTS frame, for its ``count`` lines in order:

    flags u8 (1: a prefix follows; 2: every line has digests; 4: some have, a bit map follows)
    [prefix digest 16] [bit map, one bit a line, highest first, padded to bytes] [id digests 16 each] [content digests 16 each]

A digest is readable nowhere at rest: sections lie in frames encrypted under their segment's key, runs encrypt their
contents column under a key of their own, and both keys go with their file (decision 0006).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tallystick.errors import IntegrityError
from tallystick.journal.pieces import Pieces, joined

DIGEST_BYTES = 16
_COUNTER_MASK = 0xFF_FFFF
_MASK64 = (1 << 64) - 1
_UUID7_MADE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_PREFIX_LENGTH = 30

_HAS_PREFIX = 1
_ALL_HAVE_IDS = 2
_SOME_HAVE_IDS = 4


class Digester:
    """Makes the digests. ``key`` is ``KeyStore.derive("dedupe")``; the same in every process that takes in events."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.spread = int.from_bytes(blake2b(b"spread", digest_size=8, key=key).digest(), "big") | 1
        self._content = blake2b(b"\x02", digest_size=DIGEST_BYTES, key=key)

    def ids(self, handle: str, ids: Sequence[str]) -> list[bytes]:
        """16 bytes for each id that the sender gave to an event of the tenant with ``handle``."""
        copy = blake2b(b"\x00" + handle.encode() + b"\x00", digest_size=DIGEST_BYTES, key=self._key).copy
        digests: list[bytes] = []
        add = digests.append
        for event_id in ids:
            if len(event_id) == 36 and event_id[14] == "7" and _UUID7_MADE.fullmatch(event_id):
                add(self._uuid7(handle, event_id))
                continue
            state = copy()
            state.update(event_id.encode())
            add(state.digest())
        return digests

    def contents(self, records: Sequence[bytes]) -> list[bytes]:
        """16 bytes for each record as sent, compacted."""
        copy = self._content.copy
        digests: list[bytes] = []
        add = digests.append
        for record in records:
            state = copy()
            state.update(record)
            add(state.digest())
        return digests

    def prefix(self, handle: str, prefix: str) -> bytes:
        """16 bytes for the ids of one batch made here, which share the 30 characters ``prefix``."""
        data = b"\x01" + handle.encode() + b"\x00" + prefix.encode()
        return blake2b(data, digest_size=DIGEST_BYTES, key=self._key).digest()[:13] + b"\0\0\0"

    def _uuid7(self, handle: str, event_id: str) -> bytes:
        prefix = self.prefix(handle, event_id[:_PREFIX_LENGTH])
        counter = int(event_id[_PREFIX_LENGTH:], 16)
        high = (int.from_bytes(prefix[:8], "big") + counter * self.spread) & _MASK64
        return high.to_bytes(8, "big") + prefix[8:13] + counter.to_bytes(3, "big")


def prefix_of(high: int, low: int, spread: int) -> tuple[int, int]:
    """Both halves of the prefix digest of the id digest ``high ‖ low``, if that id is a UUIDv7."""
    counter = low & _COUNTER_MASK
    return (high - counter * spread) & _MASK64, low - counter


@dataclass(frozen=True, slots=True)
class Section:
    """A decoded section: ``positions`` are the lines that have digests, ``ids`` and ``contents`` are parallel to it."""

    prefix: bytes
    positions: Sequence[int]
    ids: list[bytes]
    contents: list[bytes]


def encode_section(prefix: bytes, count: int, positions: Sequence[int], ids: Sequence[bytes], contents: Sequence[bytes]) -> bytes:
    """The section of a frame of ``count`` lines; ``prefix`` is empty when no id was made here."""
    flags = _HAS_PREFIX if prefix else 0
    bit_map = b""
    if len(positions) == count:
        flags |= _ALL_HAVE_IDS
    elif positions:
        flags |= _SOME_HAVE_IDS
        bits = sum(1 << (count - 1 - position) for position in positions)
        padding = -count % 8
        bit_map = (bits << padding).to_bytes((count + padding) // 8, "big")
    return b"".join((bytes([flags]), prefix, bit_map, joined(ids), joined(contents)))


def decode_section(section: bytes, count: int) -> Section:
    """The inverse of `encode_section`. Raises IntegrityError for bytes that are no section of ``count`` lines."""
    prefix, positions, ids, contents = open_section(section, count)
    return Section(prefix, positions, list(ids), list(contents))


def open_section(section: bytes, count: int) -> tuple[bytes, Sequence[int], Pieces, Pieces]:
    """As `decode_section`, with ids and contents as they lie there."""
    if not section:
        raise IntegrityError("a frame of events has no dedupe section")
    flags, at = section[0], 1
    prefix = b""
    if flags & _HAS_PREFIX:
        prefix, at = section[at : at + DIGEST_BYTES], at + DIGEST_BYTES
    positions: Sequence[int] = ()
    if flags & _ALL_HAVE_IDS:
        positions = range(count)
    elif flags & _SOME_HAVE_IDS:
        size = (count + 7) // 8
        bits = int.from_bytes(section[at : at + size], "big") >> (-count % 8)
        positions, at = [place for place in range(count) if bits >> (count - 1 - place) & 1], at + size
    middle, end = at + DIGEST_BYTES * len(positions), at + 2 * DIGEST_BYTES * len(positions)
    if end != len(section) or flags > 7:
        raise IntegrityError(f"a dedupe section of {count} lines has {len(section)} bytes instead of {end}")
    return prefix, positions, Pieces(section[at:middle], DIGEST_BYTES), Pieces(section[middle:], DIGEST_BYTES)
