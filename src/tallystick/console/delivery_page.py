"""The delivery page: sources on the left, destinations with their accounts, the dead letters, and what can be done about them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from litestar import Request, Response, get, post
from litestar.handlers import BaseRouteHandler
from litestar.params import PathParameter

from tallystick.api.caller import Caller, require
from tallystick.api.delivery import ReplayRequest, list_letters, replay_range, settle_letter, steer
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import request_id_of
from tallystick.api.quarantine import count_records, visible_handles
from tallystick.api.status import build_status
from tallystick.console.delivery_view import view_destination
from tallystick.console.entrance import checked_form
from tallystick.console.pages import render
from tallystick.console.source_view import view_sources
from tallystick.http.problem import Problem

_LETTERS_SHOWN = 50
Verb = Annotated[Literal["pause", "resume", "probe", "replay"], PathParameter(description="What to do.")]
LetterVerb = Annotated[Literal["replay", "discard"], PathParameter(description="What to do.")]
Name = Annotated[str, PathParameter(description="A destination.", max_length=128)]
LetterId = Annotated[str, PathParameter(description="A dead letter.", max_length=256)]


@get("/delivery", include_in_schema=False)
async def show_delivery(caller: CallerDep, deps: DepsDep) -> Response[bytes]:
    """As a key bound to tenants sees it, the accounts are those of its tenants."""
    require(caller, "read", "operate")
    return await _page(deps, caller)


@post("/delivery/{name:str}/{verb:str}", include_in_schema=False, opt={"is_form": True}, status_code=303)
async def act(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, name: Name, verb: Verb) -> Response[bytes]:
    """A button of a row."""
    form = await checked_form(request, is_tls=deps.config.server.tls is not None)
    request_id = request_id_of(request)
    if verb == "replay":
        done = await replay_range(deps, caller, name, _range_of(form), request_id)
    else:
        done = await steer(deps, caller, name, verb, request_id)
    if verb == "probe":
        result = done.result if isinstance(done.result, dict) else {}
        said = f"{result.get('answer', '')}: {result.get('reason', '')}".strip(": ")
        return await _page(deps, caller, f"{name} was asked and says {said or 'nothing'}.")
    return Response(b"", status_code=303, headers={"location": "/delivery"}, media_type="text/plain")


@post("/dead-letters/{letter_id:str}/{verb:str}", include_in_schema=False, opt={"is_form": True}, status_code=303)
async def act_on_letter(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, letter_id: LetterId, verb: LetterVerb
) -> Response[bytes]:
    """A button of a dead letter."""
    form = await checked_form(request, is_tls=deps.config.server.tls is not None)
    reason = form.get("reason", "").strip()[:2_048] if verb == "discard" else ""
    if verb == "discard" and len(reason) < 3:
        raise Problem(400, "reason_missing", "say why it is given up; the reason goes on record")
    await settle_letter(deps, caller, letter_id, reason, request_id_of(request))
    return Response(b"", status_code=303, headers={"location": "/delivery"}, media_type="text/plain")


def _range_of(form: dict[str, str]) -> ReplayRequest:
    numbers = [form.get(name, "") for name in ("first_index", "last_index")]
    if not all(number.isascii() and number.isdigit() and len(number) < 16 for number in numbers):
        raise Problem(400, "range_invalid", "name the first and the last index, as numbers")
    return ReplayRequest(tenant=form.get("tenant", ""), first_index=int(numbers[0]), last_index=int(numbers[1]))


async def _page(deps: ApiDeps, caller: Caller, message: str = "") -> Response[bytes]:
    status = await build_status(deps, caller)
    rows = [view_destination(name, row) for name, row in status["destinations"].items()]
    letters = await deps.reads.run(lambda: list_letters(deps, caller, None, None, "open", None, _LETTERS_SHOWN))
    handles = visible_handles(deps, caller, None)
    counts = await deps.reads.run(lambda: count_records(deps, handles))
    return render(
        "delivery.html",
        page="Delivery",
        caller=caller,
        server_name=deps.server_name,
        reasons=[],
        message=message,
        rows=rows,
        sources=view_sources(status["sources"], counts, status["completeness"]["recent"]),
        letters=letters.dead_letters,
        has_more=letters.next is not None,
        may_operate=caller.may("operate"),
        may_steer=caller.may("operate") and caller.is_server_wide,
        may_take_statements=caller.may("read") or caller.may("verify"),
        tenants=[item.name for item in deps.tenants.all() if caller.sees(item.name)],
    )


HANDLERS: list[BaseRouteHandler] = [show_delivery, act, act_on_letter]
