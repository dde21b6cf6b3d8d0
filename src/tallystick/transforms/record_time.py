"""The time of a record: the first candidate that names one, in text or as a number since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from tallystick.event import times
from tallystick.transforms.expressions import Roots, Scope, split_path, text_at

MISSING = "time_missing"
_CLAIM_MAX = 64


class TimeRule:
    """`[time]` of a mapping.

    ``from`` lists paths, or ``{ path, unit }`` with unit s, ms, us, ns for numbers (without one it is told from their
    size); ``zone = "UTC"`` says that the product's times without an offset are UTC; ``required`` flags a record without time.
    """

    def __init__(self, table: Mapping[str, Any], roots: Roots) -> None:
        specs = [{"path": spec} if isinstance(spec, str) else spec for spec in table.get("from", [])]
        candidates = [(split_path(spec["path"]), spec.get("unit")) for spec in specs]
        self._candidates = [(path, unit) for path, unit in candidates if roots.may_have(path)]
        self._is_utc = table.get("zone") == "UTC"
        self.is_required = table.get("required", False)

    def read(self, scope: Scope) -> tuple[str | UnsetType, tuple[str, ...]]:
        """The canonical time, or UNSET for the time of receipt, and the flags."""
        claimed = None
        for path, unit in self._candidates:
            text = text_at(scope.record, path)
            if text is None:
                continue
            parsed = times.parse_epoch(text, unit) or times.parse_time(text)
            if parsed is None or parsed.text is None:
                claimed = claimed or text
                continue
            flags = tuple(flag for flag in parsed.flags if not (self._is_utc and flag == times.ZONE_MISSING))
            if not flags:
                scope.use(path)
            return parsed.text, flags
        if claimed is not None:
            return UNSET, (times.INVALID, times.CLAIMED + claimed[:_CLAIM_MAX])
        return UNSET, (MISSING,) if self.is_required else ()

    def read_beside(self, scope: Scope, carried_at: times.ParsedTime) -> tuple[str | UnsetType, tuple[str, ...]]:
        """The same beside the time that the protocol says of the record."""
        if self.is_required:
            found = self.read(scope)
            if found[0] is not UNSET:
                return found
        return (UNSET if carried_at.text is None else carried_at.text), carried_at.flags
