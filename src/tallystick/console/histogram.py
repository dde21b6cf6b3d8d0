"""Geometry of the histogram: counts over time, stacked by outcome, as numbers that the template puts into SVG. Pure.

The worst outcome lies on top of the success so that one denied event among thousands is still seen: a bar that stands for
anything is at least ``MIN_HEIGHT`` high.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tallystick.console.state import ViewState

WIDTH, HEIGHT, MIN_HEIGHT = 960.0, 76.0, 2.0
OUTCOMES = ("success", "unknown", "failure", "denied")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Bar:
    outcome: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bucket:
    x: float
    width: float
    inner: float
    title: str
    href: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """``labels`` are the axis texts from left to right; ``start_us`` and ``end_us`` Unix microseconds of the whole width."""

    width: float
    buckets: tuple[Bucket, ...]
    outcomes: tuple[str, ...]
    total: int
    span: str
    labels: tuple[str, ...]
    start_us: int
    end_us: int
    is_partial: bool = False


def draw_histogram(
    counts: Sequence[tuple[int, Mapping[str, int]]], step_us: int, state: ViewState, *, is_partial: bool = False
) -> Histogram | None:
    """``counts`` are (start in Unix microseconds, outcome → count), one per bucket of ``step_us``, in order and without gaps."""
    if not counts:
        return None
    top = max(sum(by_outcome.values()) for _, by_outcome in counts) or 1
    width = WIDTH / len(counts)
    buckets = tuple(
        Bucket(
            x=round(place * width, 2),
            width=round(width, 2),
            inner=round(max(width - 1, width * 0.7), 2),
            title=_title(start, step_us, by_outcome),
            href=state.href(start=iso(start), end=iso(start + step_us), cursor="", open="", tab=""),
            bars=_stack(by_outcome, top),
        )
        for place, (start, by_outcome) in enumerate(counts)
    )
    first, last = counts[0][0], counts[-1][0] + step_us
    return Histogram(
        width=WIDTH,
        buckets=buckets,
        outcomes=tuple(name for name in OUTCOMES if any(by_outcome.get(name) for _, by_outcome in counts)),
        total=sum(sum(by_outcome.values()) for _, by_outcome in counts),
        span=f"one bar is {step_text(step_us)}",
        labels=_labels([start for start, _ in counts], last),
        start_us=first,
        end_us=last,
        is_partial=is_partial,
    )


def _stack(by_outcome: Mapping[str, int], top: int) -> tuple[Bar, ...]:
    bars = []
    y = HEIGHT
    for outcome in OUTCOMES:
        count = by_outcome.get(outcome, 0)
        if count:
            height = min(y, max(MIN_HEIGHT, count / top * (HEIGHT - 4)))
            y -= height
            bars.append(Bar(outcome, round(y, 2), round(height, 2)))
    return tuple(bars)


def _title(start: int, step_us: int, by_outcome: Mapping[str, int]) -> str:
    parts = ", ".join(f"{by_outcome[name]:,} {name}" for name in OUTCOMES if by_outcome.get(name))
    return f"{_moment(start):%a %d %b %H:%M} UTC, {step_text(step_us)}: {parts or 'nothing'}"


def _labels(starts: Sequence[int], last: int, count: int = 5) -> tuple[str, ...]:
    """Starts of buckets, evenly chosen, and the end."""
    form = "%H:%M" if last - starts[0] <= 36 * 3_600 * 1_000_000 else "%a %d %b"
    chosen = [starts[len(starts) * place // (count - 1)] for place in range(count - 1)]
    return tuple(f"{_moment(micros):{form}}" for micros in dict.fromkeys([*chosen, last]))


def step_text(step_us: int) -> str:
    """``3600000000`` as "1 hour"."""
    seconds = step_us / 1_000_000
    for size, name in ((604_800, "week"), (86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size and seconds % size == 0:
            number = int(seconds // size)
            return f"{number} {name}{'' if number == 1 else 's'}"
    return f"{seconds:g} seconds"


def iso(micros: int) -> str:
    """Unix microseconds as RFC 3339 in UTC."""
    return _moment(micros).isoformat().replace("+00:00", "Z")


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
