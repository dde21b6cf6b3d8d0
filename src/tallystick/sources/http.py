"""Source type `http`: a product's records, posted to `/v1/in/NAME`."""

from __future__ import annotations

from collections.abc import Iterable

from tallystick.sources.doors import DoorParts, SourceDoor
from tallystick.sources.kind import MappedSettings, SourceKind
from tallystick.sources.plan import SourcePlan
from tallystick.sources.routes import Route


class HttpSourceSettings(MappedSettings, frozen=True):
    """`[sources.NAME]` with `type = "http"`."""


def _doors(parts: DoorParts, plan: SourcePlan) -> Iterable[Route]:
    yield Route(f"/v1/in/{plan.name}", SourceDoor(parts, plan))


KIND = SourceKind(HttpSourceSettings, lambda plan: f"POST /v1/in/{plan.name}", _doors)
