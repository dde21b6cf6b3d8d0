"""The sources as the delivery page shows them: rate, what could not become an event and why, silence, gaps. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tallystick.api.quarantine import QuarantineCountView
from tallystick.console.amounts import duration_text, rate_text, share_text

_GAPS = {"sequence": "missing", "late": "came late", "repeat": "came again", "restart": "restarts", "unplaced": "too old to place"}


@dataclass(frozen=True, slots=True)
class SourceView:
    """One source. ``coverage`` is the share of its records since the start that became events; ``quarantine`` is (reason, waiting);
    ``gaps`` are in words; ``trouble`` is empty while all is well."""

    name: str
    type: str
    rate: str
    accepted: int
    last_at: str
    coverage: str
    mapping: str
    quarantine: tuple[tuple[str, int], ...]
    gaps: tuple[str, ...]
    lag: str
    trouble: str


def view_sources(
    rows: Mapping[str, Mapping[str, Any]], counts: Iterable[QuarantineCountView], recent: Iterable[Mapping[str, Any]]
) -> list[SourceView]:
    """From the status, the quarantine's counts and the latest gaps; what sent something or is expected to comes first."""
    counts, recent = list(counts), list(recent)
    views = [
        _view(name, row, [count for count in counts if count.source == name], [gap for gap in recent if gap.get("source") == name])
        for name, row in rows.items()
    ]
    return sorted(views, key=lambda view: not (view.accepted or view.trouble or view.quarantine or view.last_at))


def _view(name: str, row: Mapping[str, Any], counts: list[QuarantineCountView], gaps: list[Mapping[str, Any]]) -> SourceView:
    good = row.get("accepted", 0) + row.get("duplicates", 0) + row.get("filtered", 0)
    quarantined = row.get("quarantined", 0)
    mapping = next((count.mapping for count in counts if count.mapping), "")
    waiting: Counter[str] = Counter()
    for count in counts:
        waiting[count.code] += count.waiting
    return SourceView(
        name=name,
        type=str(row.get("type", "")),
        rate=rate_text(row.get("rate")),
        accepted=row.get("accepted", 0),
        last_at=row.get("last_at") or "",
        coverage=share_text(good, good + quarantined) if quarantined else "",
        mapping=mapping or "",
        quarantine=tuple((code, number) for code, number in waiting.most_common() if number),
        gaps=count_gaps(gaps),
        lag=_lag(row),
        trouble=_trouble(row),
    )


def count_gaps(gaps: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Gap entries of the account in words, by kind: how many numbers are missing, came late, came again."""
    found: Counter[str] = Counter()
    for gap in gaps:
        numbers = sum(last - first + 1 for first, last in gap.get("ranges") or [])
        found[str(gap.get("reason"))] += numbers or 1
    return tuple(f"{number:,} {_GAPS.get(reason, reason)}" for reason, number in found.items())


def _lag(row: Mapping[str, Any]) -> str:
    if row.get("lag_seconds") is not None:
        return duration_text(float(row["lag_seconds"]))
    return f"{row['lag']:,}" if isinstance(row.get("lag"), int) and row["lag"] else ""


def _trouble(row: Mapping[str, Any]) -> str:
    """What is wrong with it, in words."""
    if row.get("silent_since"):
        return f"silent since {row['silent_since']}"
    state, reason = row.get("state", "running"), row.get("reason") or ""
    return ": ".join(text for text in (state if state != "running" else "", reason) if text)
