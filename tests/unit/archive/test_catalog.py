from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tallystick.archive.catalog import Catalog, CatalogWriter, ChunkRow, MarkMove, QuarantineRow, View, Window
from tallystick.errors import FormatRefusedError, IntegrityError
from unit.archive.lines import HANDLE


def _row(first: int, last: int, **changes: object) -> ChunkRow:
    row = ChunkRow(
        first.to_bytes(16, "big"),
        HANDLE,
        "standard",
        "2026-09",
        first,
        last,
        last - first + 1,
        first * 10,
        last * 10,
        first * 10,
        last * 10,
        500,
        bytes(32),
        f"{first}.parquet",
    )
    return replace(row, **changes)  # type: ignore[arg-type]


@pytest.fixture
def writer(tmp_path: Path) -> CatalogWriter:
    writer = CatalogWriter(tmp_path / "catalog.sqlite")
    with writer.creating():
        pass
    return writer


def test_no_catalog_reads_as_empty(tmp_path: Path) -> None:
    """Before the archiver's first start, and while one is being made, nothing is archived."""
    catalog = Catalog(tmp_path / "catalog.sqlite")
    assert (catalog.mark(HANDLE), catalog.chunks(HANDLE), catalog.marks(), catalog.quarantine_end()) == (0, [], {}, (-1, -1))
    (tmp_path / "catalog.sqlite").touch()
    assert catalog.view(HANDLE) == View(0, [])


def test_an_interrupted_creation_leaves_no_catalog(tmp_path: Path) -> None:
    """A failure while rebuilding leaves a file that does not count, and creating it again works."""
    writer = CatalogWriter(tmp_path / "catalog.sqlite")
    with pytest.raises(IntegrityError), writer.creating():
        writer.add_chunks([(_row(0, 9), {})], [MarkMove(HANDLE, 5, 10)])
    assert not writer.is_complete
    with writer.creating():
        writer.add_chunks([(_row(0, 9), {})], [MarkMove(HANDLE, 0, 10)])
    assert writer.is_complete
    assert Catalog(tmp_path / "catalog.sqlite").view(HANDLE) == View(10, [_row(0, 9)])


def test_mark_and_chunks_move_together(writer: CatalogWriter) -> None:
    """A reader sees new chunks and the new mark, or neither; a mark that moved elsewhere changes nothing."""
    catalog = Catalog(writer.path)
    writer.add_chunks([(_row(0, 9), {"id": b"x"})], [MarkMove(HANDLE, 0, 10)], [(HANDLE, 10, 2)])
    assert catalog.view(HANDLE) == View(10, [_row(0, 9)])
    with pytest.raises(IntegrityError):
        writer.add_chunks([(_row(10, 19), {})], [MarkMove(HANDLE, 0, 20)])
    assert catalog.view(HANDLE) == View(10, [_row(0, 9)])
    assert catalog.lost(HANDLE) == [(10, 2)]
    assert catalog.filter(_row(0, 9).chunk_id, "id") == b"x"


def test_window_keeps_what_may_overlap(writer: CatalogWriter) -> None:
    """Index and time bounds keep exactly the chunks whose ranges overlap them; ends are exclusive."""
    rows = [_row(0, 9), _row(10, 19), _row(20, 29)]
    writer.add_chunks([(row, {}) for row in rows], [MarkMove(HANDLE, 0, 30)])
    assert writer.chunks(HANDLE, Window(first=10, end=20)) == rows[1:2]
    assert writer.chunks(HANDLE, Window(occurred_from=90, occurred_to=100)) == rows[:1]
    assert writer.chunks(HANDLE, Window(received_from=190)) == rows[1:]
    assert writer.chunks("b" * 16) == []


def test_replaced_chunks_wait_for_their_deletion(writer: CatalogWriter) -> None:
    """After a merge only the new chunk is current; the old ones are listed until they are forgotten."""
    writer.add_chunks([(_row(0, 9), {"id": b"x"}), (_row(10, 19), {})])
    merged = _row(0, 19, chunk_id=b"m" * 16)
    writer.replace_chunks(merged, {}, [_row(0, 9).chunk_id, _row(10, 19).chunk_id], at=1000)
    assert writer.chunks(HANDLE) == [merged]
    assert writer.replaced(999) == []
    old = writer.replaced(1000)
    assert [row.name for row in old] == ["0.parquet", "10.parquet"]
    assert writer.chunk(old[0].chunk_id) == replace(_row(0, 9), replaced_by=b"m" * 16, replaced_at=1000)
    assert writer.filter(old[0].chunk_id, "id") is None
    writer.forget_chunks([row.chunk_id for row in old])
    assert writer.replaced(1000) == []


def test_readers_follow_a_rebuilt_file(writer: CatalogWriter) -> None:
    """A reader that has the old file open reads the new one as soon as it is there."""
    catalog = Catalog(writer.path)
    writer.add_chunks([(_row(0, 9), {})], [MarkMove(HANDLE, 0, 10)])
    assert catalog.mark(HANDLE) == 10
    writer.close()
    for path in writer.path.parent.glob("catalog.sqlite*"):
        path.unlink()
    other = CatalogWriter(writer.path)
    with other.creating():
        other.add_chunks([(_row(0, 4), {})], [MarkMove(HANDLE, 0, 5)])
    assert catalog.mark(HANDLE) == 5


def test_readers_cannot_write(writer: CatalogWriter) -> None:
    """The reading side has no way to change the file."""
    with Catalog(writer.path)._reading() as connection:
        assert connection is not None
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM marks")


def test_a_newer_catalog_is_refused(writer: CatalogWriter) -> None:
    """A catalog of a later format is not read as if it were ours."""
    connection = sqlite3.connect(writer.path)
    connection.execute("UPDATE complete SET version = 99")
    connection.commit()
    with pytest.raises(FormatRefusedError):
        Catalog(writer.path).mark(HANDLE)


def test_quarantine_rows_are_kept_once(writer: CatalogWriter) -> None:
    """Indexing the same records again, as after a crash, changes nothing; lists go by tenant and seq."""
    rows = [
        QuarantineRow(seq, seq, HANDLE if seq % 2 else "", "hook", "bad_json", "2026-09-14T10:00:00.000000Z") for seq in range(4)
    ]
    writer.add_quarantined(rows)
    writer.add_quarantined([replace(rows[0], ordinal=99), *rows])
    assert writer.quarantined() == rows
    assert writer.quarantined(1, [HANDLE]) == [rows[3]]
    assert writer.quarantine_end() == (3, 3)
