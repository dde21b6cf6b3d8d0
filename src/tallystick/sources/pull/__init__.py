"""Source type `pull`."""

from __future__ import annotations

from tallystick.sources.kind import SourceKind
from tallystick.sources.pull.source import PullSettings, PullSource

KIND = SourceKind(PullSettings, lambda plan: "asks an API", source=PullSource)

__all__ = ["KIND", "PullSettings", "PullSource"]
