"""Destinations and dead letters: what the dispatcher is asked to do, and what was refused for good.

The dispatcher owns its state; this file asks it over its socket and puts the answer into words. Every change is on record
before it is asked for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from tallystick.api.caller import Caller, no_such, require, require_server_wide, require_sight
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import PageLimit, TenantParam, bad_parameter, request_id_of
from tallystick.api.status import destination_rows
from tallystick.delivery.dead_letters import FiledLetter
from tallystick.errors import NotFoundError
from tallystick.http.problem import Problem

Name = Annotated[str, PathParameter(description="A destination's name in the configuration.", max_length=128)]
LetterId = Annotated[str, PathParameter(description="A dead letter's id.", max_length=256)]
AfterLetter = Annotated[str | None, QueryParameter(name="after", description="Continue after this id.", max_length=256)]
Verb = Literal["pause", "resume", "probe"]


class ReplayRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of a replay: a range of one tenant's events, both ends included."""

    tenant: str
    first_index: Annotated[int, Meta(ge=0, le=2**53)]
    last_index: Annotated[int, Meta(ge=0, le=2**53)]


class ReconcileRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of one step of a comparison. ``after`` is ``next`` of the step before."""

    tenant: Annotated[str, Meta(max_length=63)] | None = None
    after: Annotated[str, Meta(max_length=2_048)] | None = None
    repair: bool = False


class DiscardRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Why a dead letter is given up; goes on record."""

    reason: Annotated[str, Meta(min_length=3, max_length=2_048)]


class LetterView(msgspec.Struct, kw_only=True):
    """A dead letter without its event. ``at`` and ``settled_at`` are Unix seconds."""

    id: str
    destination: str
    tenant: str
    index: int
    event_id: str
    reason: str
    attempts: int
    at: float
    state: str
    settled_at: float | None
    discard_reason: str


class LetterList(msgspec.Struct, kw_only=True):
    dead_letters: list[LetterView]
    next: str | None


class LetterDetail(LetterView, kw_only=True):
    """With the destination's last reply, and the event while it can still be read."""

    reply: str
    event: msgspec.Raw | None


class Done(msgspec.Struct, kw_only=True):
    """What the dispatcher says it did."""

    name: str
    done: str
    result: Any = None


@get("/v1/destinations", operation_id="listDestinations", tags=["delivery"], summary="Destinations with state and account")
async def list_destinations(caller: CallerDep, deps: DepsDep) -> dict[str, Any]:
    """One row per destination. A key bound to tenants sees the accounts of those alone."""
    require(caller, "read", "operate")
    return {"destinations": [{"name": name, **row} for name, row in (await destination_rows(deps, caller)).items()]}


@post(
    "/v1/destinations/{name:str}/pause",
    operation_id="pauseDestination",
    tags=["delivery"],
    summary="Stop sending; nothing is lost",
    status_code=200,
)
async def pause(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, name: Name) -> Done:
    """Survives restarts; after resume the destination catches up."""
    return await steer(deps, caller, name, "pause", request_id_of(request))


@post(
    "/v1/destinations/{name:str}/resume",
    operation_id="resumeDestination",
    tags=["delivery"],
    summary="Go on sending",
    status_code=200,
)
async def resume(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, name: Name) -> Done:
    """Ends a pause, and a park at once."""
    return await steer(deps, caller, name, "resume", request_id_of(request))


@post(
    "/v1/destinations/{name:str}/probe",
    operation_id="probeDestination",
    tags=["delivery"],
    summary="Ask whether it would accept",
    status_code=200,
)
async def probe(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, name: Name) -> Done:
    """Talks to the other side without leaving an event there."""
    return await steer(deps, caller, name, "probe", request_id_of(request))


@post(
    "/v1/destinations/{name:str}/replay",
    operation_id="replayDestination",
    tags=["delivery"],
    summary="Send a range of events again",
    status_code=200,
)
async def replay(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, name: Name, data: JSONBody[ReplayRequest]
) -> Done:
    """The next statement says so; where the destination is exactly-once nothing comes twice."""
    return await replay_range(deps, caller, name, data, request_id_of(request))


@post(
    "/v1/destinations/{name:str}/reconcile",
    operation_id="reconcileDestination",
    tags=["delivery"],
    summary="Read a destination back and compare it with the log, step by step",
    status_code=200,
)
async def reconcile(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, name: Name, data: JSONBody[ReconcileRequest]
) -> Done:
    """Names what is missing, changed or foreign there. ``repair`` sends what is missing again, the same bytes under the same name."""
    return await reconcile_step(deps, caller, name, data, request_id_of(request))


async def reconcile_step(deps: ApiDeps, caller: Caller, name: str, data: ReconcileRequest, request_id: str) -> Done:
    """One step of a walk, the first on record. Raises Problem, NotFoundError."""
    require(caller, "operate")
    if data.tenant is None:
        require_server_wide(caller, "operate")
    else:
        require_sight(caller, data.tenant)
        if deps.tenants.get(data.tenant) is None:
            raise no_such("tenant")
    _require_destination(deps, name)
    walk = [name, data.tenant, data.repair]
    if data.after is None:  # one record for a walk, not one for each of its steps
        await deps.auditor.record(
            caller,
            "destination.reconcile",
            tenants=[data.tenant] if data.tenant else [],
            target=("destination", name),
            request_id=request_id,
            details={"repair": data.repair},
        )
    after = None if data.after is None else _open_step(deps, data.after, walk)
    call = {"destination": name, "tenant": data.tenant, "after": after, "repair": data.repair}
    page = await deps.reads.run(lambda: deps.control("reconcile", **call))
    if page["next"] is not None:
        page["next"] = deps.walks.close(msgspec.json.encode([*walk, page["next"]]))
    return Done(name=name, done="reconcile", result=page)


def _open_step(deps: ApiDeps, text: str, walk: list[Any]) -> str:
    """Where a walk stands. Signed, so that none begins without its record, or goes on over what its caller may not see."""
    body = deps.walks.open(text)
    *begun, after = msgspec.json.decode(body) if body is not None else [None]
    if begun != walk:
        raise Problem(
            422,
            "walk_invalid",
            "`after` is not from this walk; begin again without it",
            errors=[{"pointer": "/after", "message": "not from this walk"}],
        )
    return str(after)


async def steer(deps: ApiDeps, caller: Caller, name: str, verb: Verb, request_id: str) -> Done:
    """Pause, resume or probe, on record. Raises Problem, NotFoundError."""
    require_server_wide(caller, "operate")
    _require_destination(deps, name)
    await deps.auditor.record(caller, f"destination.{verb}", target=("destination", name), request_id=request_id)
    return Done(name=name, done=verb, result=await deps.reads.run(lambda: deps.control(verb, destination=name)))


async def replay_range(deps: ApiDeps, caller: Caller, name: str, data: ReplayRequest, request_id: str) -> Done:
    """Send a range again, on record. Raises Problem, NotFoundError."""
    require(caller, "operate")
    require_sight(caller, data.tenant)
    _require_destination(deps, name)
    tenant = deps.tenants.get(data.tenant)
    if tenant is None:
        raise no_such("tenant")
    deps.heads.refresh()
    sealed = deps.heads.sealed_size(tenant.handle)
    if data.first_index > data.last_index or data.last_index >= sealed:
        raise Problem(422, "range_invalid", f"{data.tenant} has sealed events 0 to {sealed - 1}; name a range within")
    span = {"first_index": data.first_index, "last_index": data.last_index}
    await deps.auditor.record(
        caller, "replay", tenants=[data.tenant], target=("destination", name), request_id=request_id, details=span
    )
    result = await deps.reads.run(lambda: deps.control("replay", destination=name, tenant=data.tenant, **span))
    return Done(name=name, done="replay", result=result)


@get("/v1/dead-letters", operation_id="listDeadLetters", tags=["delivery"], summary="Events that a destination refused for good")
async def list_dead_letters(
    caller: CallerDep,
    deps: DepsDep,
    tenant: TenantParam = None,
    destination: Annotated[
        str | None, QueryParameter(name="destination", description="Only this destination.", max_length=128)
    ] = None,
    letter_state: Annotated[
        Literal["open", "replayed", "discarded"] | None, QueryParameter(name="state", description="Only letters in this state.")
    ] = None,
    after: AfterLetter = None,
    limit: PageLimit = 100,
) -> LetterList:
    """In the order they were filed, destination by destination; ``next`` goes into ``after``."""
    require(caller, "read", "operate")
    if tenant is not None:
        require_sight(caller, tenant)
    if destination is not None and destination not in deps.config.destinations:
        raise no_such("destination")
    return await deps.reads.run(lambda: list_letters(deps, caller, tenant, destination, letter_state, after, limit))


def list_letters(
    deps: DepsDep, caller: CallerDep, tenant: str | None, destination: str | None, state: Any, after: str | None, limit: int
) -> LetterList:
    """One page of letters. Blocking. Raises the 400 problem for an unknown ``after``."""
    names = [name for name in deps.dead_letters.destinations() if destination in (None, name)]
    is_past = after is None
    rows: list[LetterView] = []
    for name in names:
        for filed in deps.dead_letters.read(name, status=None, tenant=tenant):
            if not is_past:
                is_past = filed.id == after
                continue
            if caller.sees(filed.letter.tenant) and state in (None, filed.status):
                if len(rows) == limit:
                    return LetterList(dead_letters=rows, next=rows[-1].id)
                rows.append(LetterView(**_letter(filed)))
    if not is_past:
        raise bad_parameter("after", "no such dead letter")
    return LetterList(dead_letters=rows, next=None)


@get("/v1/dead-letters/{letter_id:str}", operation_id="getDeadLetter", tags=["delivery"], summary="One dead letter with its event")
async def get_dead_letter(caller: CallerDep, deps: DepsDep, letter_id: LetterId) -> LetterDetail:
    """The event is read from journal or archive; null when it has expired or was erased."""
    require(caller, "read")
    filed = await _filed(deps, caller, letter_id)
    lines = await deps.reads.run(lambda: deps.engine.lines(filed.letter.tenant, filed.letter.index, 1))
    event = msgspec.Raw(lines[0][1]) if lines else None
    return LetterDetail(**_letter(filed), reply=filed.letter.reply, event=event)


@post(
    "/v1/dead-letters/{letter_id:str}/replay",
    operation_id="replayDeadLetter",
    tags=["delivery"],
    summary="Send it again",
    status_code=200,
)
async def replay_dead_letter(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, letter_id: LetterId) -> Done:
    """Doing it twice sends it once."""
    return await settle_letter(deps, caller, letter_id, "", request_id_of(request))


@post(
    "/v1/dead-letters/{letter_id:str}/discard",
    operation_id="discardDeadLetter",
    tags=["delivery"],
    summary="Give it up, with a reason",
    status_code=200,
)
async def discard_dead_letter(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, letter_id: LetterId, data: JSONBody[DiscardRequest]
) -> Done:
    """The account keeps counting the event as dead-lettered, with your reason beside it."""
    return await settle_letter(deps, caller, letter_id, data.reason, request_id_of(request))


async def settle_letter(deps: DepsDep, caller: CallerDep, letter_id: str, discard_reason: str, request_id: str) -> Done:
    """Replay a letter, or with a reason discard it; on record before it is done."""
    require(caller, "operate")
    filed = await _filed(deps, caller, letter_id)
    verb = "discard" if discard_reason else "replay"
    if filed.status != "open":
        raise Problem(409, "already_settled", f"this dead letter is {filed.status} already")
    await deps.auditor.record(
        caller,
        f"dead_letter.{verb}",
        tenants=[filed.letter.tenant],
        target=("dead_letter", letter_id),
        reason=discard_reason,
        request_id=request_id,
        details={"event_id": filed.letter.event_id},
    )
    if discard_reason:
        call = {"letters": [letter_id], "reason": discard_reason, "by": caller.owner}
        result = await deps.reads.run(lambda: deps.control("discard", **call))
    else:
        result = await deps.reads.run(lambda: deps.control("replay", letters=[letter_id]))
    return Done(name=letter_id, done=verb, result=result)


async def _filed(deps: ApiDeps, caller: Caller, letter_id: str) -> FiledLetter:
    try:
        filed: FiledLetter = await deps.reads.run(lambda: deps.dead_letters.get(letter_id))
    except NotFoundError:
        raise no_such("dead letter") from None
    if not caller.sees(filed.letter.tenant):
        raise no_such("dead letter")
    return filed


def _letter(filed: FiledLetter) -> dict[str, Any]:
    letter = filed.letter
    return {
        "id": filed.id,
        "destination": letter.destination,
        "tenant": letter.tenant,
        "index": letter.index,
        "event_id": letter.event_id,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "at": letter.at,
        "state": filed.status,
        "settled_at": filed.settled_at,
        "discard_reason": filed.discard_reason,
    }


def _require_destination(deps: ApiDeps, name: str) -> None:
    if name not in deps.config.destinations:
        raise no_such("destination")


HANDLERS = [
    list_destinations,
    pause,
    resume,
    probe,
    replay,
    reconcile,
    list_dead_letters,
    get_dead_letter,
    replay_dead_letter,
    discard_dead_letter,
]
