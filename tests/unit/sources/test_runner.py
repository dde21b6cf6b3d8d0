"""The runner: one source that fails is run again, and takes nobody along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tallystick.sources import runner as module
from tallystick.sources.runner import SourceRunner

from .conftest import Rig
from .test_inlet import inlet


class FakeSource:
    """Runs as dialled: ``failures`` runs raise first; a stop takes ``stop_s`` seconds to be obeyed."""

    def __init__(self, failures: list[BaseException], stop_s: float = 0.0) -> None:
        self.failures, self.stop_s = failures, stop_s
        self.is_running = asyncio.Event()

    async def run(self, intake: Any, stop: asyncio.Event) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.is_running.set()
        await stop.wait()
        await asyncio.sleep(self.stop_s)

    def status(self) -> dict[str, Any]:
        return {"connections": 3, "reason": ""}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RESTART_MIN_S", 0.01), ("FLUSH_S", 0.1), ("_CANCEL_S", 0.1)):
        monkeypatch.setattr(module, name, value)


def runner_of(rig: Rig, source: FakeSource, make: Callable[[], Any] | None = None) -> SourceRunner:
    return SourceRunner("stream", make or (lambda: source), lambda give_up: inlet(rig, give_up=give_up))


async def test_a_failed_source_runs_again(rig: Rig) -> None:
    """Two runs fail, the third goes; status has the state, the number of restarts and the source's own facts."""
    source = FakeSource([OSError("address in use"), ValueError("x")])
    runner, stop = runner_of(rig, source), asyncio.Event()
    task = asyncio.create_task(runner.run(stop))
    await source.is_running.wait()
    assert runner.status() == {"state": "running", "reason": "", "restarts": 2, "connections": 3}
    stop.set()
    await task
    assert runner.state == "stopped"


async def test_the_reason_of_a_failure_is_in_status(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits for its next run it is `failed`, with the error's words; the stop ends the waiting."""
    monkeypatch.setattr(module, "RESTART_MIN_S", 3600.0)
    monkeypatch.setattr(module, "RESTART_MAX_S", 3600.0)
    source, stop = FakeSource([OSError("address in use")]), asyncio.Event()
    runner = runner_of(rig, source)
    task = asyncio.create_task(runner.run(stop))
    while runner.state != "failed":
        await asyncio.sleep(0.001)
    assert runner.status()["reason"] == "address in use"
    stop.set()
    await task


async def test_a_source_that_cannot_be_made_is_a_failed_run(rig: Rig) -> None:
    """A certificate that is missing at the start of a run is a reason to wait, not to end the intake."""
    source, stop, errors = FakeSource([]), asyncio.Event(), [OSError("no such file")]

    def make() -> FakeSource:
        if errors:
            raise errors.pop()
        return source

    runner = runner_of(rig, source, make)
    task = asyncio.create_task(runner.run(stop))
    await source.is_running.wait()
    assert runner.restarts == 1
    stop.set()
    await task


async def test_one_failing_source_leaves_the_others_alone(rig: Rig) -> None:
    """A source that fails for ever runs beside one that works, and both end at the stop."""
    good, stop = FakeSource([]), asyncio.Event()
    bad = FakeSource([RuntimeError(str(n)) for n in range(1000)])
    runners = [runner_of(rig, bad), runner_of(rig, good)]
    task = asyncio.gather(*(runner.run(stop) for runner in runners))
    await good.is_running.wait()
    while runners[0].restarts < 2:
        await asyncio.sleep(0.001)
    assert runners[1].status()["state"] == "running"
    stop.set()
    await task


async def test_a_source_that_does_not_end_is_cancelled(rig: Rig) -> None:
    """The stop of the server does not wait for ever for a source."""
    source, stop = FakeSource([], stop_s=3600.0), asyncio.Event()
    runner = runner_of(rig, source)
    task = asyncio.create_task(runner.run(stop))
    await source.is_running.wait()
    stop.set()
    await asyncio.wait_for(task, 5)
    assert "did not end" in runner.reason
