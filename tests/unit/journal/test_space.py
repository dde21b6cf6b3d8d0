"""Refusing in time: free bytes, the reserve, and that both come back."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tallystick.config import DataSettings, Size
from tallystick.journal import space
from tallystick.journal.space import SpaceGuard

SETTINGS = DataSettings(reserve=Size("1MiB"), free_min=Size("4MiB"))
SEGMENT = 1 << 20


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A file system whose free bytes the test says."""
    state = SimpleNamespace(free=1 << 30)
    sizes = SimpleNamespace(f_blocks=1 << 20, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**vars(sizes), f_bavail=state.free // 4096))
    return state


def test_low_space_frees_the_reserve_before_anything_fails(tmp_path: Path, disk: SimpleNamespace) -> None:
    """Followers that run out of space write to no journal: a look at the disk is enough to give them the reserve, once."""
    guard = SpaceGuard(tmp_path, SETTINGS, SEGMENT)
    guard.measure()
    assert guard.refusal is None
    assert (tmp_path / "reserve").stat().st_size == 1 << 20
    disk.free = 3 << 20
    guard.measure()
    assert "3145728 bytes are free" in str(guard.refusal)
    assert (tmp_path / "reserve").exists()
    disk.free = 1 << 20
    guard.measure()
    guard.measure()
    assert guard.refusal is not None
    assert not (tmp_path / "reserve").exists()
    disk.free = 1 << 30
    guard.measure()
    assert guard.refusal is None
    assert (tmp_path / "reserve").exists()


def test_small_disks_have_small_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On 64 MiB the defaults would refuse everything: bounds shrink to shares of the file system."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_blocks=16_384, f_frsize=4096, f_bavail=1024))
    assert space.fitting_segment_bytes(tmp_path, DataSettings(), 256 << 20) == 4 << 20
    guard = SpaceGuard(tmp_path, DataSettings(), 4 << 20)
    guard.measure()
    assert guard.refusal is None
