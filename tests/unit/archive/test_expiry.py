"""Expiry on real parts: what goes, what it leaves behind, and that no death in between changes either."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tallystick.archive.catalog import CatalogWriter
from tallystick.archive.certificate import expired_ranges
from tallystick.archive.expiry import RESUME
from tallystick.archive.rebuild import discard_catalog
from tallystick.archive.store import ArchiveStore
from tallystick.config import Duration
from tallystick.durable import StateFile
from tallystick.errors import NotFoundError, TransientError
from tallystick.evidence.policy import Policy
from tallystick.privacy.keys import KeyStore
from unit.archive.bench import NOW
from unit.archive.expiry_bench import DAY, PERIOD_S, ExpiryBench
from unit.archive.lines import make_lines

MONTH_OVER = NOW + 40 * DAY


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., ExpiryBench]]:
    benches: list[ExpiryBench] = []

    def build(**options: Any) -> ExpiryBench:
        benches.append(ExpiryBench(tmp_path, **options))
        return benches[-1]

    yield build
    for bench in benches:
        bench.sealer.close()
        if bench.journal is not None:
            await bench.journal.close()


async def filled(bench: ExpiryBench) -> str:
    """Sixty events of acme, every third of the class `long`, sealed and archived."""
    acme = bench.tenants.create("acme")
    lines = make_lines(60)
    for place in range(0, 60, 3):
        lines[place] = make_lines(1, place, ingest={"class": "long", "config": "", "salt": "x"})[0]
    await bench.append(acme, lines)
    await bench.settle(bench.expiring(), 2)
    assert bench.catalog.mark(acme.handle) == 60
    return acme.handle


async def test_what_is_past_its_period_goes_with_a_certificate(make: Callable[..., ExpiryBench]) -> None:
    """Chunks of the class that is due, no others; the certificate names every index, and verify accepts the absence and lists it."""
    bench = make(classes={"standard": "40s", "long": "400d"})
    handle = await filled(bench)
    bench.now = NOW + PERIOD_S - 5
    await bench.settle(bench.expiring())
    assert bench.entries(handle) == []
    bench.now = NOW + PERIOD_S + 5
    await bench.settle(bench.expiring())
    (entry,) = bench.entries(handle)
    assert (entry["class"], entry["period"], entry["count"]) == ("standard", "40s", 40)
    assert (
        entry["ranges"]
        == [[first, 2] for first in range(1, 60, 3)]
        == [list(one) for one in expired_ranges(bench.data_dir, handle)]
    )
    assert [(row.retention_class, row.count) for row in bench.catalog.chunks(handle)] == [("long", 20)]
    objects = sorted(name.rpartition(".")[2] for name in ArchiveStore.open(bench.config).list())
    assert objects == ["manifest", "manifest", "parquet"]
    report = bench.verify()
    assert (report.status, report.events) == (0, 20), report.problems
    assert len(report.excused) == 20


async def test_an_absence_without_its_certificate_fails(make: Callable[..., ExpiryBench]) -> None:
    """A chunk that is gone before its period is missing; so is one whose certificate was carried out too early by the log's clock."""
    bench = make(classes={"standard": "40s", "long": "400d"})
    handle = await filled(bench)
    (row,) = [row for row in bench.catalog.chunks(handle) if row.retention_class == "long"]
    ArchiveStore.open(bench.config).delete(row.name)
    report = bench.verify()
    assert report.status == 4
    assert any("is missing" in problem.message for problem in report.problems)


async def test_a_month_that_is_over_loses_its_key(make: Callable[..., ExpiryBench]) -> None:
    """When no chunk is left and its period is over: a copy of a chunk that somebody kept cannot be read any more."""
    bench = make(classes={"standard": "40s", "long": "40s"})
    handle = await filled(bench)
    bench.now = NOW + PERIOD_S + 5
    await bench.settle(bench.expiring())
    assert bench.catalog.chunks(handle) == []
    assert len(bench.keys.epoch_names()) == 2
    bench.now = MONTH_OVER
    await bench.settle(bench.expiring())
    assert KeyStore.open(bench.config.keys_dir).epoch_names() == []
    assert sorted(entry["class"] for entry in bench.entries(handle) if "key" in entry) == ["long", "standard"]
    assert bench.verify().status == 0


async def test_a_rebuilt_catalog_knows_what_expired(make: Callable[..., ExpiryBench]) -> None:
    """Manifests stay as tombstones: the mark is where it was, nothing is archived again, and nothing expired counts as lost."""
    bench = make(classes={"standard": "40s", "long": "400d"})
    handle = await filled(bench)
    bench.now = NOW + PERIOD_S + 5
    await bench.settle(bench.expiring())
    discard_catalog(bench.data_dir / "catalog.sqlite")
    await bench.settle(bench.expiring(), 2)
    assert bench.catalog.mark(handle) == 60
    assert bench.catalog.lost(handle) == []
    assert [row.retention_class for row in bench.catalog.chunks(handle)] == ["long"]


async def test_the_brake_stops_too_much_at_once_until_it_is_released(make: Callable[..., ExpiryBench]) -> None:
    """Over restarts, with the reason in status; what was due at the release goes, and is not counted again."""
    bench = make(classes={"standard": "40s", "long": "400d"}, brake_percent=50, brake_events=10)
    handle = await filled(bench)
    bench.now = NOW + PERIOD_S + 5
    await bench.settle(bench.expiring())
    archiver = bench.expiring()
    await bench.settle(archiver, 2)
    assert archiver._expirer is not None
    assert "40 of 60 events would expire at once" in archiver._expirer.reason
    assert bench.entries(handle) == []
    brake = archiver._expirer._state.brake
    assert brake is not None
    StateFile(bench.data_dir / "cursors" / RESUME).save(msgspec.json.encode({"brake": brake.id, "by": "ana"}))
    await bench.settle(archiver)
    assert len(bench.entries(handle)) == 1
    assert archiver._expirer.reason == ""


async def test_a_clock_that_jumps_stops_expiry(make: Callable[..., ExpiryBench]) -> None:
    """A year ahead between two looks: nothing goes on the word of that clock alone."""
    bench = make(classes={"standard": "40s", "long": "40s"}, clock_jump=Duration("3d"))
    handle = await filled(bench)
    bench.now = NOW + 365 * DAY
    archiver = bench.expiring()
    await bench.settle(archiver)
    assert archiver._expirer is not None
    assert "ahead" in archiver._expirer.reason
    assert bench.entries(handle) == []


async def test_a_shorter_period_waits(make: Callable[..., ExpiryBench]) -> None:
    """Under the policy that the root log has: nothing goes before the announced time, and verify sees it the same way."""
    bench = make(classes={"standard": "400d", "long": "400d"})
    bench.sealer.close()
    bench.place = replace(bench.place, shorten_delay_s=60.0)
    bench.sealer = bench.new_sealer()
    handle = await filled(bench)
    bench.wanted = Policy({"standard": "10s", "long": "400d"})
    bench.now = NOW + 30
    await bench.settle(bench.expiring())
    assert bench.entries(handle) == []
    bench.now = NOW + 95
    await bench.settle(bench.expiring())
    assert [entry["period"] for entry in bench.entries(handle)] == ["10s"]
    assert bench.verify().status == 0


STEPS: dict[str, tuple[type, str, int]] = {
    "the look is saved": (StateFile, "save", 1),
    "intent": (StateFile, "save", 2),
    "certificates": (ExpiryBench, "record", 1),
    "a row of the catalog": (CatalogWriter, "swap_chunk", 1),
    "the second row": (CatalogWriter, "swap_chunk", 2),
    "a chunk": (ArchiveStore, "delete", 1),
    "the second chunk": (ArchiveStore, "delete", 2),
    "sums": (StateFile, "save", 3),
    "the intent is emptied": (StateFile, "save", 4),
    "a key": (KeyStore, "destroy_epoch_key", 1),
    "the second key": (KeyStore, "destroy_epoch_key", 2),
}
"""What is called, and at which call it dies."""


@pytest.mark.parametrize("has_effect", [False, True], ids=["failed", "failed but took effect"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_death_at_any_step_changes_nothing(
    make: Callable[..., ExpiryBench], monkeypatch: pytest.MonkeyPatch, step: str, has_effect: bool
) -> None:
    """Whatever step fails, or fails after it took effect: a new life ends with the same certificates, chunks and keys."""
    bench = make(classes={"standard": "40s", "long": "40s"})
    handle = await filled(bench)
    owner, name, nth = STEPS[step]
    original, calls = getattr(owner, name), [0]

    def dies(*arguments: Any, **options: Any) -> Any:
        is_ours = not isinstance(arguments[0], StateFile) or arguments[0].path.name.startswith("retention")
        calls[0] += is_ours
        if is_ours and calls[0] == nth:
            if has_effect:
                original(*arguments, **options)
            raise TransientError("killed")
        return original(*arguments, **options)

    for now in (NOW + PERIOD_S + 5, MONTH_OVER):
        bench.now = now
        archiver = bench.expiring()
        monkeypatch.setattr(owner, name, dies)
        try:
            await bench.settle(archiver)
        except TransientError:
            pass  # the process is dead; the next life begins with what is on disk
        monkeypatch.undo()
        await bench.seal()
        await bench.settle(bench.expiring())
    certificates = [entry for entry in bench.entries(handle) if "ranges" in entry]
    assert sorted(entry["count"] for entry in certificates) == [20, 40]
    assert {entry["class"] for entry in bench.entries(handle) if "key" in entry} == {"standard", "long"}
    assert bench.catalog.chunks(handle) == []
    assert {name.rpartition(".")[2] for name in ArchiveStore.open(bench.config).list()} == {"manifest"}
    with pytest.raises(NotFoundError):
        bench.keys.epoch_key(handle, "standard", "2026-09")
    report = bench.verify()
    assert report.status == 0, report.problems
