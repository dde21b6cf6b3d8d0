"""Fixtures of the query package's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tallystick.config import Duration
from unit.query.installation import Installation, Make


@pytest.fixture
async def make_installation(tmp_path: Path) -> Any:
    """Make installations with settings of ``[query]`` and ``[archive]``; all are closed at the end."""
    made: list[Installation] = []

    def make(query: dict[str, Any] | None = None, archive: dict[str, Any] | None = None) -> Installation:
        path = tmp_path / f"installation-{len(made)}"
        path.mkdir()
        made.append(Installation(path, query or {}, {"max_age": Duration("100d"), **(archive or {})}))
        return made[-1]

    yield make
    for installation in made:
        await installation.close()


@pytest.fixture
def installation(make_installation: Make) -> Installation:
    return make_installation()
