"""The retention page: what is kept how long, what expires when, the certificates of what went, and legal holds with their forms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import BaseRouteHandler
from litestar.params import PathParameter

from tallystick.api.caller import Caller, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.holds import HoldRequest, LiftRequest, ReviewRequest, hold_views, lift, place, review
from tallystick.api.params import request_id_of
from tallystick.api.retention import release_brake, retention_view
from tallystick.api.search import visible_tenants
from tallystick.console.amounts import bytes_text
from tallystick.console.entrance import checked_form
from tallystick.console.pages import render
from tallystick.evidence.account import AccountLog
from tallystick.evidence.origin import account_origin, tree_dir
from tallystick.http.problem import Problem

T = TypeVar("T", bound=msgspec.Struct)
_LOOKED_AT = 500
_CERTIFICATES_SHOWN = 50
HoldId = Annotated[str, PathParameter(description="A hold.", max_length=64)]
HoldVerb = Annotated[Literal["review", "lift"], PathParameter(description="What to do.")]


@dataclass(frozen=True, slots=True)
class CertificateView:
    """An `expiry` entry of a tenant's account tree. ``what`` says how much went, or that a month's key did."""

    tenant: str
    number: int
    at: str
    retention_class: str
    what: str


@get("/retention", include_in_schema=False)
async def show_retention(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep) -> Response[bytes]:
    """For the tenants that the caller sees. Reading the certificates is on record, as reading entries of a log is."""
    require(caller, "read", "operate")
    names = visible_tenants(deps, caller, None)
    plan = await deps.reads.run(lambda: retention_view(deps, caller, names))
    certificates = await _certificates(deps, caller, names, request_id_of(request))
    return render(
        "retention.html",
        page="Retention",
        caller=caller,
        server_name=deps.server_name,
        reasons=[],
        view=plan,
        bytes_text=bytes_text,
        holds=await hold_views(deps, caller),
        certificates=certificates,
        tenants=names,
        may_operate=caller.may("operate"),
        may_approve=caller.may("approve"),
    )


@post("/holds", include_in_schema=False, opt={"is_form": True}, status_code=303)
async def place_hold(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep) -> Response[bytes]:
    """The form of a new hold."""
    form = await checked_form(request, is_tls=deps.config.server.tls is not None)
    fields = {"tenants": [form.get("tenant", "")], **_texts(form, "query", "reason", "owner", "review")}
    await place(deps, caller, _checked(fields, HoldRequest), request_id_of(request))
    return _back()


@post("/holds/{hold_id:str}/{verb:str}", include_in_schema=False, opt={"is_form": True}, status_code=303)
async def act_on_hold(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, hold_id: HoldId, verb: HoldVerb
) -> Response[bytes]:
    """A button of a hold."""
    form = await checked_form(request, is_tls=deps.config.server.tls is not None)
    if verb == "review":
        await review(deps, caller, hold_id, _checked(_texts(form, "note", "review"), ReviewRequest), request_id_of(request))
    else:
        await lift(deps, caller, hold_id, _checked(_texts(form, "reason"), LiftRequest), request_id_of(request))
    return _back()


@post("/retention/resume", include_in_schema=False, opt={"is_form": True}, status_code=303)
async def resume(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep) -> Response[bytes]:
    """Releases the brake."""
    await checked_form(request, is_tls=deps.config.server.tls is not None)
    await release_brake(deps, caller, request_id_of(request))
    return _back()


def _texts(form: dict[str, str], *names: str) -> dict[str, Any]:
    return {name: form.get(name, "").strip() for name in names}


def _checked(fields: dict[str, Any], kind: type[T]) -> T:
    """The body that the API would take. Raises the 400 problem with the place of what is wrong."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise Problem(400, "form_invalid", str(error)) from None


def _back() -> Response[bytes]:
    return Response(b"", status_code=303, headers={"location": "/retention"}, media_type="text/plain")


async def _certificates(deps: ApiDeps, caller: Caller, tenants: tuple[str, ...], request_id: str) -> list[CertificateView]:
    """The latest ones, newest first, among the last entries of each account."""
    found: list[CertificateView] = []
    for name in tenants:
        tenant = deps.tenants.get(name)
        head = deps.heads.head(account_origin(deps.server_name, tenant.handle)) if tenant is not None else None
        if tenant is None or head is None or not head.size:
            continue
        first, handle, size = max(0, head.size - _LOOKED_AT), tenant.handle, head.size
        await deps.log_reads.note(caller, account_origin(deps.server_name, handle), name, first, request_id)
        entries = await deps.reads.run(partial(_entries, deps, handle, first, size))
        found += [_certificate(name, first + place, entry) for place, entry in enumerate(entries) if entry.get("type") == "expiry"]
    return sorted(found, key=lambda one: one.at, reverse=True)[:_CERTIFICATES_SHOWN]


def _entries(deps: ApiDeps, handle: str, first: int, size: int) -> list[dict[str, Any]]:
    log = AccountLog(tree_dir(deps.data_dir, f"{handle}/account"), size)
    try:
        return [msgspec.json.decode(entry) for entry in log.entries(first, size - first)]
    finally:
        log.close()


def _certificate(tenant: str, number: int, entry: dict[str, Any]) -> CertificateView:
    """In words."""
    if "count" in entry:
        what = f"{entry['count']:,} events, kept for {entry.get('period', '')}"
    else:
        what = f"the key of {entry.get('month', 'a month')} was destroyed"
    return CertificateView(tenant, number, str(entry.get("at", "")), str(entry.get("class", "")), what)


HANDLERS: list[BaseRouteHandler] = [show_retention, place_hold, act_on_hold, resume]
