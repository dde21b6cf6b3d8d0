from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tallystick.archive.archiver import Archiver
from tallystick.archive.catalog import CatalogDamagedError
from tallystick.archive.filters import FILTERED_COLUMNS, FilterReader
from tallystick.archive.store import ArchiveStore
from tallystick.config import Duration, Size
from tallystick.durable import StateFile
from tallystick.journal.entries import QuarantinedRecord
from unit.archive.bench import Bench, finish
from unit.archive.lines import make_line, make_lines


async def _fill(bench: Bench, flushes: int = 10) -> str:
    """Ten flushes of two classes, merged in between; one quarantined record each. Returns the handle."""
    acme = bench.tenants.get("acme") or bench.tenants.create("acme")
    record = QuarantinedRecord(handle=acme.handle, source="hook", code="bad", message="m", received_at="t", data=b"{")
    archiver = bench.archiver()
    for _ in range(flushes):
        start = len(bench.sent.get(acme.handle, []))
        lines = [make_line(number, ingest={"class": "long" if number % 3 else "standard"}) for number in range(start, start + 5)]
        await bench.append(acme, lines, [record])
        finish(archiver)
        archiver.flush()
        finish(archiver)
    return acme.handle


def _contents(bench: Bench, handle: str) -> tuple[object, ...]:
    catalog = bench.catalog
    replaced = [replace(row, replaced_at=0) for row in catalog.replaced(2**40)]
    rows = catalog.chunks(handle)
    filters = FilterReader(catalog, bench.keys)
    plain = [filters._open(catalog.filter(row.chunk_id, name) or b"", row, name) for row in rows for name in FILTERED_COLUMNS]
    return catalog.marks(), rows, sorted(replaced, key=lambda row: row.name), plain, catalog.quarantined()


def _delete_catalog(bench: Bench) -> None:
    for path in bench.data_dir.glob("catalog.sqlite*"):
        path.unlink()


async def test_a_deleted_catalog_comes_back_the_same(make_bench: Callable[..., Bench]) -> None:
    """Marks, chunks, what was replaced, filters and the quarantine's index are as before."""
    bench = make_bench(merge_grace=Duration("1h"))
    handle = await _fill(bench)
    before = _contents(bench, handle)
    assert before[2]
    _delete_catalog(bench)
    assert bench.catalog.mark(handle) == 0
    bench.archiver()
    assert _contents(bench, handle) == before
    bench.check()


async def test_a_damaged_catalog_is_rebuilt(make_bench: Callable[..., Bench]) -> None:
    """A file that is no database, and one with a page overwritten, are replaced at the next start."""
    bench = make_bench()
    handle = await _fill(bench, 2)
    before = _contents(bench, handle)
    path = bench.data_dir / "catalog.sqlite"
    for keep in (0, 4096):
        sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        whole = path.read_bytes()
        path.write_bytes(whole[:keep] + b"\xff" * (len(whole) - keep))
        with pytest.raises(CatalogDamagedError):
            bench.catalog.mark(handle)
        bench.archiver()
        assert _contents(bench, handle) == before


async def test_an_older_catalog_is_rebuilt(make_bench: Callable[..., Bench]) -> None:
    """A copy from before the last rounds, put back while the journal has moved on, takes nothing away."""
    bench = make_bench(merge_grace=Duration("1h"))
    handle = await _fill(bench, 2)
    earlier = {path: path.read_bytes() for path in bench.data_dir.glob("catalog.sqlite*")}
    await _fill(bench, 2)
    before = _contents(bench, handle)
    _delete_catalog(bench)
    for path, data in earlier.items():
        path.write_bytes(data)
    assert bench.catalog.mark(handle) < before[0][handle]  # type: ignore[index]
    bench.archiver()
    assert _contents(bench, handle)[:2] == before[:2]
    bench.check()


async def test_a_damaged_catalog_is_rebuilt_while_running(make_bench: Callable[..., Bench]) -> None:
    """Damage that shows only later stops nothing: the catalog is rebuilt and archiving goes on."""
    bench = make_bench()
    handle = await _fill(bench, 2)
    archiver = Archiver(bench.config, bench.keys, clock=lambda: bench.now)
    path = bench.data_dir / "catalog.sqlite"
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    filters_at = _page_of(path, "filters")
    with path.open("r+b") as file:
        file.seek(filters_at)
        file.write(b"\xff" * 4096)
    acme = bench.tenants.get("acme")
    assert acme is not None
    await bench.append(acme, make_lines(3, 10))
    bench.run_until(archiver, lambda: bench.catalog.mark(handle) == 13, now=bench.now + 7200)
    bench.check()


def _page_of(path: Path, table: str) -> int:
    """Offset in bytes of a table's root page; the light check at start does not read this one."""
    query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
    return (sqlite3.connect(path).execute(query, (table,)).fetchone()[0] - 1) * 4096


async def test_objects_of_an_interrupted_round_do_not_come_back(make_bench: Callable[..., Bench]) -> None:
    """Catalog lost in the middle of a round: its objects are deleted first, and the journal brings the events again, once."""
    bench = make_bench()
    handle = await _fill(bench, 2)
    acme = bench.tenants.get("acme")
    assert acme is not None
    await bench.append(acme, make_lines(5, 10))
    archiver = bench.archiver()
    finish(archiver)
    archiver._writer._intent.save = _intent_that_stays(archiver._writer._intent)  # type: ignore[method-assign]
    archiver._save_cursor = lambda **_: None  # type: ignore[method-assign,assignment]
    archiver.flush()  # complete, but neither the emptied intent nor the cursor reached the disk
    _delete_catalog(bench)
    archiver = bench.archiver()
    assert bench.catalog.mark(handle) == 10
    finish(archiver)
    archiver.flush()
    bench.check()


def _intent_that_stays(state: StateFile) -> Callable[[bytes], None]:
    save = state.save
    return lambda payload: save(payload) if msgspec.json.decode(payload) else None


async def test_forged_and_broken_objects_are_left_out(make_bench: Callable[..., Bench]) -> None:
    """A manifest that another key signed, a missing chunk and a changed chunk cost only themselves, and show as lost."""
    bench = make_bench(merge_below=Size("1B"))
    handle = await _fill(bench, 6)
    store = ArchiveStore.open(bench.config)
    rows = bench.catalog.chunks(handle)
    root = Path(bench.config.archive_url)
    gone, changed, forged = rows[0], rows[3], rows[5]
    store.delete(gone.name)
    data = bytearray((root / changed.name).read_bytes())
    data[100] ^= 1
    (root / changed.name).write_bytes(data)
    manifest = root / forged.name.replace(".parquet", ".manifest")
    manifest.write_text(manifest.read_text().replace("class ", "class x"))
    _delete_catalog(bench)
    bench.archiver()
    left = [row for row in rows if row not in (gone, changed, forged)]
    assert bench.catalog.chunks(handle) == left
    present = {index for row in left for index in bench.reader().open_chunk(row, ["index"])["index"].to_pylist()}
    lost = {index for first, count in bench.catalog.lost(handle) for index in range(first, first + count)}
    assert present | lost == set(range(30))
    assert not present & lost


async def test_merged_chunks_go_after_the_grace(make_bench: Callable[..., Bench]) -> None:
    """Replaced objects stay readable for the grace, then object, manifest and row are gone."""
    bench = make_bench(merge_grace=Duration("10m"))
    handle = await _fill(bench, 8)
    old = bench.catalog.replaced(2**40)
    assert len(old) == 16
    assert bench.reader().open_chunk(old[0]).num_rows == old[0].count
    archiver = bench.archiver()
    bench.now += 601
    finish(archiver)
    assert bench.catalog.replaced(2**40) == []
    assert len(list(ArchiveStore.open(bench.config).list())) == 4
    assert len(bench.catalog.chunks(handle)) == 2
    bench.check()
