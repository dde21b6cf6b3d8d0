"""The time of a record: the first candidate that names one, in text, as a number since 1970, or in a form that the mapping describes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import UNSET, UnsetType

from tallystick.event import times
from tallystick.transforms.expressions import NOTHING, Expression, Scope, compile_expression
from tallystick.transforms.record_paths import Path, Roots, split_path, text_at

MISSING = "time_missing"
_CLAIM_MAX = 64


class Candidate(NamedTuple):
    """Where a time may be: at ``path``, or in the text that ``made`` gives; ``unit`` of a number, ``form`` of a text."""

    path: Path
    made: Expression | None
    unit: str | None
    form: str | None


class TimeRule:
    """`[time]` of a mapping.

    ``from`` lists paths, or ``{ path, unit }`` with unit s, ms, us, ns for numbers (without one it is told from their
    size), or ``{ path, form }`` with a form of `strptime` for other texts; ``{ template = "{date} {time}" }`` in the place of a path
    puts one together. ``zone = "UTC"`` says that the product's times without an offset are UTC; ``required`` flags a record without
    time.
    """

    def __init__(self, table: Mapping[str, Any], roots: Roots) -> None:
        self._candidates = read_candidates(table, roots)
        self._is_utc = table.get("zone") == "UTC"
        self.is_required = table.get("required", False)

    def read(self, scope: Scope) -> tuple[str | UnsetType, tuple[str, ...]]:
        """The canonical time, or UNSET for the time of receipt, and the flags."""
        claimed = None
        for path, made, unit, form in self._candidates:
            text = made(scope) if made is not None else text_at(scope.record, path)
            if text is None:
                continue
            parsed = read_form(text, form) if form else _read(text, unit)
            if parsed is None or parsed.text is None:
                claimed = claimed or text
                continue
            flags = tuple(flag for flag in parsed.flags if not (self._is_utc and flag == times.ZONE_MISSING))
            if not flags and path:
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


def read_candidates(table: Mapping[str, Any], roots: Roots) -> list[Candidate]:
    """Those of ``from`` that the records can have."""
    specs = [{"path": spec} if isinstance(spec, str) else spec for spec in table.get("from", [])]
    return [found for spec in specs if (found := _candidate(spec, roots)) is not None]


def _candidate(spec: Mapping[str, Any], roots: Roots) -> Candidate | None:
    if "template" in spec:
        made = compile_expression({"template": spec["template"]}, roots)
        return None if made is NOTHING else Candidate((), made, spec.get("unit"), spec.get("form"))
    path = split_path(spec["path"])
    return Candidate(path, None, spec.get("unit"), spec.get("form")) if roots.may_have(path) else None


@lru_cache(maxsize=4096)
def _read(text: str, unit: str | None) -> times.ParsedTime | None:
    return times.parse_epoch(text, unit) or times.parse_time(text)


@lru_cache(maxsize=4096)
def read_form(text: str, form: str) -> times.ParsedTime | None:
    """The time that ``text`` writes in a form of `strptime`; None when it does not have that form."""
    try:
        moment = datetime.strptime(text, form)  # noqa: DTZ007  (what has no offset gets its flag)
        if moment.tzinfo is not None:
            return times.ParsedTime(times.format_utc(moment))
        return times.ParsedTime(times.format_utc(moment.replace(tzinfo=UTC)), (times.ZONE_MISSING,))
    except (ValueError, OverflowError):
        return None
