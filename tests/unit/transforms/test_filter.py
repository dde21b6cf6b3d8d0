"""Filtering, and the table of transforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tallystick.config.settings import Config
from tallystick.errors import ConfigError
from tallystick.event import Actor, Event
from tallystick.transforms import build_transform


def events(*actions: str) -> list[Event]:
    return [Event(action=action, actor=Actor(type="user", id="u")) for action in actions]


def compile_action(text: str) -> Callable[[Mapping[str, Any]], bool]:
    """A stand-in for the query language: the action itself."""
    return lambda line: line["action"] == text


@pytest.mark.parametrize(("table", "kept"), [({"drop": "b"}, [0, 2]), ({"keep": "b"}, [1])])
def test_filter_drops_or_keeps(table: dict[str, str], kept: list[int]) -> None:
    """What goes on keeps its position, so that what was filtered can be counted."""
    transform = build_transform("noise", {"type": "filter", **table}, Config(), compile_action)
    result = transform.apply_batch(events("a", "b", "c"), [])
    assert result is not None
    assert [position for position, _ in result] == kept
    assert transform.name == "noise"


@pytest.mark.parametrize(
    "table", [None, {"type": "filter"}, {"type": "filter", "drop": "a", "keep": "b"}, {"type": "shout"}, {"type": "redact", "x": 1}]
)
def test_wrong_tables_are_refused(table: dict[str, Any] | None) -> None:
    """A transform that is not there, or not right, is a configuration error."""
    with pytest.raises(ConfigError):
        build_transform("noise", table, Config(), compile_action)
