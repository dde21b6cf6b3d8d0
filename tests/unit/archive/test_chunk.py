from __future__ import annotations

import hashlib
import hmac

import pyarrow.parquet as pq
import pytest

from tallystick.archive.chunk import (
    ROW_GROUP_ROWS,
    ChunkName,
    chunk_key,
    encode_chunk,
    new_chunk_id,
    open_chunk,
    parse_name,
    read_columns,
)
from tallystick.archive.columns import columns_from_lines
from tallystick.errors import IntegrityError
from unit.archive.lines import HANDLE, make_line, make_lines

KEY = bytes(range(32))


def test_name_has_range_and_id() -> None:
    """The path is the documented one, and the chunk id can be read back from it."""
    name = ChunkName(HANDLE, "standard", "2026-09-14", 5, 120, bytes(range(16)))
    assert name.path == (
        f"{HANDLE}/standard/2026/09/14/00000000000000000005-00000000000000000120-000102030405060708090a0b0c0d0e0f.parquet"
    )
    assert parse_name(name.path) == parse_name(name.manifest_path) == parse_name(name.stem) == name
    with pytest.raises(IntegrityError):
        parse_name("lost+found/x.parquet")


def test_key_is_derived_as_published() -> None:
    """The key of a chunk is HMAC-SHA256(EK, "ts-chunk1" ‖ chunk id), by the standard library's own HMAC."""
    chunk_id = new_chunk_id()
    assert chunk_key(KEY, chunk_id) == hmac.new(KEY, b"ts-chunk1" + chunk_id, hashlib.sha256).digest()


def test_nothing_is_readable_without_the_key() -> None:
    """Neither a value nor a column's name is in the file, and neither no key nor another key opens it."""
    data = encode_chunk([columns_from_lines([make_line(1, reason="MARKER")], [0], [0])], KEY)
    assert b"PARE" in data
    for text in (b"MARKER", b"role.grant", b"actor_id", b"tallystick"):
        assert text not in data
    with pytest.raises(IntegrityError):
        open_chunk(data, bytes(32))
    with pytest.raises(OSError):
        pq.ParquetFile(__import__("pyarrow").BufferReader(data))


def test_every_flipped_bit_of_a_column_is_found() -> None:
    """A changed byte anywhere between the magic bytes fails the read; it never gives other rows."""
    table = columns_from_lines(make_lines(20), range(20), range(20))
    data = encode_chunk([table], KEY)
    found = 0
    for place in range(4, len(data) - 8, max(1, len(data) // 150)):
        changed = bytearray(data)
        changed[place] ^= 0x10
        try:
            same = read_columns(open_chunk(bytes(changed), KEY)).equals(table)
        except IntegrityError:
            found += 1
        else:
            assert same, place  # a byte that no column read depends on, such as an unused length
    assert found > 100


def test_row_groups_are_cut_anew() -> None:
    """Batches of any size become row groups of one size, in order."""
    count = ROW_GROUP_ROWS + 10
    table = columns_from_lines([make_line(0)] * count, range(count), range(count))
    file = open_chunk(encode_chunk([table.slice(0, 5), table.slice(5, 100), table.slice(105)], KEY), KEY)
    assert [file.metadata.row_group(place).num_rows for place in range(2)] == [ROW_GROUP_ROWS, 10]
    assert read_columns(file, ["index"]).column("index").to_pylist() == list(range(count))
