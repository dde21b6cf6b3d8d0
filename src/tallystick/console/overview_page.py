"""The overview: events over time in all, by tenant and by source, who and what is most frequent, and how the pipeline is, in words.

A view of it is on record as a search over what it counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import BaseRouteHandler

from tallystick.api.caller import Caller, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import read_range, request_id_of
from tallystick.api.search import Asked, build_request, record_search
from tallystick.api.status import build_status
from tallystick.console.events_page import From, Tenant, tenant_names
from tallystick.console.facets import view_facets
from tallystick.console.histogram import Histogram, draw_histogram
from tallystick.console.pages import render
from tallystick.console.sentence import quote_value
from tallystick.console.state import DEFAULT_START, RANGES, ViewState
from tallystick.query.request import SearchRequest
from tallystick.query.values import micros_of

_BUCKETS, _SMALL_BUCKETS = 96, 48
_ROWS_MAX = 6
_TOP = ("actor", "action", "target", "outcome", "source.name")


@dataclass(frozen=True, slots=True)
class Counted:
    """One small chart, with the link to its events."""

    name: str
    href: str
    histogram: Histogram


@get("/overview", include_in_schema=False)
async def show_overview(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, tenant: Tenant = "", start: From = DEFAULT_START
) -> Response[bytes]:
    """Of one tenant, or of all that the caller sees."""
    require(caller, "read")
    now = datetime.now(UTC)
    first, last = read_range(start or None, None, now)
    asked = Asked("", first, last or now, "occurred_at", tenant or None)
    built = build_request(deps, caller, asked)
    await record_search(deps, caller, asked, built.tenants, "search", request_id_of(request), view="overview")
    counted = await deps.searches.run(partial(_count, deps, caller, asked, built, ViewState("", tenant, start)))
    status = await build_status(deps, caller)
    rules = status["alerts"].get("rules") or {}
    return render(
        "overview.html",
        page="Overview",
        caller=caller,
        server_name=deps.server_name,
        reasons=[],
        tenant=tenant,
        tenants=tenant_names(deps, caller),
        start=start,
        ranges=RANGES if start in dict(RANGES) else [(start, "this range"), *RANGES],
        status=status,
        health=health_words(status),
        alerts={name: row["raised"] for name, row in rules.items() if row.get("raised")},
        has_alerts=bool(status["alerts"]),
        **counted,
    )


def health_words(status: dict[str, Any]) -> str:
    """How the pipeline is, in one sentence."""
    if not status["ready"]:
        return "No events are accepted now."
    behind = [name for name, row in status["destinations"].items() if row["pending"]]
    unsealed = sum(max(0, row["accepted"] - row["sealed"]) for row in status["tenants"].values())
    words = ["Events are accepted"]
    if unsealed:
        words.append(f"{unsealed:,} are on disk and not sealed yet")
    if behind:
        words.append(f"{', '.join(behind)} {'is' if len(behind) == 1 else 'are'} behind")
    elif status["destinations"]:
        words.append("every destination has all that is sealed")
    return ", ".join(words) + "."


def _count(deps: ApiDeps, caller: Caller, asked: Asked, built: SearchRequest, state: ViewState) -> dict[str, Any]:
    """Blocking."""
    facets = deps.engine.facets(built, _TOP, 10)
    sources = [name for name, _ in facets.values.get("source.name", [])][:_ROWS_MAX]
    by_source = [(name, f"source.name:{quote_value(name)}", state.tenant) for name in sources]
    by_tenant = [(name, "", name) for name in built.tenants[:_ROWS_MAX]] if len(built.tenants) > 1 else []
    small = partial(_small, deps, caller, asked, state)
    first = built.tenants[0] if built.tenants else ""
    shown = state if state.tenant else ViewState("", first, state.start)
    return {
        "histogram": _draw(deps, built, state, _BUCKETS),
        "by_tenant": [chart for row in by_tenant if (chart := small(*row)) is not None],
        "by_source": [chart for row in by_source if (chart := small(*row)) is not None],
        "lists": [facet for facet in view_facets(facets, shown, {}) if facet.name in ("actor", "action", "target")],
        "left_out": max(0, len(built.tenants) - _ROWS_MAX) if by_tenant else 0,
    }


def _small(deps: ApiDeps, caller: Caller, asked: Asked, state: ViewState, name: str, query: str, tenant: str) -> Counted | None:
    request = build_request(deps, caller, Asked(query, asked.start, asked.end, "occurred_at", tenant or None))
    own = ViewState(query, tenant, state.start)
    histogram = _draw(deps, request, own, _SMALL_BUCKETS)
    return None if histogram is None or not histogram.total else Counted(name, own.href(), histogram)


def _draw(deps: ApiDeps, request: SearchRequest, state: ViewState, buckets: int) -> Histogram | None:
    found = deps.engine.histogram(request, buckets)
    counts = [(micros_of(bucket.at) or 0, bucket.counts) for bucket in found.buckets]
    return draw_histogram(counts, round(found.width_s * 1_000_000), state, is_partial=found.partial)


HANDLERS: list[BaseRouteHandler] = [show_overview]
