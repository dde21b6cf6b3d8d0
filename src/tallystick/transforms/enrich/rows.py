"""Rows of a CSV or Parquet file: the columns that are asked for, as text, each row with its place."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from tallystick.transforms.enrich.dataset import BadFileError, Content

Row = tuple[int, list[Any]]
"""Where it stands (the line of its end in CSV, the row in Parquet; from 1), and a value for each column asked for; None: an empty cell."""


def read_rows(content: Content, columns: Sequence[str], rows_max: int, bytes_max: int) -> Iterator[Row]:
    """The rows. Raises BadFileError for what is no table, has not these columns, or is larger than it may be."""
    is_parquet = content.path.suffix == ".parquet"
    rows = _parquet_rows(content.data, columns, rows_max, bytes_max) if is_parquet else _csv_rows(content.data, columns)
    for count, row in enumerate(rows, 1):
        if count > rows_max:
            raise BadFileError(f"line {row[0]}: there are more than the {rows_max} rows of `rows_max`")
        yield row


def text_of(data: bytes) -> str:
    """The text of a file. Raises BadFileError: no UTF-8, or with a NUL, which no event may have."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFileError(f"line {data[: error.start].count(10) + 1}: it is not UTF-8 text") from error
    if "\0" in text:
        raise BadFileError(f"line {text[: text.index(chr(0))].count(chr(10)) + 1}: there is a NUL in it")
    return text


def _csv_rows(data: bytes, columns: Sequence[str]) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text_of(data), newline=""), strict=True)
    try:
        names = next(reader, [])
        places = [_place(names, column) for column in columns]
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                raise BadFileError(f"line {reader.line_num}: it has {len(cells)} cells, the first line {len(names)}")
            yield reader.line_num, [cells[place] or None for place in places]
    except csv.Error as error:
        raise BadFileError(f"line {reader.line_num}: it is no CSV: {error}") from error


def _place(names: Sequence[str], column: str) -> int:
    if names.count(column) != 1:
        found = ", ".join(names[:20])
        raise BadFileError(f"line 1: the column {column!r} must be there once; there are: {found[:200]}")
    return names.index(column)


def _parquet_rows(data: bytes, columns: Sequence[str], rows_max: int, bytes_max: int) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        facts = file.metadata
        for column in columns:
            _place(file.schema_arrow.names, column)
        if facts.num_rows > rows_max:
            raise BadFileError(f"it has {facts.num_rows} rows, more than the {rows_max} of `rows_max`")
        unpacked = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
        if unpacked > bytes_max:
            raise BadFileError(f"it has {unpacked} bytes when unpacked, more than the {bytes_max} of `file_max`")
        number = 0
        for batch in file.iter_batches(columns=list(dict.fromkeys(columns)), batch_size=8_192):
            lists = [batch.column(column).to_pylist() for column in columns]
            for cells in zip(*lists, strict=True):
                number += 1
                yield number, list(cells)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadFileError(f"it is no Parquet file that can be read: {error}") from error
