"""Rows of a Parquet file as JSON records, a row group at a time: what Amazon Security Lake writes.

Members without a value are left out; times are RFC 3339, bytes base64, decimals text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

MAGIC = b"PAR1"
_ROWS = 500

_encode = msgspec.json.Encoder(decimal_format="string").encode


class DamagedParquetError(Exception):
    """No Parquet, or not as it should be, or more than may be read."""


def parquet_rows(file: Any, size_max: int, rows_max: int) -> Iterator[bytes]:
    """Each row as a JSON object. ``file`` is a seekable binary file; what it raises passes through. ``size_max``: bytes of content.

    Raises DamagedParquetError.
    """
    try:
        table = pq.ParquetFile(file, pre_buffer=False, coerce_int96_timestamp_unit="us")
        groups = table.metadata.num_row_groups
        size = sum(table.metadata.row_group(number).total_byte_size for number in range(groups))
        if size > size_max:
            raise DamagedParquetError(f"its content is {size} bytes, more than {size_max} (object_max)")
        for batch in table.iter_batches(batch_size=min(_ROWS, rows_max)):
            for row in batch.to_pylist(maps_as_pydicts="lossy"):
                yield _encode(_without_nothing(row))
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise DamagedParquetError(f"no readable Parquet: {str(error)[:300]}") from error


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nothing(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nothing(one) for one in value]
    return value
