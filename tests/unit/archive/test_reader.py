from __future__ import annotations

from collections.abc import Callable

import pytest

from support.moto import S3Server
from tallystick.archive.store import ArchiveStore
from tallystick.config import Duration, Size
from tallystick.errors import IntegrityError, NotFoundError
from unit.archive.bench import Bench, finish
from unit.archive.lines import make_event, make_lines


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest) -> dict[str, object]:
    if request.param == "local":
        return {}
    server: S3Server = request.getfixturevalue("s3")
    return {"store": f"s3://{server.new_bucket()}/archive", "options": server.options}


async def _archive(bench: Bench, flushes: int, lines: int = 20) -> str:
    acme = bench.tenants.get("acme") or bench.tenants.create("acme")
    archiver = bench.archiver()
    for _ in range(flushes):
        await bench.append(acme, make_lines(lines, len(bench.sent.get(acme.handle, []))))
        finish(archiver)
        archiver.flush()
    return acme.handle


async def test_lines_and_events_are_found(make_bench: Callable[..., Bench], place: dict[str, object]) -> None:
    """Ranges over chunk borders, single rows and ids give the very lines that were sent, from disk and from a bucket."""
    bench = make_bench(**place)
    handle = await _archive(bench, 3)
    reader, sent = bench.reader(), bench.sent[handle]
    assert reader.lines(handle, 15, 30) == list(enumerate(sent))[15:45]
    assert reader.lines(handle, 60, 5) == []
    for number in (0, 19, 20, 59):
        found = reader.find(handle, make_event(number)["id"])
        assert found is not None
        assert (found.index, found.line) == (number, sent[number])
    assert reader.find(handle, "no-such-id") is None
    assert reader.find("b" * 16, make_event(0)["id"]) is None
    row = reader.catalog.chunks(handle)[1]
    rows = reader.read_rows(row, [0, 7, 19], ["index", "line"])
    assert rows.to_pylist() == [{"index": 20 + number, "line": sent[20 + number]} for number in (0, 7, 19)]
    assert reader.read_rows(row, [], ["index"]).num_rows == 0


async def test_a_merged_chunk_is_no_loss_to_a_running_search(make_bench: Callable[..., Bench]) -> None:
    """A row of an older view says NotFoundError once its object is deleted, and a new view has its events."""
    bench = make_bench(merge_grace=Duration("0ms"))
    handle = await _archive(bench, 8, lines=2)
    reader = bench.reader()
    old = reader.catalog.chunks(handle)[0]
    assert reader.open_chunk(old, ["index"]).num_rows == 2
    finish(bench.archiver())
    with pytest.raises(NotFoundError):
        bench.reader().open_chunk(old)
    assert bench.reader().lines(handle, 0, 16) == list(enumerate(bench.sent[handle]))


async def test_a_missing_chunk_is_an_integrity_failure(make_bench: Callable[..., Bench]) -> None:
    """A chunk that the catalog counts on and the store has not is named, and never reads as empty."""
    bench = make_bench(merge_below=Size("1B"))
    handle = await _archive(bench, 2)
    row = bench.catalog.chunks(handle)[0]
    ArchiveStore.open(bench.config).delete(row.name)
    with pytest.raises(IntegrityError, match="gone"):
        bench.reader().lines(handle, 0, 40)
    assert len(bench.reader().lines(handle, 20, 20)) == 20


async def test_a_swapped_chunk_does_not_open(make_bench: Callable[..., Bench]) -> None:
    """One chunk's bytes under another's name are refused: the key belongs to the id in the name."""
    bench = make_bench(merge_below=Size("1B"))
    handle = await _archive(bench, 2)
    store = ArchiveStore.open(bench.config)
    first, second = bench.catalog.chunks(handle)
    data = store.get(second.name)
    store.delete(first.name)
    store.put_new(first.name, data)
    with pytest.raises(IntegrityError):
        bench.reader().lines(handle, 0, 20)
