"""The register of expected sources: silence is counted while the server runs, and kept over restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from support.running import until
from tallystick.config import Duration
from tallystick.sources import expected as module
from tallystick.sources.expected import ExpectedSources
from tallystick.sources.http import HttpSourceSettings
from tallystick.sources.plan import SourcePlan
from tallystick.sources.tally import SourceTallies

NOON = "2026-03-04T12:00:00.000000Z"


def plan(name: str, every: str | None = "5m") -> SourcePlan:
    settings = HttpSourceSettings(expect_every=Duration(every) if every else None)
    return SourcePlan(name, "http", None, None, (), "quarantine", settings=settings)


def register(directory: Path, *plans: SourcePlan) -> tuple[ExpectedSources, SourceTallies]:
    tallies = SourceTallies([(one.name, one.type) for one in plans])
    found = ExpectedSources(directory, tallies)
    found.meet(plans)
    return found, tallies


def metric(name: str) -> float | None:
    return REGISTRY.get_sample_value("tallystick_source_silent_seconds", {"source": name})


def since(found: ExpectedSources, name: str) -> Any:
    return found.page()[name]["silent_since"]


def test_silence_is_told_after_its_time(tmp_path: Path) -> None:
    """Not before `expect_every`; then with the time of the last sign of life, until the next; a quarantined record is one too."""
    found, tallies = register(tmp_path, plan("door"), plan("other", None))
    tallies.note("door", NOON, 1, 0, 0, 0)
    found.count(1)
    found.count(299)
    assert found.page() == {"door": {"expect_every_seconds": 300.0, "silent_since": None}}
    assert metric("door") == 0
    found.count(2)
    assert since(found, "door") == NOON
    assert metric("door") == 301
    tallies.note("door", "2026-03-04T12:05:02.000000Z", 0, 0, 0, 1)
    found.count(1)
    assert since(found, "door") is None
    assert metric("door") == 0


def test_one_that_was_never_heard_is_silent_from_the_start(tmp_path: Path) -> None:
    """A source that is declared and never sends is found, with the time from which on it is expected."""
    found, _ = register(tmp_path, plan("door"))
    found.count(301)
    assert str(since(found, "door")).endswith("Z")


async def start_and_stop(found: ExpectedSources) -> None:
    stop = asyncio.Event()
    stop.set()
    await found.run(stop)


async def test_a_restart_goes_on(tmp_path: Path) -> None:
    """What was counted before a stop counts after it, with the time of the last sign of life; time in between does not."""
    first, tallies = register(tmp_path, plan("door"))
    tallies.note("door", NOON, 1, 0, 0, 0)
    first.count(1)
    first.count(200)
    await start_and_stop(first)
    second, _ = register(tmp_path, plan("door"))
    second.count(98)
    assert since(second, "door") is None
    second.count(3)
    assert since(second, "door") == NOON


async def test_it_is_saved_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash forgets no more than what came after the last save."""
    monkeypatch.setattr(module, "TICK_S", 0.01)
    monkeypatch.setattr(module, "SAVE_S", 0.02)
    first, _ = register(tmp_path, plan("door"))
    first.count(301)
    stop = asyncio.Event()
    task = asyncio.create_task(first.run(stop))
    await until((tmp_path / "expected.a").exists, "a save")
    task.cancel()
    second, _ = register(tmp_path, plan("door"))
    assert since(second, "door") == since(first, "door") is not None


async def test_a_disk_that_cannot_save_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed save is tried again; counting goes on meanwhile."""
    monkeypatch.setattr(module, "TICK_S", 0.01)
    monkeypatch.setattr(module, "SAVE_S", 0.02)
    found, _ = register(tmp_path / "sources", plan("door", "1s"))
    (tmp_path / "sources").write_text("a file where the directory should be")
    stop = asyncio.Event()
    task = asyncio.create_task(found.run(stop))
    await until(lambda: since(found, "door") is not None, "the silence")
    (tmp_path / "sources").unlink()
    await until((tmp_path / "sources" / "expected.a").exists, "a save")
    stop.set()
    await task


async def test_a_damaged_register_begins_anew(tmp_path: Path) -> None:
    """No slot can be read: silence is counted anew, and the next save mends it."""
    first, _ = register(tmp_path, plan("door"))
    first.count(301)
    await start_and_stop(first)
    for slot in tmp_path.glob("expected.*"):
        slot.write_bytes(b"x" * 40)
    second, _ = register(tmp_path, plan("door"))
    assert since(second, "door") is None
    second.count(301)
    await start_and_stop(second)
    third, _ = register(tmp_path, plan("door"))
    assert since(third, "door") == since(second, "door") is not None


def test_a_new_configuration(tmp_path: Path) -> None:
    """One that stays expected goes on, under its new time; one that is no longer expected is not silent any more."""
    found, tallies = register(tmp_path, plan("door"), plan("other"))
    tallies.note("door", NOON, 1, 0, 0, 0)
    found.count(1)
    found.count(301)
    found.meet([plan("door", "10m"), plan("other", None)])
    assert found.page() == {"door": {"expect_every_seconds": 600.0, "silent_since": None}}
    assert metric("other") == 0
    found.count(300)
    assert since(found, "door") == NOON


def test_less_than_a_second_is_refused() -> None:
    """Silence is counted in seconds; a shorter time would always be over."""
    with pytest.raises(ValueError, match="shorter than a second"):
        plan("door", "500ms")
