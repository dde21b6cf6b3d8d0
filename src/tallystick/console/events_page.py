"""The events page: search, facets, histogram, list and the event's panel. A view of it counts as a search and is on record."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response, get
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter
from litestar.response import Stream

from tallystick.api.caller import Caller, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.live import open_tail
from tallystick.api.params import read_range, request_id_of
from tallystick.api.search import Asked, build_request, record_search, visible_tenants
from tallystick.api.status import follower_reasons
from tallystick.api.tail import Tailed
from tallystick.console.event_view import view_event
from tallystick.console.facets import FACETS, actor_names, view_facets
from tallystick.console.histogram import draw_histogram
from tallystick.console.notice import unread_notice
from tallystick.console.pages import environment, render
from tallystick.console.panel import build_panel
from tallystick.console.state import DEFAULT_START, RANGES, ViewState
from tallystick.errors import NotFoundError, QueryError
from tallystick.http.problem import Problem
from tallystick.journal.tenants import SERVER_TENANT
from tallystick.query.request import SearchRequest
from tallystick.query.values import micros_of

PAGE_EVENTS = 100
_BUCKETS = 97

Text = Annotated[str, QueryParameter(name="q", max_length=32_768)]
Tenant = Annotated[str, QueryParameter(name="tenant", max_length=63)]
From = Annotated[str, QueryParameter(name="from", max_length=64)]
To = Annotated[str, QueryParameter(name="to", max_length=64)]
CursorText = Annotated[str, QueryParameter(name="cursor", max_length=32_768)]
OpenId = Annotated[str, QueryParameter(name="open", max_length=128)]
Tab = Annotated[str, QueryParameter(name="tab", max_length=16)]


@get("/", include_in_schema=False)
async def show_events(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    q: Text = "",
    tenant: Tenant = "",
    start: From = DEFAULT_START,
    end: To = "",
    cursor: CursorText = "",
    open_id: OpenId = "",
    tab: Tab = "",
) -> Response[bytes]:
    """One page of the list, with everything around it."""
    require(caller, "read")
    tenants = tenant_names(deps, caller)
    state = ViewState(q, tenant or _first(tenants), start, end, cursor, open_id, tab)
    reasons = await deps.reads.run(lambda: follower_reasons(deps))
    values: dict[str, Any] = {"tenants": tenants, "reasons": reasons if caller.is_server_wide else []}
    try:
        values |= await _found(deps, caller, state, request_id_of(request))
    except (QueryError, Problem, NotFoundError) as error:
        if isinstance(error, Problem) and error.status != 400:
            raise
        values |= _empty(error)
    panel = await build_panel(deps, caller, state, request_id_of(request)) if state.open else None
    return render("events.html", **_frame(request, deps, caller, state), panel=panel, **values)


@get("/panel", include_in_schema=False)
async def show_panel(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    q: Text = "",
    tenant: Tenant = "",
    start: From = DEFAULT_START,
    end: To = "",
    cursor: CursorText = "",
    open_id: OpenId = "",
    tab: Tab = "",
) -> Response[bytes]:
    """The panel alone, for the script that puts it beside the list."""
    require(caller, "read")
    state = ViewState(q, tenant or _first(tenant_names(deps, caller)), start, end, cursor, open_id, tab)
    panel = await build_panel(deps, caller, state, request_id_of(request))
    return render("_panel.html", state=state, panel=panel)


@get("/live", include_in_schema=False, media_type="text/event-stream")
async def live(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    q: Text = "",
    tenant: Tenant = "",
    start: From = DEFAULT_START,
    end: To = "",
) -> Stream:
    """New rows as they come, ready-made."""
    state = ViewState(q, tenant or _first(tenant_names(deps, caller)), start, end)
    row = environment.get_template("_row.html").make_module({"state": state}).row  # type: ignore[attr-defined]

    def as_row(event: Tailed) -> bytes:
        markup = str(row(view_event(msgspec.json.decode(event.line), datetime.now(UTC)), state))
        return b"event: row\n" + b"".join(b"data: %b\n" % line.encode() for line in markup.splitlines()) + b"\n"

    stream = await open_tail(deps, caller, q, state.tenant or None, request_id_of(request), as_row)
    request.scope["state"]["closers"] = [stream.aclose]
    return Stream(stream, media_type="text/event-stream")


async def _found(deps: ApiDeps, caller: Caller, state: ViewState, request_id: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    first, last = read_range(state.start or None, state.end or None, now)
    asked = Asked(state.q, first, last, "occurred_at", state.tenant or None, "desc", PAGE_EVENTS, state.cursor or None)
    built = build_request(deps, caller, asked)
    whole = build_request(deps, caller, Asked(state.q, first, last or now, "occurred_at", state.tenant or None))
    await record_search(deps, caller, asked, built.tenants, "search", request_id, view="console")
    page, (histogram, facets) = await asyncio.gather(
        deps.searches.run(lambda: deps.engine.search(built)), deps.searches.run(lambda: _counts(deps, whole))
    )
    counts = [(micros_of(bucket.at) or 0, bucket.counts) for bucket in histogram.buckets]
    events = [msgspec.json.decode(line) for line in page.events]
    return {
        "events": [view_event(event, now) for event in events],
        "next": page.next,
        "histogram": draw_histogram(counts, round(histogram.width_s * 1_000_000), state, is_partial=histogram.partial),
        "facets": view_facets(facets, state, actor_names(events)),
        "error": None,
    }


def _counts(deps: ApiDeps, request: SearchRequest) -> tuple[Any, Any]:
    return deps.engine.histogram(request, _BUCKETS), deps.engine.facets(request, FACETS, 8)


def _empty(error: QueryError | Problem | NotFoundError) -> dict[str, Any]:
    hint = error.hint or 'Examples: action:role.* outcome:denied · actor:u_17 ip:10.0.0.0/8 · "free text"'
    title = "No such tenant" if isinstance(error, NotFoundError) else "This search cannot be understood"
    text = error.message + (f" ({error.place})" if error.place else "")
    return {"events": [], "next": None, "histogram": None, "facets": [], "error": {"title": title, "text": text, "hint": hint}}


def tenant_names(deps: ApiDeps, caller: Caller) -> list[str]:
    """The tenants to choose from, the server's own last."""
    names = list(visible_tenants(deps, caller, None))
    if caller.sees(SERVER_TENANT) and deps.tenants.get(SERVER_TENANT) is not None:
        names.append(SERVER_TENANT)
    return names


def _first(names: list[str]) -> str:
    return names[0] if names else ""


def _frame(request: Request[Any, Any, Any], deps: ApiDeps, caller: Caller, state: ViewState) -> dict[str, Any]:
    """What every rendering of the page needs besides what was found."""
    ranges = list(RANGES)
    if state.end or state.start not in dict(RANGES):
        ranges.insert(0, (state.start, "this range"))
    asked = [("query", state.q), ("from", state.start), ("to", state.end), ("tenant", state.tenant)]
    query = urlencode([(name, value) for name, value in asked if value])
    scheme = "https" if deps.config.server.tls is not None else "http"
    return {
        "page": "Events",
        "caller": caller,
        "server_name": deps.server_name,
        "state": state,
        "ranges": ranges,
        "known_starts": dict(RANGES),
        "base_url": f"{scheme}://{request.headers.get('host', '')}",
        "api_url": f"/v1/events?{query}",
        "export_url": f"/v1/export?{query}",
        "notice": unread_notice(request, deps),
        "notice_read_url": f"/notice/read?{urlencode({'next': state.href()})}",
    }


HANDLERS: list[BaseRouteHandler] = [show_events, show_panel, live]
