"""What a lane collects between two commits, and what it needs to know of the sealed log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tallystick.delivery.builder import Planned
from tallystick.delivery.settlement import Settlement
from tallystick.delivery.state import LaneState


class Sealed(Protocol):
    """What is sealed: read by all lanes, refreshed by the dispatcher."""

    def tenants(self) -> dict[str, str]:
        """Handle → name of every tenant."""

    def size(self, handle: str) -> int:
        """Sealed events of a tenant."""

    def known_sizes(self) -> dict[str, int]:
        """The same of every tenant, with what was sealed since and is not shown to the lanes yet: after a start that may be all."""

    def note(self, handle: str) -> str:
        """The signed checkpoint of that size or a larger one."""


@dataclass(slots=True)
class Replaced:
    """A cut whose range (or replay) goes out again in other cuts: after a split, or because it was voided."""

    old: Planned
    new: list[Planned]
    is_voided: bool = False


@dataclass(slots=True)
class Change:
    """An operator's change of the state, and who waits for it to be durable."""

    apply: Callable[[LaneState], None]
    done: asyncio.Future[None]


@dataclass(slots=True)
class Round:
    """What one commit stores."""

    settlements: list[Settlement] = field(default_factory=list)
    replaced: list[Replaced] = field(default_factory=list)
    planned: list[Planned] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.settlements or self.replaced or self.planned or self.changes)

    def then(self, later: Round) -> Round:
        """Both, in this order."""
        return Round(
            self.settlements + later.settlements,
            self.replaced + later.replaced,
            self.planned + later.planned,
            self.changes + later.changes,
        )
