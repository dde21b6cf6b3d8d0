"""One installation with the console, and a signed-in browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from support.api_rig import Rig
from tallystick.console.app import create_app

ORIGIN = {"origin": "http://127.0.0.1:8420"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """Console and api on real parts."""
    made = Rig.open(tmp_path, create=create_app)
    yield made
    await made.close()


@pytest.fixture
async def browser(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the admin's session."""
    async with rig.client(None, headers={"accept": "text/html"}) as client:
        answer = await client.post("/login", data={"key": rig.admin, "next": "/"}, headers=ORIGIN)
        assert answer.status_code == 303
        yield client
