"""One chunk: an encrypted Parquet file of one tenant, retention class and month (docs/formats/chunks.md).

- Name: ``<handle>/<class>/<yyyy>/<mm>/<dd>/<first>-<last>-<chunk id>.parquet`` under the store; first and last index have
  20 digits, the day is that of the first event's ``received_at``, the chunk id is 32 hexadecimal digits.
- Key: ``HMAC-SHA256(EK, "ts-chunk1" ‖ chunk id)``, EK the epoch key of (tenant, class, month). The id is random and new for
  every file ever written, so no two files share a key. Destroying EK makes every copy unreadable.
- Parquet modular encryption, AES_GCM_V1, 256-bit key for footer and all columns, no aad_prefix: any Parquet reader that is
  given the key can read it. The footer, and so the schema and all statistics, is encrypted too.
- Rows in index order. zstd; row groups of 16,384 rows: small enough to fetch a few lines from, large enough to compress.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.parquet import encryption

from tallystick.archive.columns import CHUNK_SCHEMA
from tallystick.errors import IntegrityError

FORMAT = "tallystick.chunk/1.0"
ROW_GROUP_ROWS = 16_384
FLUSH_LEVEL, MERGE_LEVEL = 1, 9  # zstd: what is written soon is merged later, at leisure

_NAME = re.compile(
    r"(?P<handle>[a-z2-7]{16})/(?P<class>[^/]+)/(?P<day>\d{4}/\d{2}/\d{2})/(?P<first>\d{20})-(?P<last>\d{20})-(?P<id>[0-9a-f]{32})"
)
_DELTA = ("index", "seq", "occurred_at", "received_at")
_PLAIN = ("id", "session_id", "request_id", "line")  # values that hardly repeat: a dictionary would be dropped again
_DICTIONARY = [name for name in CHUNK_SCHEMA.names if name not in (*_DELTA, *_PLAIN)]
_LISTS = ("target_type", "target_id", "subjects", "tokens")


@dataclass(frozen=True, slots=True)
class ChunkName:
    """The parts of a chunk's name. ``chunk_id`` has 16 bytes; ``day`` is "yyyy-mm-dd"."""

    handle: str
    retention_class: str
    day: str
    first: int
    last: int
    chunk_id: bytes

    @property
    def month(self) -> str:
        return self.day[:7]

    @property
    def stem(self) -> str:
        folder = f"{self.handle}/{self.retention_class}/{self.day.replace('-', '/')}"
        return f"{folder}/{self.first:020d}-{self.last:020d}-{self.chunk_id.hex()}"

    @property
    def path(self) -> str:
        return self.stem + ".parquet"

    @property
    def manifest_path(self) -> str:
        return self.stem + ".manifest"


def new_chunk_id() -> bytes:
    """16 random bytes; never used twice."""
    return secrets.token_bytes(16)


def parse_name(path: str) -> ChunkName:
    """The parts of a chunk's or manifest's path, with or without its suffix. Raises IntegrityError: it is none of ours."""
    match = _NAME.match(path)
    if match is None:
        raise IntegrityError("a name in the archive that no chunk has", place=path)
    day = match["day"].replace("/", "-")
    return ChunkName(match["handle"], match["class"], day, int(match["first"]), int(match["last"]), bytes.fromhex(match["id"]))


def chunk_key(epoch_key: bytes, chunk_id: bytes) -> bytes:
    """The 32-byte key of one chunk (EVIDENCE section 3)."""
    return hmac.digest(epoch_key, b"ts-chunk1" + chunk_id, hashlib.sha256)


def encode_chunk(batches: Iterable[pa.Table | pa.RecordBatch], key: bytes, *, level: int = FLUSH_LEVEL) -> bytes:
    """The file of rows given in index order, as tables or batches of any size. Holds one row group in memory, and the file."""
    sink = pa.BufferOutputStream()
    writer = pq.ParquetWriter(
        sink,
        CHUNK_SCHEMA,
        compression="zstd",
        compression_level=level,
        use_dictionary=[f"{name}.list.element" if name in _LISTS else name for name in _DICTIONARY],
        column_encoding={**dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"), **dict.fromkeys(_PLAIN, "PLAIN")},
        write_statistics=[name for name in CHUNK_SCHEMA.names if name not in ("line", *_LISTS)],
        store_schema=False,  # every type of ours is a Parquet type: 2 KiB less in each file
        encryption_properties=encryption.create_encryption_properties(key),
    )
    writer.add_key_value_metadata({"format": FORMAT})
    with writer:
        for table in _row_groups(batches):
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def open_chunk(data: Any, key: bytes, *, place: str = "") -> pq.ParquetFile:
    """A reader over a chunk's bytes (or a file-like object). Raises IntegrityError: damaged, or another key."""
    source = pa.BufferReader(data) if isinstance(data, bytes | memoryview | pa.Buffer) else data
    try:
        return pq.ParquetFile(source, decryption_properties=encryption.create_decryption_properties(key))
    except (OSError, pa.ArrowException) as error:
        raise unreadable(place, error) from error


def read_columns(file: pq.ParquetFile, columns: Sequence[str] | None = None, *, place: str = "") -> pa.Table:
    """All rows of the named columns (default: all). Raises IntegrityError when a page does not decrypt."""
    try:
        return file.read(columns=list(columns) if columns is not None else None)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(place, error) from error


def unreadable(place: str, error: Exception) -> IntegrityError:
    """What a chunk that does not decrypt or decode means."""
    return IntegrityError(
        f"a chunk cannot be read: {error}",
        place=place or None,
        hint="It was changed or damaged, or belongs to other keys; restore the object from a copy",
    )


def _row_groups(batches: Iterable[pa.Table | pa.RecordBatch]) -> Iterable[pa.Table]:
    """The same rows, in tables of `ROW_GROUP_ROWS`."""
    waiting: list[pa.Table] = []
    rows = 0
    for batch in batches:
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        waiting.append(table)
        rows += table.num_rows
        if rows >= ROW_GROUP_ROWS:
            joined = pa.concat_tables(waiting)
            whole = rows - rows % ROW_GROUP_ROWS
            yield joined.slice(0, whole)
            waiting, rows = [joined.slice(whole)], rows - whole
    if rows:
        yield pa.concat_tables(waiting)
