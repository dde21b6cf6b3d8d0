"""`parquet`: one Parquet file for a whole cut, one row an event.

The columns are those of an export (`archive.columns`), with the tenant and without the index. The file's key-value metadata say which part of
which log it is:

    tallystick.log, tallystick.first_index, tallystick.last_index
    tallystick.batch_root       RFC 6962 tree hash over the leaf hashes of the rows' lines, in order, base64

Bytes depend on Arrow's version, so that is part of ``version``.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from tallystick.archive.columns import CHUNK_SCHEMA, columns_from_lines
from tallystick.event.codec import decode_line
from tallystick.evidence.entry import event_hashes
from tallystick.evidence.merkle import joined_root

_LEFT_OUT = ("index", "seq", "subjects", "tokens", "line")
_KEPT = [name for name in CHUNK_SCHEMA.names if name not in _LEFT_OUT]


class ParquetFile:
    """The file for one cut; compressed inside, so no framing goes around it."""

    name = "parquet"
    version = f"1+arrow-{pa.__version__}"
    content_type = "application/vnd.apache.parquet"
    suffix = ".parquet"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        rows = columns_from_lines(lines, range(len(lines)), range(len(lines)))
        tenant = decode_line(lines[0]).tenant or "" if lines else ""
        table = rows.select(_KEPT).append_column("tenant", pa.array([tenant] * len(lines), pa.string()))
        table = table.append_column("line", rows["line"].cast(pa.string()))
        sink = pa.BufferOutputStream()
        writer = pq.ParquetWriter(sink, table.schema, compression="zstd", compression_level=3, store_schema=False)
        writer.add_key_value_metadata(
            {
                "tallystick.log": origin,
                "tallystick.first_index": str(first_index),
                "tallystick.last_index": str(last_index),
                "tallystick.batch_root": base64.b64encode(joined_root(event_hashes(lines))).decode(),
            }
        )
        with writer:
            writer.write_table(table)
        body: bytes = sink.getvalue().to_pybytes()
        return body


def make(options: object) -> ParquetFile:
    """No option matters here."""
    return ParquetFile()
