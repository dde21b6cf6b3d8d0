"""Reading events: search, histogram, facets, export, one event, its proof, and where it went."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, get
from litestar.params import PathParameter, QueryParameter
from litestar.response import Stream

from tallystick.api.caller import require
from tallystick.api.deps import CallerDep, DepsDep
from tallystick.api.explain import explain_event
from tallystick.api.export import export_stream
from tallystick.api.opening import OpenParam, may_open, open_lines
from tallystick.api.params import FromTime, QueryText, TenantParam, TimeField, ToTime, read_range, request_id_of
from tallystick.api.proof import build_event_proof
from tallystick.api.search import Asked, build_request, find_event, record_search, run_recorded
from tallystick.query.aggregate import FACETS
from tallystick.query.export import MEDIA_TYPES, Format
from tallystick.query.request import Bucket, Page

EventId = Annotated[str, PathParameter(description="An event's id.", max_length=128)]
OrderParam = Annotated[Literal["desc", "asc"], QueryParameter(name="order", description="Newest or oldest first; ties by index.")]
CursorParam = Annotated[
    str | None,
    QueryParameter(name="cursor", description="`next` of the page before; holds that page's snapshot.", max_length=32_768),
]
SearchLimit = Annotated[int, QueryParameter(name="limit", description="Most events in the page.", ge=1, le=1_000_000_000)]
DEFAULT_FACETS = ("outcome", "action", "actor", "target.type", "source.name")


class EventPage(msgspec.Struct, kw_only=True):
    """``events`` are canonical lines, byte for byte; ``next`` is the cursor of the next page, null on the last. ``partial``: the
    time limit ended the search early."""

    events: list[msgspec.Raw]
    next: str | None
    partial: bool


class BucketView(msgspec.Struct, kw_only=True):
    """Events from ``at`` (RFC 3339) until the next bucket; ``outcomes`` counts them by outcome."""

    at: str
    count: int
    outcomes: dict[str, int]


class HistogramView(msgspec.Struct, kw_only=True):
    buckets: list[BucketView]
    width_seconds: float
    total: int
    partial: bool


class FacetValue(msgspec.Struct, kw_only=True):
    value: str
    count: int


class FacetsView(msgspec.Struct, kw_only=True):
    """The most frequent values of each field, highest count first."""

    facets: dict[str, list[FacetValue]]
    total: int
    partial: bool


@get("/v1/events", operation_id="searchEvents", tags=["events"], summary="Search")
async def search_events(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    text: QueryText = "",
    start: FromTime = None,
    end: ToTime = None,
    time: TimeField = "occurred_at",
    tenant: TenantParam = None,
    order: OrderParam = "desc",
    limit: SearchLimit = 100,
    cursor: CursorParam = None,
    opened: OpenParam = False,
) -> EventPage:
    """Pages of one cursor see one snapshot: nothing is shown twice and nothing is left out. The search is on record."""
    may_open(caller, wants=opened)
    asked = Asked(text, *read_range(start, end), time, tenant, order, limit, cursor)
    built = build_request(deps, caller, asked)
    page: Page = await run_recorded(
        deps, caller, asked, built, "search", request_id_of(request), lambda: deps.engine.search(built), limit=built.limit
    )
    lines = page.events
    if opened:
        lines = await open_lines(deps, caller, page.tenants, lines, request_id_of(request), text)
    return EventPage(events=[msgspec.Raw(line) for line in lines], next=page.next, partial=page.partial)


@get("/v1/histogram", operation_id="countOverTime", tags=["events"], summary="Counts over time, by outcome")
async def histogram(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    text: QueryText = "",
    start: FromTime = None,
    end: ToTime = None,
    time: TimeField = "occurred_at",
    tenant: TenantParam = None,
    buckets: Annotated[int, QueryParameter(name="buckets", description="About how many buckets.", ge=1, le=1_000)] = 60,
) -> HistogramView:
    """Buckets have a round width and come without gaps."""
    asked = Asked(text, *read_range(start, end), time, tenant)
    built = build_request(deps, caller, asked)
    found = await run_recorded(
        deps,
        caller,
        asked,
        built,
        "search",
        request_id_of(request),
        lambda: deps.engine.histogram(built, buckets),
        view="histogram",
    )
    views = [bucket_view(bucket) for bucket in found.buckets]
    return HistogramView(buckets=views, width_seconds=found.width_s, total=found.total, partial=found.partial)


def bucket_view(bucket: Bucket) -> BucketView:
    at = bucket.at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return BucketView(at=at, count=sum(bucket.counts.values()), outcomes=bucket.counts)


@get("/v1/facets", operation_id="countValues", tags=["events"], summary="The most frequent values with their counts")
async def facets(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    text: QueryText = "",
    start: FromTime = None,
    end: ToTime = None,
    time: TimeField = "occurred_at",
    tenant: TenantParam = None,
    fields: Annotated[
        str, QueryParameter(name="fields", description=f"Names separated by commas, out of: {', '.join(FACETS)}.", max_length=1_024)
    ] = ",".join(DEFAULT_FACETS),
    limit: Annotated[int, QueryParameter(name="limit", description="Most values for each field.", ge=1, le=1_000)] = 10,
) -> FacetsView:
    """Each field's name is also its name in a query."""
    asked = Asked(text, *read_range(start, end), time, tenant)
    built = build_request(deps, caller, asked)
    names = tuple(dict.fromkeys(name.strip() for name in fields.split(",") if name.strip()))
    found = await run_recorded(
        deps, caller, asked, built, "search", request_id_of(request), lambda: deps.engine.facets(built, names, limit), view="facets"
    )
    values = {name: [FacetValue(value=value, count=count) for value, count in rows] for name, rows in found.values.items()}
    return FacetsView(facets=values, total=found.total, partial=found.partial)


@get(
    "/v1/export",
    operation_id="exportEvents",
    tags=["events"],
    summary="Everything that matches, streamed",
    media_type="application/x-ndjson",
)
async def export(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    text: QueryText = "",
    start: FromTime = None,
    end: ToTime = None,
    time: TimeField = "occurred_at",
    tenant: TenantParam = None,
    form: Annotated[
        Format, QueryParameter(name="format", description="`jsonl` gives the leaves of the log, byte for byte.")
    ] = "jsonl",
) -> Stream:
    """One snapshot, tenant by tenant in the order of the log. CSV cells that a spreadsheet would run as formulas are made harmless by a leading apostrophe."""
    asked = Asked(text, *read_range(start, end), time, tenant)
    built = build_request(deps, caller, asked)
    await record_search(deps, caller, asked, built.tenants, "export", request_id_of(request), format=form)
    stream = await export_stream(deps, built, form)
    request.scope["state"]["closers"] = [stream.aclose]
    name = f"tallystick-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{form}"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Stream(stream, media_type=MEDIA_TYPES[form].partition(";")[0], headers=headers)


@get("/v1/events/{event_id:str}", operation_id="getEvent", tags=["events"], summary="One event: its canonical line")
async def get_event(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    event_id: EventId,
    tenant: TenantParam = None,
    opened: OpenParam = False,
) -> Response[bytes]:
    """The body is the leaf of the log, byte for byte (not with `open=true`); headers name its log and index."""
    require(caller, "read")
    may_open(caller, wants=opened)
    name, found = await find_event(deps, caller, tenant, event_id)
    await deps.auditor.record(caller, "event.read", tenants=[name], target=("event", event_id), request_id=request_id_of(request))
    line = found.line
    if opened:
        line = (await open_lines(deps, caller, [name], [line], request_id_of(request)))[0]
    return Response(line, media_type="application/json", headers={"x-tallystick-index": str(found.index)})


@get(
    "/v1/events/{event_id:str}/proof",
    operation_id="proveEvent",
    tags=["events"],
    summary="A C2SP tlog-proof of the event",
    media_type="text/plain",
)
async def get_proof(
    caller: CallerDep,
    deps: DepsDep,
    event_id: EventId,
    tenant: TenantParam = None,
    chain: Annotated[bool, QueryParameter(name="chain", description="Add a second proof, on to the root log.")] = False,
) -> Response[bytes]:
    """Leads from the event's leaf to the tenant's signed checkpoint. 503 `not_sealed` for the moment until the event is sealed.

    With `chain` two proofs follow each other: event to checkpoint, and the root log's entry that quotes it to the root
    checkpoint; a fresh event is quoted after the root interval.
    """
    require(caller, "read", "verify")
    name, found = await find_event(deps, caller, tenant, event_id)
    proof = await build_event_proof(deps, name, found.index, is_chain=chain)
    return Response(proof.encode(), media_type="text/plain")


@get(
    "/v1/events/{event_id:str}/explain",
    operation_id="explainEvent",
    tags=["events"],
    summary="Where the event went, and why it is not where it is not",
)
async def explain(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, event_id: EventId, tenant: TenantParam = None
) -> dict[str, Any]:
    """Place in the log, sealed and archived or not yet, and for each destination the outcome and its reason."""
    require(caller, "read")
    name, found = await find_event(deps, caller, tenant, event_id)
    return await explain_event(deps, name, event_id, found)


HANDLERS = [search_events, histogram, facets, export, get_event, get_proof, explain]
