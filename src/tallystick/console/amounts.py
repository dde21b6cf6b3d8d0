"""Numbers in words: ages, rates, shares, sizes. Pure."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def duration_text(seconds: float) -> str:
    """``5400`` as "1.5 h"."""
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"


def lag_text(seconds: float, pending: int) -> str:
    """How old the oldest pending event is, in words."""
    return duration_text(seconds) if pending else "none"


def rate_text(per_second: float | None) -> str:
    """Events a second, or a minute, or an hour when there are few; empty when it is not known."""
    if per_second is None:
        return ""
    if per_second <= 0:
        return "none"
    for factor, unit in ((1, "s"), (60, "min"), (3_600, "h")):
        count = per_second * factor
        if count >= 1 or unit == "h":
            return f"{count:,.0f}/{unit}" if count >= 10 else f"{count:.1f}/{unit}"
    return ""


def share_text(part: int, whole: int) -> str:
    """``part`` of ``whole`` in per cent, never rounded up to a whole that it is not; empty of nothing."""
    if not whole:
        return ""
    if part == whole:
        return "100 %"
    return f"{min(99.9, part / whole * 100):.1f} %"


def bytes_text(count: float) -> str:
    """``1500000`` as "1.5 MB"."""
    for unit in _UNITS[:-1]:
        if count < 1_000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1_000
    return f"{count:.1f} {_UNITS[-1]}"
