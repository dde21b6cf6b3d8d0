"""Which event loop the tests run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The socket between workers and writer is tested on the loop that the processes run: it differs where buffers fill."""
    chosen: dict[str, Any] = (
        {"uvloop": uvloop.new_event_loop} if item.path.name == "test_remote.py" else {"asyncio": asyncio.new_event_loop}
    )
    return chosen
