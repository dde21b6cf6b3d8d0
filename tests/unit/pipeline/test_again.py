"""A role whose disk fails begins anew, says why meanwhile, and still stops when told."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tallystick.errors import IntegrityError, UnreadableError
from tallystick.pipeline import again
from tallystick.pipeline.again import keep_trying
from tallystick.pipeline.signals import stop_event
from tallystick.telemetry import read_status


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(again, "_PAUSE_S", (0.01, 0.02))
    (tmp_path / "run").mkdir()


def test_it_begins_anew_until_it_goes_well(tmp_path: Path) -> None:
    """Each failure is the reason in status until the work says something else."""
    failures = [OSError(errno.ENOSPC, "no space"), OSError(errno.EIO, "no disk"), UnreadableError("cannot be read")]
    seen = []

    def work() -> None:
        page = read_status(tmp_path, "sealer")
        seen.append(page and page["reason"])
        if failures:
            raise failures.pop(0)

    keep_trying("sealer", tmp_path, threading.Event(), work)
    assert seen == [None, "[Errno 28] no space", "[Errno 5] no disk", "cannot be read"]


def test_what_is_no_trouble_of_the_disk_ends_the_role(tmp_path: Path) -> None:
    """Damage and faults of ours are not tried away."""

    def work() -> None:
        raise IntegrityError("it does not hold")

    with pytest.raises(IntegrityError):
        keep_trying("sealer", tmp_path, threading.Event(), work)


def test_a_signal_ends_the_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the work had put its own handlers in place and taken them away again."""
    monkeypatch.setattr(again, "_PAUSE_S", (30.0, 30.0))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    calls = []

    def work() -> None:
        calls.append(1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        raise OSError(errno.ENOSPC, "no space")

    try:
        stop = stop_event()
        began = time.monotonic()
        keep_trying("dispatcher", tmp_path, stop, work)
        assert time.monotonic() - began < 10
        assert stop.is_set()
        assert calls == [1]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
