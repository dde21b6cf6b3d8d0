"""What an encoding has no field for: those members of the event that are there, under their own names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import UNSET

from tallystick.event import Event


def rest_of(event: Event, names: Iterable[str]) -> dict[str, Any]:
    """The named members as they are; JSON inside them keeps its text when the result is encoded."""
    return {name: value for name in names if (value := getattr(event, name)) is not UNSET}
