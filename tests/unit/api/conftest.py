"""One installation for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.api_rig import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """The api on real parts, with the tenants acme and globex."""
    made = Rig.open(tmp_path)
    yield made
    await made.close()
