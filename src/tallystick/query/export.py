"""Exports: batches of events as JSON lines, CSV or Parquet, encoded as they come.

JSON lines are the canonical lines, byte for byte, so each is a leaf of the tree. CSV is for spreadsheets: one row an event
with the columns of `CSV_COLUMNS`, and every text that a spreadsheet might take for a formula (OWASP, "CSV Injection") gets
a leading apostrophe. Parquet has the columns of a chunk, in clear.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tallystick.archive.columns import CHUNK_SCHEMA
from tallystick.errors import QueryError

Format = Literal["jsonl", "csv", "parquet"]

MEDIA_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
CSV_COLUMNS = (
    *("index", "id", "occurred_at", "received_at", "action", "category", "severity", "outcome"),
    *("actor_type", "actor_id", "target_type", "target_id", "ip", "session_id", "request_id", "source", "line"),
)
PARQUET_SCHEMA = pa.schema([CHUNK_SCHEMA.field(name) for name in CHUNK_SCHEMA.names if name not in ("seq", "tokens")])

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


def columns_for(form: Format) -> Sequence[str]:
    """The columns of `CHUNK_SCHEMA` that an export needs. Raises QueryError for an unknown format."""
    match form:
        case "jsonl":
            return ("index", "line")
        case "csv":
            return CSV_COLUMNS
        case "parquet":
            return tuple(PARQUET_SCHEMA.names)
    raise QueryError(f"no export format is named {form!r}", hint="There are: jsonl, csv, parquet")


def encode_export(tables: Iterator[pa.Table], form: Format) -> Iterator[bytes]:
    """The file's bytes, at least one piece for each table."""
    match form:
        case "jsonl":
            return _json_lines(tables)
        case "csv":
            return _csv(tables)
        case "parquet":
            return _parquet(tables)


def _json_lines(tables: Iterator[pa.Table]) -> Iterator[bytes]:
    for table in tables:
        if table.num_rows:
            yield b"\n".join([*table["line"].to_pylist(), b""])


def _csv(tables: Iterator[pa.Table]) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(CSV_COLUMNS)
    for table in tables:
        columns = [map(_cell, table[name].to_pylist()) for name in CSV_COLUMNS]
        writer.writerows(zip(*columns, strict=True))
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def _cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case int():
            return value
        case list():
            return guard_formula(" ".join(value))
        case bytes():
            return guard_formula(value.decode("utf-8", "replace"))
        case str():
            return guard_formula(value)
    return value.isoformat()


def guard_formula(text: str) -> str:
    """The text, with an apostrophe before it when a spreadsheet could run it."""
    return "'" + text if text.startswith(_FORMULA_STARTS) else text


def _parquet(tables: Iterator[pa.Table]) -> Iterator[bytes]:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, PARQUET_SCHEMA, compression="zstd") as writer:
        for table in tables:
            if table.num_rows:
                writer.write_table(table.select(PARQUET_SCHEMA.names).cast(PARQUET_SCHEMA))
            yield _drain(sink)
    yield _drain(sink)


def _drain(sink: io.BytesIO) -> bytes:
    data = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return data
