"""``/v1/holds``: placing, reviewing and lifting legal holds, and what each holds back.

A placing is durable before its answer and counts from then on (`archive.hold`). Placing, reviewing and lifting are `hold` entries in
the account tree of each tenant, beside the event that P12 asks for. A lifting is on record before it is done, a placing is done before
it is on record: whatever a crash leaves undone, nothing expires that nobody let go.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import JSONBody, PathParameter
from msgspec import Meta

from tallystick.api.caller import Caller, no_such, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import request_id_of
from tallystick.api.search import visible_tenants
from tallystick.archive.hold import Hold, Holds, Review
from tallystick.event.model import TenantName
from tallystick.http.problem import Problem
from tallystick.query.evaluate import compile_query
from tallystick.query.request import SearchRequest

HoldId = Annotated[str, PathParameter(description="The hold's id.", max_length=64)]
Words = Annotated[str, Meta(min_length=3, max_length=2_048)]
Day = Annotated[str, Meta(pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", description="A day, as in 2027-01-31.")]


class HoldRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of POST /v1/holds. An empty query holds all events of the tenants; ``review``: the day to look at it again."""

    tenants: Annotated[list[TenantName], Meta(min_length=1, max_length=1_000)]
    query: Annotated[str, Meta(max_length=8_192)] = ""
    reason: Words
    owner: Annotated[str, Meta(min_length=1, max_length=256)]
    review: Day


class ReviewRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of a review: what was found, and the day of the next one."""

    note: Words
    review: Day


class LiftRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of a lifting."""

    reason: Words


class ReviewView(msgspec.Struct, kw_only=True):
    by: str
    at: str
    note: str
    review: str


class HoldView(msgspec.Struct, kw_only=True):
    """A hold. ``is_overdue``: it stands, and the day of its review is past. Times are RFC 3339, ``review`` is a day."""

    id: str
    tenants: list[str]
    query: str
    reason: str
    owner: str
    review: str
    is_active: bool
    is_overdue: bool
    placed_by: str
    placed_at: str
    reviews: list[ReviewView]
    lifted_by: str
    lifted_at: str | None
    lift_reason: str


class HoldList(msgspec.Struct, kw_only=True):
    holds: list[HoldView]


class HoldReport(HoldView, kw_only=True):
    """With the number of events that its query matches now, by tenant; null where that could not be counted to the end in time."""

    events: dict[str, int | None]


@get("/v1/holds", operation_id="listHolds", tags=["retention"], summary="Legal holds, lifted ones included")
async def list_holds(caller: CallerDep, deps: DepsDep) -> HoldList:
    """The oldest first; those of which the key sees every tenant."""
    require(caller, "read", "operate")
    return HoldList(holds=await hold_views(deps, caller))


@post("/v1/holds", operation_id="placeHold", tags=["retention"], summary="Keep events from expiring", status_code=201)
async def place_hold(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, data: JSONBody[HoldRequest]) -> HoldView:
    """From the answer on nothing that the query matches expires, whatever its period."""
    return await place(deps, caller, data, request_id_of(request))


async def hold_views(deps: ApiDeps, caller: Caller) -> list[HoldView]:
    """The oldest first; those of which the caller sees every tenant."""
    return [_view(hold) for hold in await deps.reads.run(lambda: visible_holds(deps, caller))]


async def place(deps: ApiDeps, caller: Caller, data: HoldRequest, request_id: str) -> HoldView:
    """A new hold, in force before it is on record. Raises Problem, NotFoundError, QueryError."""
    require(caller, "operate")
    names = [name for tenant in data.tenants for name in visible_tenants(deps, caller, tenant)]
    compile_query(data.query or "action:*")
    _check_day(data.review)
    hold = Hold(
        id=f"h{secrets.token_hex(6)}",
        tenants={found.handle: name for name in names if (found := deps.tenants.get(name)) is not None},
        query=data.query,
        reason=data.reason,
        owner=data.owner,
        review=data.review,
        placed_by=caller.owner,
        placed_at=_now(),
    )
    await deps.reads.run(lambda: _change(deps, lambda holds: holds.append(hold)))
    await _put_on_record(deps, caller, hold, "place", request_id, {"owner": hold.owner, "query": hold.query})
    return _view(hold)


@get("/v1/holds/{hold_id:str}", operation_id="getHold", tags=["retention"], summary="One hold, and how much it holds back")
async def get_hold(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, hold_id: HoldId) -> HoldReport:
    """Counting is a search like any other: it is on record."""
    require(caller, "read")
    hold = await _found(deps, caller, hold_id)
    await deps.auditor.record(
        caller, "hold.report", tenants=hold.tenants.values(), target=("hold", hold.id), request_id=request_id_of(request)
    )
    events = {name: await deps.searches.run(partial(_count, deps, name, hold.query)) for name in hold.tenants.values()}
    return HoldReport(**msgspec.structs.asdict(_view(hold)), events=events)


@post(
    "/v1/holds/{hold_id:str}/review", operation_id="reviewHold", tags=["retention"], summary="It is still needed", status_code=200
)
async def review_hold(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, hold_id: HoldId, data: JSONBody[ReviewRequest]
) -> HoldView:
    """Says why, and when to look again."""
    return await review(deps, caller, hold_id, data, request_id_of(request))


async def review(deps: ApiDeps, caller: Caller, hold_id: str, data: ReviewRequest, request_id: str) -> HoldView:
    """A review of a hold that stands. Raises Problem, NotFoundError."""
    require(caller, "operate")
    _check_day(data.review)
    await _found(deps, caller, hold_id)
    made = Review(caller.owner, _now(), data.note, data.review)

    def change(hold: Hold) -> None:
        hold.review = made.review
        hold.reviews = [*hold.reviews, made]

    hold = await deps.reads.run(lambda: _change_one(deps, hold_id, change))
    await _put_on_record(deps, caller, hold, "review", request_id, {"note": data.note})
    return _view(hold)


@post("/v1/holds/{hold_id:str}/lift", operation_id="liftHold", tags=["retention"], summary="Let go of it", status_code=200)
async def lift_hold(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, hold_id: HoldId, data: JSONBody[LiftRequest]
) -> HoldView:
    """What is past its period expires with the next look. 409 when it was lifted before. Needs the permission `approve`."""
    return await lift(deps, caller, hold_id, data, request_id_of(request))


async def lift(deps: ApiDeps, caller: Caller, hold_id: str, data: LiftRequest, request_id: str) -> HoldView:
    """Let go of a hold, on record before it is done. Raises Problem, NotFoundError."""
    require(caller, "approve")
    hold = await _found(deps, caller, hold_id)
    if not hold.is_active:
        raise Problem(409, "already_lifted", "this hold was lifted already")
    await _put_on_record(deps, caller, hold, "lift", request_id, {"reason": data.reason})

    def change(found: Hold) -> None:
        found.lifted_by, found.lifted_at, found.lift_reason = caller.owner, _now(), data.reason

    return _view(await deps.reads.run(lambda: _change_one(deps, hold_id, change)))


def visible_holds(deps: ApiDeps, caller: Caller) -> list[Hold]:
    """Holds of which the caller sees every tenant. Blocking."""
    return [hold for hold in Holds(deps.data_dir).load() if all(map(caller.sees, hold.tenants.values()))]


def overdue_reasons(deps: ApiDeps, caller: Caller) -> list[str]:
    """What status says of holds that nobody looked at in time. Blocking."""
    overdue = (hold for hold in map(_view, visible_holds(deps, caller)) if hold.is_overdue)
    return [f"hold {hold.id}: its review was due on {hold.review}" for hold in overdue]


async def _put_on_record(deps: ApiDeps, caller: Caller, hold: Hold, what: str, request_id: str, details: dict[str, str]) -> None:
    """An event, and an entry of the account tree, for each tenant. Entries hold no query and no reason: they lie in clear."""
    at = _now()
    tenants = list(hold.tenants.values())
    await deps.auditor.record(
        caller,
        f"hold.{what}",
        tenants=tenants,
        target=("hold", hold.id),
        reason=hold.reason,
        request_id=request_id,
        details=details,
    )
    for tenant in tenants:
        entry = {"type": "hold", "hold": hold.id, "done": what, "at": at, "by": caller.key_id, "review": hold.review}
        await deps.door.append_entry(tenant, f"hold:{hold.id}:{what}:{at}", entry)


def _change(deps: ApiDeps, change: Callable[[list[Hold]], None]) -> None:
    register = Holds(deps.data_dir)
    with register.lock():
        holds = register.load()
        change(holds)
        register.save(holds)


def _change_one(deps: ApiDeps, hold_id: str, change: Callable[[Hold], None]) -> Hold:
    """Raises NotFoundError, and the 409 problem when it was lifted meanwhile."""
    register = Holds(deps.data_dir)
    with register.lock():
        holds = register.load()
        hold = next((one for one in holds if one.id == hold_id), None)
        if hold is None:
            raise no_such("hold")
        if not hold.is_active:
            raise Problem(409, "already_lifted", "this hold was lifted already")
        change(hold)
        register.save(holds)
    return hold


async def _found(deps: ApiDeps, caller: Caller, hold_id: str) -> Hold:
    holds = await deps.reads.run(lambda: visible_holds(deps, caller))
    found = next((hold for hold in holds if hold.id == hold_id), None)
    if found is None:
        raise no_such("hold")
    return found


def _count(deps: ApiDeps, tenant: str, query: str) -> int | None:
    asked = SearchRequest(tenants=(tenant,), query=query)
    found = deps.engine.count(asked)
    return None if found.partial else found.total


def _check_day(text: str) -> None:
    try:
        datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise Problem(
            422, "day_invalid", f"review: {text} is no day", errors=[{"pointer": "/review", "message": "no day"}]
        ) from error


def _view(hold: Hold) -> HoldView:
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    return HoldView(
        id=hold.id,
        tenants=sorted(hold.tenants.values()),
        query=hold.query,
        reason=hold.reason,
        owner=hold.owner,
        review=hold.review,
        is_active=hold.is_active,
        is_overdue=hold.is_active and hold.review < today,
        placed_by=hold.placed_by,
        placed_at=hold.placed_at,
        reviews=[ReviewView(by=one.by, at=one.at, note=one.note, review=one.review) for one in hold.reviews],
        lifted_by=hold.lifted_by,
        lifted_at=hold.lifted_at or None,
        lift_reason=hold.lift_reason,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


HANDLERS = [list_holds, place_hold, get_hold, review_hold, lift_hold]
