"""What can be asked of the query engine, and what it answers. Times are aware datetimes; tenants go by name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tallystick.archive.reader import Found

__all__ = ["Bucket", "Count", "Facets", "Found", "Histogram", "Order", "Page", "SearchRequest", "TimeField"]

TimeField = Literal["occurred_at", "received_at"]
Order = Literal["desc", "asc"]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """``start`` is inclusive, ``end`` exclusive, both on ``time``. ``limit`` and ``order`` matter to a page only.

    ``cursor`` is `Page.next` of the page before: it brings that page's snapshot and its times, so a relative range does not
    move on while somebody turns pages. Query, tenants, time field and order must be those of that page.
    """

    tenants: tuple[str, ...]
    query: str = ""
    start: datetime | None = None
    end: datetime | None = None
    time: TimeField = "occurred_at"
    order: Order = "desc"
    limit: int = 100
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """``events`` are canonical lines, with ``tenants`` and ``indexes`` parallel to them. ``partial``: time ran out."""

    events: list[bytes]
    indexes: list[int]
    tenants: list[str]
    next: str | None
    partial: bool


@dataclass(frozen=True, slots=True)
class Bucket:
    """Events from ``at`` on, until the next bucket, by outcome."""

    at: datetime
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Buckets of ``width_s`` seconds, in order, empty ones included. No buckets when nothing matches."""

    buckets: list[Bucket]
    width_s: float
    total: int
    partial: bool


@dataclass(frozen=True, slots=True)
class Facets:
    """For each facet its most frequent values with their counts, highest first."""

    values: dict[str, list[tuple[str, int]]]
    total: int
    partial: bool


@dataclass(frozen=True, slots=True)
class Count:
    total: int
    partial: bool
