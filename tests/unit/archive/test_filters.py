from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.archive.catalog import Catalog, CatalogWriter, ChunkRow
from tallystick.archive.columns import columns_from_lines
from tallystick.archive.filters import FilterReader, build_filters
from tallystick.errors import IntegrityError
from tallystick.privacy.keys import KeyStore
from unit.archive.lines import HANDLE, make_lines

MONTH = "2026-09"


def _row(number: int) -> ChunkRow:
    return ChunkRow(
        bytes([number]) * 16,
        HANDLE,
        "standard",
        MONTH,
        number * 1000,
        number * 1000 + 999,
        1000,
        0,
        1,
        0,
        1,
        10,
        bytes(32),
        f"n{number}",
    )


@pytest.fixture
def catalog(tmp_path: Path, keys: KeyStore) -> Catalog:
    """Two chunks of 1,000 events: ids and targets differ, actors are the same hundred, all from one address."""
    epoch_key = keys.epoch_key(HANDLE, "standard", MONTH, create=True)
    writer = CatalogWriter(tmp_path / "catalog.sqlite")
    with writer.creating():
        for number in (1, 2):
            table = columns_from_lines(make_lines(1000, number * 1000), range(1000), range(1000))
            writer.add_chunks([(_row(number), build_filters(table, epoch_key, _row(number).chunk_id))])
    return Catalog(tmp_path / "catalog.sqlite")


def test_what_is_there_is_always_found(catalog: Catalog, keys: KeyStore) -> None:
    """A filter never excludes a chunk that holds the value, in exact lists, Bloom filters and lists of targets."""
    reader, rows = FilterReader(catalog, keys), [_row(1), _row(2)]
    for number in range(1000, 2000):
        assert _row(1) in reader.having(rows, "id", f"0199a000-0000-7000-8000-{number:012x}")
        assert _row(1) in reader.having(rows, "target_id", f"u_{number}")
    assert reader.having(rows, "ip", "10.1.2.3") == rows
    assert reader.having(rows, "metadata.size", "1") == rows


def test_what_is_not_there_is_hardly_ever_found(catalog: Catalog, keys: KeyStore) -> None:
    """An exact list is never wrong; a Bloom filter is wrong in about 0.8 % of lookups."""
    reader, rows = FilterReader(catalog, keys), [_row(1), _row(2)]
    assert reader.having(rows, "action", "user.login") == []
    assert reader.having(rows, "actor_type", "service") == []
    wrong = sum(len(reader.having(rows, "id", f"other-{number}")) for number in range(1000))
    assert 0 < wrong < 60


def test_a_test_prunes_exact_lists_only(catalog: Catalog, keys: KeyStore) -> None:
    """A wildcard prunes by the exact list of actions; where only a Bloom filter is there, the chunk stays."""
    reader, rows = FilterReader(catalog, keys), [_row(1), _row(2)]
    assert reader.matching(rows, "action", lambda action: action.startswith("user.")) == []
    assert reader.matching(rows, "action", lambda action: action.startswith("role.")) == rows
    assert reader.matching(rows, "id", lambda _value: False) == rows


def test_filters_are_encrypted_and_bound_to_their_place(catalog: Catalog, keys: KeyStore, tmp_path: Path) -> None:
    """No value is in the catalog's files; a filter moved to another column, or opened with other keys, is refused."""
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("catalog.sqlite*"))
    assert b"role.grant" not in stored
    assert b"10.1.2.3" not in stored
    writer = CatalogWriter(tmp_path / "catalog.sqlite")
    moved = catalog.filter(_row(1).chunk_id, "action")
    assert moved is not None
    writer.forget_chunks([_row(1).chunk_id])
    writer.add_chunks([(_row(1), {"ip": moved})])
    with pytest.raises(IntegrityError):
        FilterReader(catalog, keys).having([_row(1)], "ip", "10.1.2.3")


def test_a_destroyed_epoch_key_takes_the_filters_with_it(catalog: Catalog, tmp_path: Path) -> None:
    """Without the month's key no chunk of it can match, and no guess can be tried."""
    other = KeyStore.create(tmp_path / "other.keys")
    assert FilterReader(catalog, other).having([_row(1)], "action", "role.grant") == []
