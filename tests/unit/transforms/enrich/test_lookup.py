"""Tables of one's own: CSV and Parquet, the three ways to match, what makes a file bad."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.transforms.enrich.dataset import BadFileError, Content
from tallystick.transforms.enrich.lookup import Table
from tallystick.transforms.enrich.settings import EnrichSettings, LookupSettings


def table(data: bytes, name: str = "t.csv", match: str = "exact", limits: EnrichSettings | None = None, **columns: str) -> Table:
    told = {"file": name, "key": "actor.id", "column": "k", "columns": columns or {"v": "v"}, "to": "enrichment.t", "match": match}
    settings = msgspec.convert(told, LookupSettings)
    return Table(Content(Path(name), data, "2026-03-04T10:00:00Z", 0.0), settings, limits or EnrichSettings())


def value(found: dict[str, Any] | None) -> Any:
    return None if found is None else found["v"]


def test_csv_as_spreadsheets_write_it() -> None:
    """A byte order mark, quotes with line breaks, CRLF, empty lines and cells, columns that nobody asked for."""
    made = table(b'\xef\xbb\xbfx,k,v,w\r\n1,a,"two\r\nlines, ""quoted""",w\r\n\r\n2,b,,w\r\n3,,v,w\r\n', v="deep.v", w="w")
    dataset = {"name": "t.csv", "date": "2026-03-04T10:00:00Z"}
    assert made.find("a") == {"deep": {"v": 'two\r\nlines, "quoted"'}, "w": "w", "dataset": dataset}
    assert made.find("b") == {"w": "w", "dataset": dataset}
    assert made.find("A") is made.find("") is made.find("k") is None


def test_case_and_networks() -> None:
    """Names in any case; the narrowest network that holds an address, which may be written as IPv6 may write it."""
    assert value(table(b"k,v\nAnn,1\n", match="ignore_case").find("aNN")) == "1"
    made = table(b"k,v\n10.0.0.0/8,wide\n10.1.0.0/16,narrow\n10.1.2.3,one\n2001:db8::/32,six\n", match="network")
    assert [value(made.find(one)) for one in ("10.1.2.3", "10.1.2.4", "10.2.0.1", "::ffff:10.1.9.9", "2001:db8::1%eth0")] == [
        "one",
        "narrow",
        "wide",
        "narrow",
        "six",
    ]
    assert [made.find(one) for one in ("11.0.0.1", "2001:db9::1", "host", "")] == [None] * 4


def test_parquet_with_types(tmp_path: Path) -> None:
    """Numbers, booleans, times and nulls of Parquet become those of JSON."""
    path = tmp_path / "t.parquet"
    day = datetime.date(2026, 3, 4)
    pq.write_table(pa.table({"k": [1, 2], "v": [True, None], "f": [1.5, float("nan")], "d": [day, None], "x": [[1], [2]]}), path)
    made = table(path.read_bytes(), "t.parquet", v="v", f="f", d="d")
    found = made.find("1")
    assert found is not None
    assert (found["v"], found["f"], found["d"]) == (True, 1.5, "2026-03-04")
    assert made.find("2") is None
    for data, words in (
        (path.read_bytes()[:-9], "no Parquet file"),
        (path.read_bytes(), "a cell is no text"),
    ):
        with pytest.raises(BadFileError, match=words):
            table(data, "t.parquet", x="x")
    with pytest.raises(BadFileError, match="rows_max"):
        table(path.read_bytes(), "t.parquet", limits=EnrichSettings(rows_max=1))


def test_parquet_that_unpacks_to_too_much(tmp_path: Path) -> None:
    """A small file with a large content is refused before it is unpacked."""
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table({"k": [f"{n:07d}" + "x" * 1000 for n in range(2000)], "v": ["v"] * 2000}),
        path,
        compression="zstd",
        use_dictionary=False,
    )
    assert path.stat().st_size < 500_000
    limits = msgspec.convert({"file_max": "1MiB"}, EnrichSettings, dec_hook=lambda kind, text: kind(text))
    with pytest.raises(BadFileError, match="when unpacked"):
        table(path.read_bytes(), "t.parquet", limits=limits)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1: the column 'k'"),
        (b"k,k,v\n", "line 1: the column 'k'"),
        (b"k,v\na,1\na,2\n", "line 3: k 'a' is there already"),
        (b"k,v\na\n", "line 2: it has 1 cells"),
        (b'k,v\na,"x', "line 2: it is no CSV"),
        (b"k,v\na,\xff\n", "line 2: it is not UTF-8"),
        (b"k,v\na,x\0\n", "line 2: there is a NUL"),
    ],
)
def test_bad_files_are_refused_with_their_line(data: bytes, words: str) -> None:
    """Whatever could be told wrongly is not told at all."""
    with pytest.raises(BadFileError) as caught:
        table(data)
    assert words in str(caught.value)


def test_a_network_table_takes_networks_only() -> None:
    """And each once."""
    for data in (b"k,v\nhost,1\n", b"k,v\n10.0.0.0/8,1\n10.0.0.1/8,2\n"):
        with pytest.raises(BadFileError):
            table(data, match="network")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_bad(data: bytes) -> None:
    """Nothing else is raised."""
    for name in ("t.csv", "t.parquet"):
        try:
            table(b"k,v\n" + data, name).find("a")
        except BadFileError:
            pass
