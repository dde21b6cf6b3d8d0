"""A bench on a fresh directory with fresh keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.delivery import LaneBench, World
from tallystick.privacy.keys import KeyStore


@pytest.fixture
def bench(tmp_path: Path) -> LaneBench:
    keys_dir = tmp_path / "data.keys"
    return LaneBench(tmp_path / "data", World(), KeyStore.create(keys_dir))
