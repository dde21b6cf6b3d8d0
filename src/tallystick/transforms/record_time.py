"""The time of a record: the first candidate that names one, in text or as a number since 1970."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import UNSET, UnsetType

from tallystick.event import times
from tallystick.transforms.expressions import Roots, Scope, split_path, text_at

MISSING = "time_missing"
_CLAIM_MAX = 64
_NUMBER = re.compile(r"-?\d{1,19}(\.\d{1,9})?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SMALLEST = (("ns", 10**17), ("us", 10**14), ("ms", 10**11), ("s", 0))


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
            parsed = _parse_number(text, unit) if _NUMBER.fullmatch(text) else times.parse_time(text)
            if parsed is None or parsed.text is None:
                claimed = claimed or text
                continue
            flags = tuple(flag for flag in parsed.flags if not (self._is_utc and flag == times.ZONE_MISSING))
            if not flags:
                scope.used.append(path)
            return parsed.text, flags
        if claimed is not None:
            return UNSET, (times.INVALID, times.CLAIMED + claimed[:_CLAIM_MAX])
        return UNSET, (MISSING,) if self.is_required else ()


def _parse_number(text: str, unit: str | None) -> times.ParsedTime | None:
    whole, _, fraction = text.partition(".")
    number = int(whole)
    unit = unit or next(name for name, least in _SMALLEST if abs(number) >= least)
    micros = number * 10**6 // _PER_SECOND[unit]
    if fraction:
        micros += int(fraction.ljust(9, "0")) // (10**3 * _PER_SECOND[unit])
    try:
        return times.ParsedTime(times.format_utc(_EPOCH + timedelta(microseconds=micros)))
    except OverflowError:
        return None
