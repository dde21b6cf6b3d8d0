"""Exports: every match once, in tree order, safe to open."""

from __future__ import annotations

import csv
import io

import pyarrow.parquet as pq
import pytest

from tallystick.errors import QueryError
from tallystick.query.export import CSV_COLUMNS, guard_formula
from tallystick.query.request import SearchRequest
from unit.query.installation import Installation, make_line, make_lines


def export(installation: Installation, form: str, query: str = "") -> bytes:
    return b"".join(installation.engine.export(SearchRequest(tenants=("acme",), query=query), form))  # type: ignore[arg-type]


async def test_json_lines_are_the_leaves_in_tree_order(installation: Installation) -> None:
    """Chunks of two retention classes that interleave, and the hot part, come out as they were accepted, byte for byte."""
    classes = ["standard", "long", "standard", "standard"]
    lines = [make_line(n, ingest={"class": classes[n % 4], "config": "", "salt": ""}) for n in range(100)]
    await installation.append(lines[:40])
    installation.archive()
    await installation.append(lines[40:70])
    installation.archive()
    await installation.append(lines[70:])
    assert export(installation, "jsonl") == b"\n".join([*lines, b""])
    assert export(installation, "jsonl", "metadata.n:50 OR metadata.n:3") == b"\n".join([lines[3], lines[50], b""])


async def test_csv_is_safe_against_formula_injection(installation: Installation) -> None:
    """A text that a spreadsheet would run starts with an apostrophe."""
    await installation.append(
        [
            make_line(
                1, actor={"type": "user", "id": "=cmd|' /C calc'!A0"}, targets=[{"type": "a", "id": "@x"}, {"type": "b", "id": "y"}]
            )
        ]
    )
    rows = list(csv.DictReader(io.StringIO(export(installation, "csv").decode())))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert rows[0]["actor_id"] == "'=cmd|' /C calc'!A0"
    assert rows[0]["target_id"] == "'@x y"
    assert rows[0]["occurred_at"] == "2026-09-14T08:00:01+00:00"
    assert guard_formula("-1+1") == "'-1+1"
    assert guard_formula("a=1") == "a=1"


async def test_parquet_can_be_read_anywhere(installation: Installation) -> None:
    """The export is one plain Parquet file with all matches."""
    await installation.append(make_lines(30))
    installation.archive()
    await installation.append(make_lines(30, start=30))
    table = pq.read_table(io.BytesIO(export(installation, "parquet", "outcome:denied")))
    assert table["index"].to_pylist() == [n for n in range(60) if n % 5 == 0]
    assert table["line"].to_pylist() == [installation.sent["acme"][n] for n in range(0, 60, 5)]


async def test_an_empty_export_is_a_valid_file(installation: Installation) -> None:
    """No match: no line, a header, a Parquet file without rows."""
    await installation.append(make_lines(3))
    assert export(installation, "jsonl", "nothing_like_it") == b""
    assert len(export(installation, "csv", "nothing_like_it").splitlines()) == 1
    assert pq.read_table(io.BytesIO(export(installation, "parquet", "nothing_like_it"))).num_rows == 0
    with pytest.raises(QueryError):
        installation.engine.export(SearchRequest(tenants=("acme",)), "xlsx")  # type: ignore[arg-type]
    with pytest.raises(QueryError):
        installation.engine.export(SearchRequest(tenants=("acme",), query="a ("))
