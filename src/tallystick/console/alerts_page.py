"""The alerts page: what rules raised, in which state it is, and acknowledging, closing and reopening it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from litestar import Request, Response, get, post
from litestar.handlers import BaseRouteHandler
from litestar.params import PathParameter, QueryParameter

from tallystick.api.alerts import DEFAULT_RANGE, AlertList, AlertView, alert_query, change, find_alerts, one_alert
from tallystick.api.caller import Caller, require
from tallystick.api.deps import CallerDep, DepsDep
from tallystick.api.params import request_id_of
from tallystick.api.search import Asked, record_search
from tallystick.console.entrance import checked_form
from tallystick.console.pages import render
from tallystick.http.problem import Problem

_SHOWN = 50
_NOTE_MAX = 2_048
_STATES: tuple[Literal["open", "acknowledged", "closed", "all"], ...] = ("open", "acknowledged", "closed", "all")

StateChoice = Annotated[Literal["open", "acknowledged", "closed", "all"], QueryParameter(name="state")]
Tenant = Annotated[str, QueryParameter(name="tenant", max_length=63)]
Rule = Annotated[str, QueryParameter(name="rule", max_length=64)]
CursorText = Annotated[str, QueryParameter(name="cursor", max_length=32_768)]
OneId = Annotated[str, QueryParameter(name="id", max_length=128)]
AlertId = Annotated[str, PathParameter(description="An alert.", max_length=128)]
Verb = Annotated[Literal["acknowledge", "close", "reopen"], PathParameter(description="What to do.")]


@get("/alerts", include_in_schema=False)
async def show_alerts(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    wanted: StateChoice = "open",
    tenant: Tenant = "",
    rule: Rule = "",
    cursor: CursorText = "",
    one: OneId = "",
) -> Response[bytes]:
    """A list by state, or one alert with its history. A view counts as a search and is on record."""
    require(caller, "read")
    request_id = request_id_of(request)
    if one:
        alert = await one_alert(deps, caller, one, tenant or None)
        await record_search(deps, caller, Asked(f'id:"{one}"', tenant=alert.tenant), (alert.tenant,), "search", request_id)
        found = AlertList(alerts=[alert], next=None, partial=False)
    else:
        start = datetime.now(UTC) - DEFAULT_RANGE
        asked = Asked(alert_query(rule or None, None), start, None, "received_at", tenant or None, "desc", _SHOWN, cursor or None)
        found = await find_alerts(deps, caller, asked, None if wanted == "all" else wanted, request_id)
    kept = {"tenant": tenant, "rule": rule}
    return render(
        "alerts.html",
        page="Alerts",
        caller=caller,
        server_name=deps.server_name,
        reasons=[],
        alerts=[(alert, events_link(alert), _verbs(alert, caller)) for alert in found.alerts],
        states=[(name, _link(state=name, **kept), name == wanted and not one) for name in _STATES],
        next=_link(state=wanted, cursor=found.next, **kept) if found.next else "",
        partial=found.partial,
        is_one=bool(one),
        rule=rule,
        has_rules=deps.config.alerts.is_on,
    )


@post("/alerts/{alert_id:str}/{verb:str}", include_in_schema=False, opt={"is_form": True}, status_code=303)
async def act(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, alert_id: AlertId, verb: Verb) -> Response[bytes]:
    """A button of an alert; back to that alert."""
    form = await checked_form(request, is_tls=deps.config.server.tls is not None)
    note = form.get("note", "")
    if len(note) > _NOTE_MAX:
        raise Problem(400, "note_invalid", f"a note has at most {_NOTE_MAX} characters")
    tenant = form.get("tenant", "")
    await change(deps, caller, alert_id, tenant or None, verb, note, request_id_of(request))
    return Response(b"", status_code=303, headers={"location": _link(id=alert_id, tenant=tenant)}, media_type="text/plain")


def events_link(alert: AlertView) -> str:
    """The events page with what fired the alert; empty when it names none."""
    query = " OR ".join('id:"{}"'.format(one.replace("\\", "\\\\").replace('"', '\\"')) for one in alert.events)
    return "/?" + urlencode({"q": query, "tenant": alert.tenant, "from": "-52w"}) if query else ""


def _verbs(alert: AlertView, caller: Caller) -> tuple[str, ...]:
    if not caller.may("operate"):
        return ()
    return {"open": ("acknowledge", "close"), "acknowledged": ("close", "reopen"), "closed": ("reopen",)}[alert.state]


def _link(**values: str) -> str:
    return "/alerts?" + urlencode({name: value for name, value in values.items() if value})


HANDLERS: list[BaseRouteHandler] = [show_alerts, act]
