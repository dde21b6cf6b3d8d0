"""Refusals hold on to nothing of the request that they refuse."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tallystick.errors import OverloadedError
from tallystick.sources.refusal import forget_request
from tallystick.sources.submission import Draft

from .conftest import Rig, event, ndjson


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Without the collector of cycles, as good as in the intake process, where it comes by seldom."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def drafts() -> int:
    return sum(isinstance(one, Draft) for one in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/events", ndjson(event()), 503),
        ("/services/collector", b'{"event":"a"}', 503),
        ("/v1/events", b'{"action":1}', 422),
        ("/services/collector", b'{"event":"a"}{"event":""}', 400),
        ("/v1/in/github?on_invalid=reject", b"{}", 422),
    ],
)
async def test_a_refused_request_is_let_go(rig: Rig, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes, status: int) -> None:
    """Of twenty refused requests none is still in memory, though a future in a frame makes a cycle with the error."""

    async def refuse(request: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(OverloadedError("full"))
        await future

    monkeypatch.setattr(rig.service.journal, "append", refuse)
    before = drafts()
    for _ in range(20):
        assert (await rig.call(path, body)).status == status
    assert drafts() <= before


def test_errors_behind_an_error_are_let_go_too() -> None:
    """Causes and contexts, also where they lead round."""

    def fail() -> None:
        held = Draft  # noqa: F841
        try:
            raise ValueError("inner")
        except ValueError as inner:
            raise OverloadedError("outer") from inner

    with pytest.raises(OverloadedError) as caught:
        fail()
    error = caught.value
    assert error.__cause__ is not None
    error.__cause__.__context__ = error
    frame = error.__cause__.__traceback__
    forget_request(error)
    assert error.__traceback__ is error.__cause__.__traceback__ is None
    assert frame is not None
    assert "held" not in frame.tb_frame.f_locals
