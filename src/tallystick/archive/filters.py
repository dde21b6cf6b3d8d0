"""Which values a chunk holds, told without opening it: value filters for pruning, encrypted in the catalog.

One filter per chunk and searchable column. Few distinct values (at most 64, 4 KiB in all) are kept as an exact list; more
as a Bloom filter of 10 bits a value with 7 hashes, wrong in 0.8 % of lookups, always on the side of opening the chunk.

    plain     0x01 | JSON list of strings, sorted                                exact
              0x02 | bits                                                        Bloom, bit i of the filter is bit i%8 of byte i//8
    hashes    d = BLAKE2b-128(value, key = chunk id); h1, h2 = little-endian u64 halves; bit j = (h1 + j·(h2 | 1)) mod 2^64 mod bits
    stored    nonce[12] | AES-256-GCM(key, nonce, plain, AAD = column name)      key = HMAC-SHA256(EK, "ts-filter1" ‖ chunk id)

Destroying the epoch key EK of the month destroys the filters with the chunk: nobody can try a name against them later,
not even against a backup of the catalog. Sealed values have no column, so they are never in a filter.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Sequence
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


def build_filters(table: pa.Table, epoch_key: bytes, chunk_id: bytes) -> dict[str, bytes]:
    """The stored form of all filters of a chunk's table (needs `FILTERED_COLUMNS`), by column."""
    cipher = AESGCM(_filter_key(epoch_key, chunk_id))
    stored = {}
    for column in FILTERED_COLUMNS:
        nonce = os.urandom(12)
        stored[column] = nonce + cipher.encrypt(nonce, _encode(_distinct(table.column(column)), chunk_id), column.encode())
    return stored


class FilterReader:
    """Prunes chunk rows of the catalog by the values a query asks for. Thread-safe."""

    def __init__(self, catalog: Catalog, keys: KeyStore) -> None:
        self._catalog = catalog
        self._keys = keys

    def having(self, rows: Sequence[ChunkRow], column: str, value: str) -> list[ChunkRow]:
        """The rows whose chunk may hold ``value`` in ``column``; all of them for a column without filters."""
        return self._keep(rows, column, lambda plain, row: _may_have(plain, value, row.chunk_id))

    def matching(self, rows: Sequence[ChunkRow], column: str, test: Callable[[str], bool]) -> list[ChunkRow]:
        """The rows whose chunk may hold a value that passes ``test`` (a wildcard, a range); only exact lists can exclude."""
        return self._keep(rows, column, lambda plain, _row: plain[0] != _EXACT or any(map(test, _exact_values(plain))))

    def _keep(self, rows: Sequence[ChunkRow], column: str, may_have: Callable[[bytes, ChunkRow], bool]) -> list[ChunkRow]:
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
            if may_have(plain, row):
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


def _distinct(column: Any) -> list[str]:
    flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    values: list[str] = pc.unique(flat).drop_null().to_pylist()
    return values


def _encode(values: list[str], chunk_id: bytes) -> bytes:
    if len(values) <= _EXACT_VALUES_MAX and sum(map(len, values)) <= _EXACT_BYTES_MAX:
        return bytes([_EXACT]) + msgspec.json.encode(sorted(values))
    size = max(64, -(-len(values) * _BITS_PER_VALUE // 8) * 8)
    bits = np.zeros(size, dtype=np.uint8)
    bits[_places(values, chunk_id, size)] = 1
    return bytes([_BLOOM]) + np.packbits(bits, bitorder="little").tobytes()


def _may_have(plain: bytes, value: str, chunk_id: bytes) -> bool:
    if plain[0] == _EXACT:
        return value in _exact_values(plain)
    places = _places([value], chunk_id, (len(plain) - 1) * 8)
    return all(plain[1 + place // 8] >> (place % 8) & 1 for place in places.tolist())


def _places(values: Iterable[str], chunk_id: bytes, size: int) -> Any:
    blake2b = hashlib.blake2b
    digests = b"".join([blake2b(value.encode(), digest_size=16, key=chunk_id).digest() for value in values])
    halves = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    steps = np.arange(_HASHES, dtype=np.uint64)
    return ((halves[:, :1] + steps * (halves[:, 1:] | np.uint64(1))) % np.uint64(size)).ravel()


def _exact_values(plain: bytes) -> list[str]:
    return msgspec.json.decode(plain[1:], type=list[str])
