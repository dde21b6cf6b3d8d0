"""``/v1/erasures``: asking for the erasure of a person, agreeing to it, calling it off.

Two approvals by two owners of keys are needed; the one who asked may be one of them. Then the cool-off runs, in which it can be cancelled. Each
step is an event (`tallystick.erasure.*`) in the tenant's log, without the person's name: that log outlives the erasure.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import JSONBody, PathParameter
from msgspec import Meta

from tallystick.api.caller import Caller, no_such, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import request_id_of
from tallystick.api.search import visible_tenants
from tallystick.archive.erasure import APPROVALS, Approval, Basis, Erasure
from tallystick.event.model import TenantName
from tallystick.event.times import format_utc
from tallystick.http.problem import Problem
from tallystick.privacy.seal import to_text

ErasureId = Annotated[str, PathParameter(description="The request's id.", max_length=64)]


class ErasureRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of POST /v1/erasures. ``subject``: the person, as the member says that `[privacy.TENANT] subject` names."""

    tenant: TenantName
    subject: Annotated[str, Meta(max_length=4_096)]
    basis: Basis


class ApprovalView(msgspec.Struct, kw_only=True):
    owner: str
    at: str


class ErasureView(msgspec.Struct, kw_only=True):
    """A request. ``subject`` is empty once the key is gone. ``due_at`` null: an approval is missing. ``events``: how many are affected, null
    before it was carried out. ``waiting_for``: what keeps it from being carried out."""

    id: str
    tenant: str
    subject: str
    key: str
    basis: str
    state: str
    requested_by: str
    requested_at: str
    approvals: list[ApprovalView]
    due_at: str | None
    waiting_for: str
    events: int | None
    erased_at: str | None
    final_at: str | None


class ErasureList(msgspec.Struct, kw_only=True):
    erasures: list[ErasureView]


@get("/v1/erasures", operation_id="listErasures", tags=["erasure"], summary="Requests for erasure")
async def list_erasures(caller: CallerDep, deps: DepsDep) -> ErasureList:
    """The oldest first; those of tenants that the key sees."""
    require(caller, "operate", "approve")
    return ErasureList(erasures=[_view(one) for one in await deps.reads.run(deps.erasures.load) if caller.sees(one.tenant)])


@post("/v1/erasures", operation_id="requestErasure", tags=["erasure"], summary="Ask for a person's erasure", status_code=201)
async def request_erasure(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, data: JSONBody[ErasureRequest]
) -> ErasureView:
    """404 when there is no key of that person. Nothing is erased before two owners approved and the cool-off is over."""
    require(caller, "operate")
    visible_tenants(deps, caller, data.tenant)
    tenant = deps.tenants.get(data.tenant)
    subject = await deps.reads.run(lambda: deps.opener.subjects.find(tenant.handle, data.subject)) if tenant else None
    if tenant is None or subject is None:
        raise no_such("person with a key")
    skid = to_text(subject.skid)
    one = Erasure(f"x{secrets.token_hex(6)}", tenant.name, tenant.handle, data.subject, skid, data.basis, caller.owner, _now())

    def add(erasures: list[Erasure]) -> None:
        if any(other.skid == skid and not other.cancelled_by for other in erasures):
            raise Problem(409, "already_requested", "the erasure of this person was asked for already")
        erasures.append(one)

    await _put_on_record(deps, caller, one, "request", request, {"basis": one.basis})
    await deps.reads.run(lambda: deps.erasures.change(add))
    return _view(one)


@get("/v1/erasures/{erasure_id:str}", operation_id="getErasure", tags=["erasure"], summary="One request")
async def get_erasure(caller: CallerDep, deps: DepsDep, erasure_id: ErasureId) -> ErasureView:
    """As it stands."""
    require(caller, "operate", "approve")
    return _view(await _found(deps, caller, erasure_id))


@post(
    "/v1/erasures/{erasure_id:str}/approve", operation_id="approveErasure", tags=["erasure"], summary="Agree to it", status_code=200
)
async def approve_erasure(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, erasure_id: ErasureId) -> ErasureView:
    """With the second owner's approval the cool-off begins. 409 when this owner approved before, or it is decided."""
    require(caller, "approve")
    approval = Approval(caller.owner, caller.key_id, _now())

    def change(one: Erasure) -> None:
        if one.state != "requested":
            raise Problem(409, "already_decided", f"this request is {one.state}")
        if any(other.owner == caller.owner for other in one.approvals):
            raise Problem(409, "already_approved", "this owner approved it before; another one is needed")
        one.approvals = [*one.approvals, approval]
        if len(one.approvals) >= APPROVALS:
            one.due_at = time.time() + deps.config.erasure.cool_off.seconds

    return await _change(deps, caller, erasure_id, "approve", request, change)


@post(
    "/v1/erasures/{erasure_id:str}/cancel", operation_id="cancelErasure", tags=["erasure"], summary="Call it off", status_code=200
)
async def cancel_erasure(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, erasure_id: ErasureId) -> ErasureView:
    """409 when it is being carried out, was, or was cancelled before."""
    require(caller, "operate", "approve")

    def change(one: Erasure) -> None:
        if one.state not in ("requested", "approved"):
            raise Problem(409, "already_decided", f"this request is {one.state}")
        one.cancelled_by, one.subject = caller.owner, ""

    return await _change(deps, caller, erasure_id, "cancel", request, change)


async def _change(
    deps: ApiDeps,
    caller: Caller,
    erasure_id: str,
    what: str,
    request: Request[Any, Any, Any],
    change: Callable[[Erasure], None],
) -> ErasureView:
    """On record first, then in the register: cut short between, a step is on record that does not count."""
    one = await _found(deps, caller, erasure_id)
    change(one)  # says now what would be refused; the register is asked again below
    await _put_on_record(deps, caller, one, what, request, {})
    made: list[Erasure] = []

    def apply(erasures: list[Erasure]) -> None:
        for other in erasures:
            if other.id == erasure_id:
                change(other)
                made.append(other)

    await deps.reads.run(lambda: deps.erasures.change(apply))
    return _view(made[0])


async def _found(deps: ApiDeps, caller: Caller, erasure_id: str) -> Erasure:
    for one in await deps.reads.run(deps.erasures.load):
        if one.id == erasure_id and caller.sees(one.tenant):
            return one
    raise no_such("erasure")


async def _put_on_record(
    deps: ApiDeps, caller: Caller, one: Erasure, what: str, request: Request[Any, Any, Any], details: dict[str, Any]
) -> None:
    await deps.auditor.record(
        caller,
        f"erasure.{what}",
        tenants=[one.tenant],
        target=("erasure", one.id),
        request_id=request_id_of(request),
        details={"key": one.skid, **details},
    )


def _view(one: Erasure) -> ErasureView:
    return ErasureView(
        id=one.id,
        tenant=one.tenant,
        subject=one.subject,
        key=one.skid,
        basis=one.basis,
        state=one.state,
        requested_by=one.requested_by,
        requested_at=one.requested_at,
        approvals=[ApprovalView(owner=approval.owner, at=approval.at) for approval in one.approvals],
        due_at=format_utc(datetime.fromtimestamp(one.due_at, UTC)) if one.due_at else None,
        waiting_for=one.waiting_for,
        events=one.entry["count"] if one.entry else None,
        erased_at=one.erased_at or None,
        final_at=one.final_at or None,
    )


def _now() -> str:
    return format_utc(datetime.now(UTC))


HANDLERS = [list_erasures, request_erasure, get_erasure, approve_erasure, cancel_erasure]
