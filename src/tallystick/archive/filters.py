"""Which values a chunk holds, told without opening it: value filters for pruning, encrypted in the catalog.

One filter per chunk and searchable column. Few distinct values (at most 64, 4 KiB in all) are kept as an exact list; more
as a Bloom filter of 10 bits a value with 7 hashes, wrong in 0.8 % of lookups, always on the side of opening the chunk.

    plain     0x01 | JSON list of strings, sorted                                exact
              0x02 | bits                                                        Bloom, bit i of the filter is bit i%8 of byte i//8
    hashes    h = length ⊕ T[0][byte 0] ⊕ T[1][byte 1] … (tabulation hashing over the value's UTF-8; positions mod 128);
              T = SHAKE128("ts-filter1") as 128·256 little-endian u64; bit j = (h + j·(h >> 32 | 1)) mod 2^64 mod bits
    stored    nonce[12] | AES-256-GCM(key, nonce, plain, AAD = column name)      key = HMAC-SHA256(EK, "ts-filter1" ‖ chunk id)

Destroying the epoch key EK of the month destroys the filters with the chunk: nobody can try a name against them later,
not even against a backup of the catalog. Sealed values have no column, so they are never in a filter.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.archive.catalog import Catalog, ChunkRow
from tallystick.errors import IntegrityError, NotFoundError
from tallystick.privacy.keys import KeyStore

FILTERED_COLUMNS = (
    "id",
    "action",
    "category",
    "outcome",
    "actor_type",
    "actor_id",
    "target_type",
    "target_id",
    "ip",
    "session_id",
    "request_id",
    "source",
)

_EXACT, _BLOOM = 1, 2
_EXACT_VALUES_MAX, _EXACT_BYTES_MAX = 64, 4096
_BITS_PER_VALUE, _HASHES = 10, 7
_POSITIONS = 128
_SLICE = 8192  # values hashed at a time: bounds the memory for their bytes


def build_filters(table: pa.Table, epoch_key: bytes, chunk_id: bytes) -> dict[str, bytes]:
    """The stored form of all filters of a chunk's table (needs `FILTERED_COLUMNS`), by column."""
    cipher = AESGCM(_filter_key(epoch_key, chunk_id))
    stored = {}
    for column in FILTERED_COLUMNS:
        nonce = os.urandom(12)
        stored[column] = nonce + cipher.encrypt(nonce, _encode(_distinct(table.column(column))), column.encode())
    return stored


class FilterReader:
    """Prunes chunk rows of the catalog by the values a query asks for. Thread-safe."""

    def __init__(self, catalog: Catalog, keys: KeyStore) -> None:
        self._catalog = catalog
        self._keys = keys

    def having(self, rows: Sequence[ChunkRow], column: str, value: str) -> list[ChunkRow]:
        """The rows whose chunk may hold ``value`` in ``column``; all of them for a column without filters."""
        return self._keep(rows, column, lambda plain: _may_have(plain, value))

    def matching(self, rows: Sequence[ChunkRow], column: str, test: Callable[[str], bool]) -> list[ChunkRow]:
        """The rows whose chunk may hold a value that passes ``test`` (a wildcard, a range); only exact lists can exclude."""
        return self._keep(rows, column, lambda plain: plain[0] != _EXACT or any(map(test, _exact_values(plain))))

    def _keep(self, rows: Sequence[ChunkRow], column: str, may_have: Callable[[bytes], bool]) -> list[ChunkRow]:
        if column not in FILTERED_COLUMNS:
            return list(rows)
        kept = []
        for row in rows:
            stored = self._catalog.filter(row.chunk_id, column)
            if stored is None:
                kept.append(row)
                continue
            try:
                plain = self._open(stored, row, column)
            except NotFoundError:  # the epoch key is destroyed, and with it the chunk's content
                continue
            if may_have(plain):
                kept.append(row)
        return kept

    def _open(self, stored: bytes, row: ChunkRow, column: str) -> bytes:
        key = _filter_key(self._keys.epoch_key(row.handle, row.retention_class, row.month), row.chunk_id)
        try:
            return AESGCM(key).decrypt(stored[:12], stored[12:], column.encode())
        except InvalidTag as error:
            raise IntegrityError(
                "a filter in the catalog is damaged", place=row.name, hint="Rebuild the catalog: delete catalog.sqlite and restart"
            ) from error


def _filter_key(epoch_key: bytes, chunk_id: bytes) -> bytes:
    return hmac.digest(epoch_key, b"ts-filter1" + chunk_id, hashlib.sha256)


def _distinct(column: Any) -> Any:
    flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    return pc.unique(flat).drop_null()


def _encode(values: Any) -> bytes:
    if len(values) <= _EXACT_VALUES_MAX and (pc.sum(pc.binary_length(values)).as_py() or 0) <= _EXACT_BYTES_MAX:
        return bytes([_EXACT]) + msgspec.json.encode(sorted(values.to_pylist()))
    size = max(64, -(-len(values) * _BITS_PER_VALUE // 8) * 8)
    bits = np.zeros(size, dtype=np.uint8)
    for start in range(0, len(values), _SLICE):
        bits[_places(_hashes(values.slice(start, _SLICE)), size)] = 1
    return bytes([_BLOOM]) + np.packbits(bits, bitorder="little").tobytes()


def _may_have(plain: bytes, value: str) -> bool:
    if plain[0] == _EXACT:
        return value in _exact_values(plain)
    places = _places(_hashes(pa.array([value], pa.string())), (len(plain) - 1) * 8)
    return all(plain[1 + place // 8] >> (place % 8) & 1 for place in places.tolist())


def _places(hashes: Any, size: int) -> Any:
    """The bits of each hash, in one flat array."""
    steps = np.arange(_HASHES, dtype=np.uint64)
    strides = (hashes >> np.uint64(32)) | np.uint64(1)
    return ((hashes[:, None] + steps * strides[:, None]) % np.uint64(size)).ravel()


def _hashes(values: Any) -> Any:
    """64-bit tabulation hashes of a string array without nulls; a few calls into C for the whole array."""
    offsets = np.frombuffer(values.buffers()[1], dtype=np.int32)[values.offset : values.offset + len(values) + 1]
    lengths = np.diff(offsets)
    hashes = lengths.astype(np.uint64)
    if lengths.any():
        data = np.frombuffer(values.buffers()[2], dtype=np.uint8)[offsets[0] : offsets[-1]]
        starts = offsets[:-1] - offsets[0]
        places = (np.arange(len(data)) - np.repeat(starts, lengths)) & (_POSITIONS - 1)
        is_filled = lengths > 0  # reduceat would give an empty string its neighbour's first entry
        hashes[is_filled] ^= np.bitwise_xor.reduceat(_table()[places, data], starts[is_filled])
    return hashes


@cache
def _table() -> Any:
    data = hashlib.shake_128(b"ts-filter1").digest(_POSITIONS * 256 * 8)
    return np.frombuffer(data, dtype="<u8").reshape(_POSITIONS, 256)


def _exact_values(plain: bytes) -> list[str]:
    return msgspec.json.decode(plain[1:], type=list[str])
