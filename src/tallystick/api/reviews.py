"""``/v1/reviews``: who looked through which events, who stands for it, and what is due (`archive.review` has the rules).

A step is on record before it counts: the event that P12 asks for, then the entry of the account tree, then the register. A crash between
them leaves a step on record that somebody wanted to take; taken again, it is there twice, and the register says which one counts.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from litestar.params import JSONBody, PathParameter
from msgspec import Meta

from tallystick.api.caller import Caller, no_such, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import read_range, request_id_of
from tallystick.api.search import visible_tenants
from tallystick.archive.review import Due, Review, Signed, Started, find_due
from tallystick.http.problem import Problem
from tallystick.query.evaluate import compile_query
from tallystick.query.request import SearchRequest

ReviewId = Annotated[str, PathParameter(description="The review's id.", max_length=64)]
_FIRST_PERIOD = timedelta(days=30)


class StartRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of POST /v1/reviews: either `schedule`, a name of the configuration, or `tenant` and `query`.

    ``from`` and ``to``: RFC 3339, or back from now as in `-30d`. Without ``from`` the period begins where the last signed review of the same
    subject ended; a first one looks at all that its tenant has when the configuration names it, else 30 days back. Without ``to`` it ends now.
    """

    schedule: Annotated[str, Meta(max_length=63)] = ""
    tenant: Annotated[str, Meta(max_length=63)] = ""
    query: Annotated[str, Meta(max_length=8_192)] = ""
    start: Annotated[str, Meta(max_length=64)] | None = msgspec.field(name="from", default=None)
    end: Annotated[str, Meta(max_length=64)] | None = msgspec.field(name="to", default=None)


class SignRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of a sign-off. ``next``: the day to look again, for a review that the configuration does not name."""

    outcome: Literal["clean", "findings"]
    note: Annotated[str, Meta(min_length=3, max_length=2_048)]
    next: Annotated[str, Meta(pattern=r"\A([0-9]{4}-[0-9]{2}-[0-9]{2})?\Z", description="A day, as in 2027-01-31.")] = ""


class ReviewView(msgspec.Struct, kw_only=True):
    """A review. ``events``: how many matched at its start, null when that could not be counted in time; ``sealed``: how far the tenant's
    tree was sealed then. ``signed_at`` null: nobody stands for it yet."""

    id: str
    schedule: str
    tenant: str
    query: str
    start: str = msgspec.field(name="from")
    end: str = msgspec.field(name="to")
    events: int | None
    sealed: int
    started_by: str
    started_at: str
    outcome: str
    note: str
    next: str
    signed_by: str
    signed_at: str | None


class DueView(msgspec.Struct, kw_only=True):
    """A subject that has to be looked at again. ``due_at`` null: its tenant has no events yet."""

    schedule: str
    tenant: str
    query: str
    every_seconds: float | None
    owner: str
    last_review: str | None
    last_signed_at: str | None
    due_at: str | None
    is_overdue: bool


class ReviewList(msgspec.Struct, kw_only=True):
    """``due``: what has to be looked at again; ``reviews``: all of them, the oldest first."""

    due: list[DueView]
    reviews: list[ReviewView]


@get("/v1/reviews", operation_id="listReviews", tags=["reviews"], summary="Reviews, and what is due")
async def list_reviews(caller: CallerDep, deps: DepsDep) -> ReviewList:
    """Those of tenants that the key sees."""
    require(caller, "read", "operate")
    reviews, due = await deps.reads.run(lambda: visible_reviews(deps, caller))
    now = datetime.now(UTC)
    return ReviewList(due=[due_view(one, now) for one in due], reviews=[review_view(one) for one in reviews])


@post("/v1/reviews", operation_id="startReview", tags=["reviews"], summary="Begin a review", status_code=201)
async def start_review(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, data: JSONBody[StartRequest]
) -> ReviewView:
    """Fixes what is looked at, and counts it. Looking is done with searches, which are on record as always."""
    require(caller, "read")
    schedule, tenant, query = _subject(deps, data)
    visible_tenants(deps, caller, tenant)
    compile_query(query or "action:*")
    start, end = await _period(deps, data, (schedule, tenant, query))
    asked = SearchRequest(tenants=(tenant,), query=query, start=start, end=end, time="received_at")
    counted = await deps.searches.run(lambda: deps.engine.count(asked))
    started = Started(
        id=f"r{secrets.token_hex(6)}",
        schedule=schedule,
        tenant=tenant,
        query=query,
        start=_time(start),
        end=_time(end),
        events=None if counted.partial else counted.total,
        sealed=await deps.reads.run(lambda: _sealed(deps, tenant)),
        by=caller.owner,
        key=caller.key_id,
        at=_time(datetime.now(UTC)),
    )
    facts = {"from": started.start, "to": started.end, "events": started.events, "sealed": started.sealed}
    await _put_on_record(deps, caller, started, "start", request_id_of(request), facts, {"query": query})
    await deps.reads.run(lambda: deps.reviews.append(started))
    return review_view(Review(started, None))


@get("/v1/reviews/{review_id:str}", operation_id="getReview", tags=["reviews"], summary="One review")
async def get_review(caller: CallerDep, deps: DepsDep, review_id: ReviewId) -> ReviewView:
    """As it stands."""
    require(caller, "read", "operate")
    return review_view(await _found(deps, caller, review_id))


@post("/v1/reviews/{review_id:str}/sign", operation_id="signReview", tags=["reviews"], summary="Stand for it", status_code=200)
async def sign_review(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, review_id: ReviewId, data: JSONBody[SignRequest]
) -> ReviewView:
    """Once, and for good: 409 when it is signed. Needs the permission `approve`."""
    require(caller, "approve")
    review = await _found(deps, caller, review_id)
    if review.signed is not None:
        raise Problem(409, "already_signed", "this review was signed already")
    _check_next(data.next, review.started.schedule)
    signed = Signed(review_id, data.outcome, data.note, data.next, caller.owner, caller.key_id, _time(datetime.now(UTC)))
    facts = {"outcome": data.outcome, **({"next": data.next} if data.next else {})}
    await _put_on_record(deps, caller, review.started, "sign", request_id_of(request), facts, {"note": data.note})
    await deps.reads.run(lambda: deps.reviews.append(signed))
    return review_view(await _found(deps, caller, review_id))


def visible_reviews(deps: ApiDeps, caller: Caller) -> tuple[list[Review], list[Due]]:
    """Reviews, and what is due, of tenants that the caller sees. Blocking."""
    deps.tenants.reload()
    made = {tenant.name: tenant.created_at for tenant in deps.tenants.all()}
    reviews = [one for one in deps.reviews.load() if caller.sees(one.started.tenant)]
    return reviews, [one for one in find_due(reviews, deps.config.reviews, made) if caller.sees(one.tenant)]


def review_reasons(deps: ApiDeps, caller: Caller) -> list[str]:
    """What status says of reviews that nobody signed in time. Blocking."""
    now = datetime.now(UTC)
    _, due = visible_reviews(deps, caller)
    found = [
        f"review {one.name or one.query or 'of all events'} ({one.tenant}): due since {_time(one.at)}"
        + (f", {one.owner} answers for it" if one.owner else "")
        for one in due
        if one.is_overdue(now) and one.at is not None
    ]
    return found + ([f"reviews: {deps.reviews.damage()} places of the register are damaged"] if deps.reviews.damage() else [])


def count_overdue(deps: ApiDeps) -> None:
    """Bring the metric up to date. Blocking."""
    now = datetime.now(UTC)
    made = {tenant.name: tenant.created_at for tenant in deps.tenants.all()}
    overdue = [one for one in find_due(deps.reviews.load(), deps.config.reviews, made) if one.is_overdue(now)]
    review_metrics().set(len(overdue))


@cache
def review_metrics() -> Any:
    """The one gauge of this process, made with the first scrape, when `telemetry.use_metrics_dir` was called."""
    from prometheus_client import Gauge

    return Gauge("tallystick_reviews_overdue", "Reviews that nobody signed in time.", multiprocess_mode="mostrecent")


def review_view(review: Review) -> ReviewView:
    started, signed = review.started, review.signed
    return ReviewView(
        id=started.id,
        schedule=started.schedule,
        tenant=started.tenant,
        query=started.query,
        start=started.start,
        end=started.end,
        events=started.events,
        sealed=started.sealed,
        started_by=started.by,
        started_at=started.at,
        outcome=signed.outcome if signed else "",
        note=signed.note if signed else "",
        next=signed.due if signed else "",
        signed_by=signed.by if signed else "",
        signed_at=signed.at if signed else None,
    )


def due_view(due: Due, now: datetime) -> DueView:
    return DueView(
        schedule=due.name,
        tenant=due.tenant,
        query=due.query,
        every_seconds=due.every_s,
        owner=due.owner,
        last_review=due.last.started.id if due.last else None,
        last_signed_at=due.last.signed.at if due.last and due.last.signed else None,
        due_at=_time(due.at) if due.at else None,
        is_overdue=due.is_overdue(now),
    )


def _subject(deps: ApiDeps, data: StartRequest) -> tuple[str, str, str]:
    """(schedule, tenant, query). Raises NotFoundError for a schedule that is not in the configuration, Problem."""
    if not data.schedule:
        if not data.tenant:
            raise _unfit("tenant", "name a tenant, or a schedule of the configuration")
        return "", data.tenant, data.query
    if data.tenant or data.query:
        raise _unfit("schedule", "a schedule brings its own tenant and query")
    settings = deps.config.reviews.get(data.schedule)
    if settings is None:
        raise no_such("review in the configuration")
    return data.schedule, settings.tenant, settings.query


async def _period(deps: ApiDeps, data: StartRequest, subject: tuple[str, str, str]) -> tuple[datetime, datetime]:
    """Where the last signed one ended; of a schedule that never was signed, all that its tenant has."""
    now = datetime.now(UTC)
    start, end = read_range(data.start, data.end, now)
    end = min(end or now, now)
    if start is None:
        schedule, tenant, query = subject
        made = deps.tenants.get(tenant)
        first = datetime.fromtimestamp(made.created_at - 1, UTC) if schedule and made else None
        signed = [
            one.started.end
            for one in await deps.reads.run(deps.reviews.load)
            if one.signed is not None
            and (one.started.schedule, one.started.tenant) == (schedule, tenant)
            and (schedule or one.started.query == query)
        ]
        start = datetime.fromisoformat(max(signed)) if signed else first or end - _FIRST_PERIOD
    if start > end:
        raise _unfit("from", "the period would end before it begins")
    return start, end


async def _put_on_record(
    deps: ApiDeps, caller: Caller, started: Started, what: str, request_id: str, facts: dict[str, Any], words: dict[str, str]
) -> None:
    """An event, and an entry of the account tree. The entry holds no query and no note: entries lie in clear."""
    subject = {"schedule": started.schedule} if started.schedule else {}
    await deps.auditor.record(
        caller,
        f"review.{what}",
        tenants=[started.tenant],
        target=("review", started.id),
        request_id=request_id,
        details={**subject, **facts, **words},
    )
    entry = {"type": "review", "review": started.id, "done": what, "at": _time(datetime.now(UTC)), "by": caller.key_id}
    await deps.door.append_entry(started.tenant, f"review:{started.id}:{what}:{entry['at']}", {**entry, **subject, **facts})


async def _found(deps: ApiDeps, caller: Caller, review_id: str) -> Review:
    reviews, _ = await deps.reads.run(lambda: visible_reviews(deps, caller))
    found = next((one for one in reviews if one.started.id == review_id), None)
    if found is None:
        raise no_such("review")
    return found


def _check_next(day: str, schedule: str) -> None:
    if day and schedule:
        raise _unfit("next", "the configuration says when it is due again")
    try:
        if day:
            datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise _unfit("next", f"{day} is no day") from error


def _unfit(name: str, message: str) -> Problem:
    return Problem(422, "review_invalid", f"{name}: {message}", errors=[{"pointer": f"/{name}", "message": message}])


def _sealed(deps: ApiDeps, tenant: str) -> int:
    deps.heads.refresh()
    found = deps.tenants.get(tenant)
    return deps.heads.sealed_size(found.handle) if found else 0


def _time(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


HANDLERS = [list_reviews, start_review, get_review, sign_review]
