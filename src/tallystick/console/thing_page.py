"""The pages of one actor and of one target: what they did, or what was done to them, in one range of time. On record as a search."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter

from tallystick.api.caller import Caller, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import read_range, request_id_of
from tallystick.api.search import Asked, build_request, record_search
from tallystick.console.blame import find_blame
from tallystick.console.event_view import view_event
from tallystick.console.events_page import From, Tenant, To, tenant_names
from tallystick.console.facets import actor_names, view_facets
from tallystick.console.histogram import draw_histogram
from tallystick.console.pages import render
from tallystick.console.patterns import count_hours, list_places, list_sessions, usual_hours
from tallystick.console.sentence import quote_value
from tallystick.console.state import RANGES, ViewState
from tallystick.http.problem import Problem
from tallystick.query.request import SearchRequest
from tallystick.query.values import micros_of

LOOKED_AT = 1_000
_SHOWN = 100
_BUCKETS = 60
_START = "-30d"
_FACETS = {"actor": ("action", "target", "ip", "source.name"), "target": ("action", "actor", "ip", "source.name")}

Id = Annotated[str, QueryParameter(name="id", max_length=4_096)]
Kind = Annotated[str, QueryParameter(name="type", max_length=256)]


@dataclass(frozen=True, slots=True)
class Thing:
    """Whose page it is. ``kind`` is the target's type, empty for any, and for actors."""

    role: str
    id: str
    kind: str = ""

    @property
    def query(self) -> str:
        """The query that finds its events."""
        term = f"{self.role}.id:{quote_value(self.id)}"
        return f"{term} target.type:{quote_value(self.kind)}" if self.kind else term


@get("/actor", include_in_schema=False)
async def show_actor(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    id_: Id = "",
    tenant: Tenant = "",
    start: From = _START,
    end: To = "",
) -> Response[bytes]:
    """What an actor did."""
    return await _page(deps, caller, Thing("actor", id_), _state(deps, caller, tenant, start, end), request_id_of(request))


@get("/target", include_in_schema=False)
async def show_target(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    id_: Id = "",
    kind: Kind = "",
    tenant: Tenant = "",
    start: From = _START,
    end: To = "",
) -> Response[bytes]:
    """What was done to a target, and who set its values."""
    return await _page(deps, caller, Thing("target", id_, kind), _state(deps, caller, tenant, start, end), request_id_of(request))


def _state(deps: ApiDeps, caller: Caller, tenant: str, start: str, end: str) -> ViewState:
    names = tenant_names(deps, caller)
    return ViewState("", tenant or (names[0] if names else ""), start, end)


async def _page(deps: ApiDeps, caller: Caller, thing: Thing, state: ViewState, request_id: str) -> Response[bytes]:
    require(caller, "read")
    if not thing.id:
        raise Problem(400, "id_missing", f"name the {thing.role} in `id`")
    now = datetime.now(UTC)
    first, last = read_range(state.start or None, state.end or None, now)
    state = ViewState(thing.query, state.tenant, state.start, state.end)
    asked = Asked(thing.query, first, last or now, "occurred_at", state.tenant, "desc", LOOKED_AT)
    built = build_request(deps, caller, asked)
    oldest = build_request(deps, caller, Asked(thing.query, None, None, "occurred_at", state.tenant, "asc", 1))
    until = build_request(deps, caller, Asked(thing.query, None, last or now, "occurred_at", state.tenant, "desc", LOOKED_AT))
    await record_search(deps, caller, asked, built.tenants, "search", request_id, view=thing.role)
    found = await deps.searches.run(lambda: _found(deps, thing, state, built, oldest, until if thing.role == "target" else None))
    ranges = list(RANGES) if not state.end and state.start in dict(RANGES) else [(state.start, "this range"), *RANGES]
    return render(
        "thing.html",
        page="Events",
        caller=caller,
        server_name=deps.server_name,
        reasons=[],
        thing=thing,
        state=state,
        ranges=ranges,
        tenants=tenant_names(deps, caller),
        **found,
    )


def _found(
    deps: ApiDeps, thing: Thing, state: ViewState, built: SearchRequest, oldest: SearchRequest, until: SearchRequest | None
) -> dict[str, Any]:
    """What the page shows of it. Blocking."""
    page = deps.engine.search(built)
    events = [msgspec.json.decode(line) for line in page.events]
    histogram = deps.engine.histogram(built, _BUCKETS)
    facets = deps.engine.facets(built, _FACETS[thing.role], 10)
    first = [msgspec.json.decode(line) for line in deps.engine.search(oldest).events]
    settings, is_blame_cut = [], False
    if until is not None:
        past = deps.engine.search(until)
        settings = find_blame([msgspec.json.decode(line) for line in past.events], thing.kind, thing.id)
        is_blame_cut = past.next is not None or past.partial
    hours = count_hours(events)
    counts = [(micros_of(bucket.at) or 0, bucket.counts) for bucket in histogram.buckets]
    now = datetime.now(UTC)
    return {
        "name": _name(thing, events or first),
        "events": [view_event(event, now) for event in events[:_SHOWN]],
        "histogram": draw_histogram(counts, round(histogram.width_s * 1_000_000), state, is_partial=histogram.partial),
        "facets": view_facets(facets, state, actor_names(events)),
        "first": view_event(first[0], now) if first else None,
        "looked_at": len(events),
        "is_cut": page.next is not None or page.partial,
        "hours": hours,
        "usual": usual_hours(hours),
        "places": list_places(events),
        "sessions": list_sessions(events),
        "settings": settings,
        "is_blame_cut": is_blame_cut,
    }


def _name(thing: Thing, events: list[dict[str, Any]]) -> str:
    """What the newest event that names it calls it; empty when none does."""
    for event in events:
        candidates = [event.get("actor") or {}] if thing.role == "actor" else event.get("targets") or []
        for item in candidates:
            if item.get("id") == thing.id and item.get("name") not in (None, "", thing.id):
                return str(item["name"])
    return ""


HANDLERS: list[BaseRouteHandler] = [show_actor, show_target]
