from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.moto import S3Server
from tallystick.archive.archiver import Archiver
from tallystick.archive.quarantine import Quarantine
from tallystick.archive.reader import ChunkSource
from tallystick.archive.store import ArchiveStore
from tallystick.config import Duration, Size
from tallystick.durable import set_observer
from tallystick.errors import DestinationUnavailableError, TransientError
from tallystick.evidence.manifest import indexes_digest, manifest_key_name, open_manifest
from tallystick.evidence.note import vkey
from tallystick.journal.cursor import Cursor
from tallystick.journal.entries import QuarantinedRecord
from tallystick.telemetry import read_status
from unit.archive.bench import HOUR, Bench, finish
from unit.archive.lines import make_line, make_lines


async def test_events_are_archived_by_age(make_bench: Callable[..., Bench]) -> None:
    """Nothing is archived while it is young; at max_age all classes of the tenant are, and the mark moves with them."""
    bench = make_bench(max_age=Duration("1h"))
    acme = bench.tenants.create("acme")
    await bench.append(acme, make_lines(50))
    await bench.append(acme, make_lines(50, 50, ingest={"class": "long"}))
    archiver = bench.archiver()
    finish(archiver)
    assert bench.catalog.view(acme.handle).chunks == []
    bench.now += HOUR
    finish(archiver)
    bench.check()
    view = bench.catalog.view(acme.handle)
    assert view.mark == 100
    assert [(row.retention_class, row.first, row.last, row.count) for row in view.chunks] == [
        ("standard", 0, 49, 50),
        ("long", 50, 99, 50),
    ]


async def test_pressure_flushes_the_largest_tenant(make_bench: Callable[..., Bench]) -> None:
    """Past hot_bytes the largest tenant goes first; small ones wait for their age."""
    bench = make_bench(hot_bytes=Size("40KiB"))
    large, small = bench.tenants.create("large"), bench.tenants.create("small")
    await bench.append(small, make_lines(3))
    await bench.append(large, make_lines(200))
    archiver = bench.archiver()
    finish(archiver)
    assert bench.catalog.marks() == {large.handle: 200}
    archiver.flush()
    bench.check()


async def test_size_flushes_without_waiting(make_bench: Callable[..., Bench]) -> None:
    """A tenant with chunk_size of lines is archived at once."""
    bench = make_bench(chunk_size=Size("20KiB"))
    acme = bench.tenants.create("acme")
    await bench.append(acme, make_lines(100))
    finish(bench.archiver())
    bench.check()


async def test_a_restart_goes_on_where_the_mark_is(make_bench: Callable[..., Bench]) -> None:
    """After a restart nothing is archived twice and nothing is left out, with one tenant archived and another waiting."""
    bench = make_bench(chunk_size=Size("20KiB"))
    large, small = bench.tenants.create("large"), bench.tenants.create("small")
    await bench.append(small, make_lines(3))
    await bench.append(large, make_lines(100))
    finish(bench.archiver())
    assert bench.catalog.marks() == {large.handle: 100}
    await bench.append(large, make_lines(5, 100))
    archiver = bench.archiver()
    finish(archiver)
    archiver.flush()
    bench.check()


async def test_a_crash_at_any_durable_step_loses_and_repeats_nothing(make_bench: Callable[..., Bench]) -> None:
    """Each durable step fails in turn; a new archiver then finishes, every event is there once, no object is left over."""
    bench = make_bench(merge_below=Size("1MiB"), merge_grace=Duration("0ms"))
    acme, other = bench.tenants.create("acme"), bench.tenants.create("other")
    record = QuarantinedRecord(handle=acme.handle, source="hook", code="bad", message="m", received_at="", data=b"{")
    step, is_done = 0, False
    while not is_done:
        start = len(bench.sent.get(acme.handle, []))
        await bench.append(acme, make_lines(4, start), [record])
        await bench.append(acme, make_lines(2, start + 4, ingest={"class": "long"}))
        await bench.append(other, make_lines(1, step))
        step += 1
        is_done = not _crash_at(step, bench)
        archiver = bench.archiver()
        finish(archiver)
        archiver.flush()
        bench.check()
        assert len(Quarantine(bench.data_dir, bench.keys).list(limit=10_000)) == step
    assert step > 25


def _crash_at(step: int, bench: Bench) -> bool:
    """Run an archiver until its durable step number ``step`` of this thread raises; False when it ends before."""
    seen, thread = 0, threading.get_ident()

    def observe(_operation: str, _path: Path | None, _fd: int) -> None:
        nonlocal seen
        if threading.get_ident() == thread:
            seen += 1
            if seen >= step:  # the process is dead: nothing after this step happens either
                raise OSError("crash")

    set_observer(observe)
    try:
        archiver = bench.archiver()
        finish(archiver)
        archiver.flush()
        while archiver.step():
            pass
    except (OSError, TransientError):
        return True
    finally:
        set_observer(None)
    return False


class _FailingStore(ArchiveStore):
    """A bucket whose puts fail or lose their answer, once, at a chosen call."""

    def __init__(self, url: str, options: dict[str, str], *, fail_at: int, is_done: bool) -> None:
        super().__init__(url, options)
        self.calls = 0
        self._fail_at = fail_at
        self._is_done = is_done

    def put_new(self, path: str, data: bytes) -> None:
        self.calls += 1
        if self.calls == self._fail_at:
            if self._is_done:
                super().put_new(path, data)
            raise DestinationUnavailableError("the bucket is away")
        super().put_new(path, data)


@pytest.mark.parametrize("fail_at", [1, 2, 3, 4])
@pytest.mark.parametrize("is_done", [False, True])
async def test_a_failing_bucket_is_tried_again(make_bench: Callable[..., Bench], s3: S3Server, fail_at: int, is_done: bool) -> None:
    """A put that failed, or took effect and lost its answer, is repeated: by the same process, and once by a new one."""
    url = f"s3://{s3.new_bucket()}/archive"
    bench = make_bench(store=url, options=s3.options)
    acme = bench.tenants.create("acme")
    await bench.append(acme, make_lines(10))
    await bench.append(acme, make_lines(10, 10, ingest={"class": "long"}))
    archiver = bench.archiver(_FailingStore(url, s3.options, fail_at=fail_at, is_done=is_done))
    finish(archiver)
    with pytest.raises(TransientError):
        archiver.flush()
    assert bench.catalog.view(acme.handle).mark == 0
    if fail_at % 2:
        archiver = bench.archiver()
        finish(archiver)
    archiver.flush()
    bench.check()


async def test_run_archives_until_it_is_stopped(make_bench: Callable[..., Bench]) -> None:
    """The role's loop starts by itself, archives what is due, and says so in its status."""
    bench = make_bench(max_age=Duration("1ms"))
    acme = bench.tenants.create("acme")
    await bench.append(acme, make_lines(10))
    archiver = Archiver(bench.config, bench.keys, clock=lambda: bench.now)
    bench.run_until(archiver, lambda: bench.catalog.mark(acme.handle) == 10, now=bench.now + HOUR)
    bench.check()
    status = read_status(bench.data_dir, "archiver")
    assert status is not None
    assert (status["state"], status["waiting_bytes"]) == ("running", 0)


async def test_manifests_are_signed_and_true(make_bench: Callable[..., Bench]) -> None:
    """Beside each chunk lies a note of the manifest key with the chunk's digest, range and indexes."""
    bench = make_bench()
    acme = bench.tenants.create("acme")
    await bench.append(acme, [make_line(number, ingest={"class": "long" if number % 3 else "standard"}) for number in range(30)])
    archiver = bench.archiver()
    finish(archiver)
    archiver.flush()
    source = ChunkSource.open(bench.config, bench.keys)
    name = manifest_key_name(bench.config.server.name)
    key = vkey(name, bench.keys.signing_key(name).public_key())
    found = [open_manifest(note.decode(), [key]) for _, note in source.manifests()]
    assert sorted(manifest.object for manifest in found) == list(source.names())
    for manifest in found:
        assert source.digest(manifest.object) == (manifest.size, manifest.sha256)
        indexes = [index for part, _ in source.lines(manifest.object) for index in part]
        assert (manifest.first, manifest.last, manifest.count) == (indexes[0], indexes[-1], len(indexes))
        assert manifest.indexes_sha256 == indexes_digest(indexes)
        assert manifest.origin == f"{bench.config.server.name}/log/{acme.handle}"


async def test_nothing_readable_at_rest(make_bench: Callable[..., Bench]) -> None:
    """A marker in an event and in a quarantined record is in no file under the data directory."""
    bench = make_bench()
    acme = bench.tenants.create("acme")
    marker = "MARKERMARKER"
    record = QuarantinedRecord(handle=acme.handle, source="hook", code="bad", message=marker, received_at="", data=marker.encode())
    await bench.append(acme, make_lines(20, reason=marker, actor={"type": "user", "id": marker}), [record])
    archiver = bench.archiver()
    finish(archiver)
    archiver.flush()
    files = [path for path in bench.data_dir.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if marker.encode() in path.read_bytes()] == []


async def test_quarantined_records_can_be_looked_at(make_bench: Callable[..., Bench]) -> None:
    """Lists, counts and single records agree with what was sent; a replay is remembered; tenants see their own."""
    bench = make_bench()
    acme, other = bench.tenants.create("acme"), bench.tenants.create("other")
    records = [
        QuarantinedRecord(
            handle=(acme if number % 2 else other).handle,
            source="hook",
            code="bad_json",
            message="m",
            received_at="t",
            data=b"%d" % number,
        )
        for number in range(6)
    ]
    await bench.append(acme, [], records)
    finish(bench.archiver())
    quarantine = Quarantine(bench.data_dir, bench.keys)
    rows = quarantine.list([acme.handle])
    assert len(rows) == 3
    seqs = [row.seq for row, _ in rows]
    assert [entry.record.data for entry in quarantine.read(seqs)] == [b"1", b"3", b"5"]
    quarantine.mark_replayed(seqs[:2])
    assert [is_replayed for _, is_replayed in quarantine.list([acme.handle])] == [True, True, False]
    assert [row.seq for row, _ in quarantine.list([acme.handle], is_waiting=True)] == seqs[2:]
    assert [(count.handle, count.count, count.waiting) for count in quarantine.counts()] == sorted(
        [(acme.handle, 3, 1), (other.handle, 3, 3)]
    )
    with pytest.raises(Exception, match="no record"):
        quarantine.get(seqs[0], [other.handle])


async def test_a_lost_cursor_costs_reading_only(make_bench: Callable[..., Bench]) -> None:
    """Without its cursor the archiver reads the journal from its beginning and archives nothing twice."""
    bench = make_bench()
    acme = bench.tenants.create("acme")
    await bench.append(acme, make_lines(10))
    archiver = bench.archiver()
    finish(archiver)
    archiver.flush()
    for path in (bench.data_dir / "cursors").glob("archiver.?"):
        path.unlink()
    assert Cursor(bench.data_dir, "archiver").load() is None
    await bench.append(acme, make_lines(5, 10))
    archiver = bench.archiver()
    finish(archiver)
    archiver.flush()
    bench.check()


async def test_events_the_journal_lost_are_noted(make_bench: Callable[..., Bench]) -> None:
    """A damaged frame costs its events only: they are noted as lost by index, the rest is archived."""
    bench = make_bench()
    acme = bench.tenants.create("acme")
    ends = []
    for number in range(3):
        await bench.append(acme, make_lines(4, number * 4))
        ends.append(bench.archiver()._journal.mark().offset)
    segment = next((bench.data_dir / "journal").glob("*.seg"))
    fd = os.open(segment, os.O_RDWR)
    os.pwrite(fd, b"\xff\xff\xff", ends[1] - 30)
    os.close(fd)
    archiver = bench.archiver()
    finish(archiver)
    archiver.flush()
    assert bench.catalog.lost(acme.handle) == [(4, 4)]
    assert bench.catalog.mark(acme.handle) == 12
    lines = bench.sent[acme.handle]
    assert bench.reader().lines(acme.handle, 0, 12) == [(index, lines[index]) for index in (0, 1, 2, 3, 8, 9, 10, 11)]
