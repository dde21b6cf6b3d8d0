"""``/v1/alerts``: what rules raised, in which state each is, and acknowledging, closing and reopening it.

The state is what the log says (`alerts.state`). Reading is a search like any other and on record as one; a change is an event in the log of
the alert's tenant, durable before the answer. Two people who close the same alert at once may both be on record: the second change
says what the first did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from tallystick.alerts.rule import SEVERITIES
from tallystick.alerts.state import CHANGES, FROM, LEADS_TO, QUERY, Change, RaisedAlert, State, Verb, read_alert, read_changes
from tallystick.api.caller import Caller, no_such, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import FromTime, PageLimit, TenantParam, ToTime, read_range, request_id_of
from tallystick.api.search import Asked, build_request, find_event, record_search, visible_tenants
from tallystick.archive.reader import Found
from tallystick.errors import NotFoundError
from tallystick.http.problem import Problem
from tallystick.journal.tenants import SERVER_TENANT
from tallystick.query.request import Page, SearchRequest

DEFAULT_RANGE = timedelta(days=30)
SCANNED_MAX = 10_000
"""Alerts that one call looks through for a state before it hands out a cursor to go on with."""
CHANGES_MAX = 50_000
"""Changes of state that are read for one answer; past them the answer says that it is partial."""
_PAGE = 1_000

AlertId = Annotated[str, PathParameter(description="The alert's id.", max_length=128)]
StateParam = Annotated[
    Literal["open", "acknowledged", "closed"] | None, QueryParameter(name="state", description="Only alerts in this state.")
]
RuleParam = Annotated[str | None, QueryParameter(name="rule", description="Only alerts of this rule.", max_length=64)]
SeverityParam = Annotated[
    Literal["informational", "low", "medium", "high", "critical", "fatal"] | None,
    QueryParameter(name="severity", description="Only alerts at least so severe."),
]
CursorParam = Annotated[
    str | None,
    QueryParameter(name="cursor", description="`next` of the page before; holds that page's snapshot.", max_length=32_768),
]


class ChangeRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of a change of state. ``note`` goes on record with it."""

    note: Annotated[str, Meta(max_length=2_048)] = ""


class ChangeView(msgspec.Struct, kw_only=True):
    state: State
    by: str
    at: str
    note: str


class AlertView(msgspec.Struct, kw_only=True):
    """An alert. ``state``, and who brought it there when, with the note; both empty while nobody did anything. Times are RFC 3339;
    ``events`` are the ids of the events that fired it, the last twenty."""

    id: str
    tenant: str
    rule: str
    title: str
    description: str
    severity: str
    raised_at: str
    first_at: str
    last_at: str
    count: int
    group: dict[str, str]
    actor: str
    action: str
    events: list[str]
    attack: list[str]
    state: State
    by: str
    changed_at: str | None
    note: str
    history: list[ChangeView]


class AlertList(msgspec.Struct, kw_only=True):
    """The newest first. ``next`` is the cursor of the next page, null on the last; a page may be short, or empty, and have a next one.
    ``partial``: time or a bound ended the search early."""

    alerts: list[AlertView]
    next: str | None
    partial: bool


@get("/v1/alerts", operation_id="listAlerts", tags=["alerts"], summary="Alerts and their state")
async def list_alerts(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    wanted: StateParam = None,
    rule: RuleParam = None,
    severity: SeverityParam = None,
    tenant: TenantParam = None,
    start: FromTime = None,
    end: ToTime = None,
    limit: PageLimit = 100,
    cursor: CursorParam = None,
) -> AlertList:
    """Of the last 30 days, unless `from` says otherwise. The search is on record."""
    first, last = read_range(start, end)
    query = alert_query(rule, severity)
    asked = Asked(query, first or datetime.now(UTC) - DEFAULT_RANGE, last, "received_at", tenant, "desc", limit, cursor)
    return await find_alerts(deps, caller, asked, wanted, request_id_of(request))


@get("/v1/alerts/{alert_id:str}", operation_id="getAlert", tags=["alerts"], summary="One alert, and what was done about it")
async def get_alert(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, alert_id: AlertId, tenant: TenantParam = None
) -> AlertView:
    """With all changes of its state, the oldest first."""
    require(caller, "read")
    found = await one_alert(deps, caller, alert_id, tenant)
    asked = Asked(f'id:"{alert_id}"', tenant=found.tenant)
    await record_search(deps, caller, asked, (found.tenant,), "search", request_id_of(request))
    return found


@post(
    "/v1/alerts/{alert_id:str}/acknowledge",
    operation_id="acknowledgeAlert",
    tags=["alerts"],
    summary="Say that somebody is on it",
    status_code=200,
)
async def acknowledge_alert(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    alert_id: AlertId,
    data: JSONBody[ChangeRequest],
    tenant: TenantParam = None,
) -> AlertView:
    """Recorded as `tallystick.alert.acknowledge` in the log of the alert's tenant, durable before the answer; 409 when its state does not allow it."""
    return await change(deps, caller, alert_id, tenant, "acknowledge", data.note, request_id_of(request))


@post(
    "/v1/alerts/{alert_id:str}/close",
    operation_id="closeAlert",
    tags=["alerts"],
    summary="Say that it is done with",
    status_code=200,
)
async def close_alert(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    alert_id: AlertId,
    data: JSONBody[ChangeRequest],
    tenant: TenantParam = None,
) -> AlertView:
    """Recorded as `tallystick.alert.close` in the log of the alert's tenant, durable before the answer; 409 when its state does not allow it."""
    return await change(deps, caller, alert_id, tenant, "close", data.note, request_id_of(request))


@post(
    "/v1/alerts/{alert_id:str}/reopen",
    operation_id="reopenAlert",
    tags=["alerts"],
    summary="Take a change back",
    status_code=200,
)
async def reopen_alert(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    alert_id: AlertId,
    data: JSONBody[ChangeRequest],
    tenant: TenantParam = None,
) -> AlertView:
    """Recorded as `tallystick.alert.reopen` in the log of the alert's tenant, durable before the answer; 409 when its state does not allow it."""
    return await change(deps, caller, alert_id, tenant, "reopen", data.note, request_id_of(request))


def alert_query(rule: str | None, severity: str | None) -> str:
    """The search for alerts of a rule, at least so severe."""
    query = QUERY
    if rule is not None:
        quoted = rule.replace("\\", "\\\\").replace('"', '\\"')
        query += f' AND metadata.rule:"{quoted}"'
    return query if severity is None else f"{query} AND severity:>={SEVERITIES[severity]}"


async def find_alerts(deps: ApiDeps, caller: Caller, asked: Asked, state: State | None, request_id: str) -> AlertList:
    """Alerts of ``asked`` in ``state``, with the search on record before it is made."""
    built = build_request(deps, caller, asked)
    if asked.tenant is None and caller.is_server_wide and deps.tenants.get(SERVER_TENANT) is not None:
        built = dataclasses.replace(built, tenants=(*built.tenants, SERVER_TENANT))
    await record_search(deps, caller, asked, built.tenants, "search", request_id, limit=built.limit)
    return await deps.searches.run(lambda: _find(deps, built, state))


async def one_alert(deps: ApiDeps, caller: Caller, alert_id: str, tenant: str | None) -> AlertView:
    """Raises NotFoundError when there is none of that id, or it is not the caller's."""
    if tenant is not None:
        visible_tenants(deps, caller, tenant)
    try:
        name, found = await _find_line(deps, caller, alert_id, tenant)
    except NotFoundError:
        raise no_such("alert") from None
    event = msgspec.json.decode(found.line, type=dict[str, Any])
    if event["action"] != "tallystick.alert" or event["source"]["name"] != "tallystick":
        raise no_such("alert")
    alert = read_alert(found.line)
    start = datetime.fromisoformat(alert.raised_at)
    changes, _ = await deps.searches.run(lambda: _changes(deps, (name,), start, f' AND metadata.alert:"{alert.id}"'))
    return _view(alert, changes.get(alert.id, []))


async def _find_line(deps: ApiDeps, caller: Caller, alert_id: str, tenant: str | None) -> tuple[str, Found]:
    """Without a tenant also in the server's own log, for a key that sees it."""
    try:
        return await find_event(deps, caller, tenant, alert_id)
    except NotFoundError:
        if tenant is not None or not caller.is_server_wide:
            raise
        return await find_event(deps, caller, SERVER_TENANT, alert_id)


async def change(
    deps: ApiDeps, caller: Caller, alert_id: str, tenant: str | None, verb: Verb, note: str, request_id: str
) -> AlertView:
    """Put a change of state on record. Raises NotFoundError, and the 409 problem when the alert is not in a state for it."""
    require(caller, "operate")
    alert = await one_alert(deps, caller, alert_id, tenant)
    if alert.state not in FROM[verb]:
        raise Problem(409, "alert_state", f"this alert is {alert.state}" + (f", by {alert.by}" if alert.by else ""))
    await deps.auditor.record(
        caller,
        f"alert.{verb}",
        tenants=(alert.tenant,),
        target=("alert", alert.id),
        reason=note.strip(),
        request_id=request_id,
        severity=SEVERITIES.get(alert.severity),
        details={"alert": alert.id, "rule": alert.rule, "title": alert.title, "severity": alert.severity, "group": alert.group},
    )
    done = ChangeView(state=LEADS_TO[verb], by=caller.owner, at=datetime.now(UTC).isoformat(), note=note.strip())
    return msgspec.structs.replace(
        alert, state=done.state, by=done.by, changed_at=done.at, note=done.note, history=[*alert.history, done]
    )


def _find(deps: ApiDeps, request: SearchRequest, state: State | None) -> AlertList:
    """Page after page until enough are in ``state``. A page is taken whole, so that its cursor goes on exactly behind it."""
    found: list[AlertView] = []
    scanned, partial = 0, False
    while True:
        page = deps.engine.search(dataclasses.replace(request, limit=request.limit - len(found)))
        alerts = [read_alert(line) for line in page.events]
        if alerts:
            start = datetime.fromisoformat(min(alert.raised_at for alert in alerts))
            changes, is_cut = _changes(deps, request.tenants, start)
            views = [_view(alert, changes.get(alert.id, [])) for alert in alerts]
            found += [view for view in views if state is None or view.state == state]
            partial = partial or is_cut
        scanned += len(alerts)
        partial = partial or page.partial
        if page.next is None or page.partial or len(found) >= request.limit or scanned >= SCANNED_MAX:
            return AlertList(alerts=found, next=page.next, partial=partial)
        request = dataclasses.replace(request, cursor=page.next)


def _changes(deps: ApiDeps, tenants: tuple[str, ...], start: datetime, more: str = "") -> tuple[dict[str, list[Change]], bool]:
    """The changes since ``start`` by alert, and whether there are more than were read."""
    request = SearchRequest(tenants, CHANGES + more, start, None, "received_at", "asc", _PAGE)
    lines: list[bytes] = []
    for page in _pages(deps, request):
        lines += page.events
        if len(lines) >= CHANGES_MAX or page.partial:
            return read_changes(lines), page.next is not None or page.partial
    return read_changes(lines), False


def _pages(deps: ApiDeps, request: SearchRequest) -> Iterator[Page]:
    while True:
        page = deps.engine.search(request)
        yield page
        if page.next is None:
            return
        request = dataclasses.replace(request, cursor=page.next)


def _view(alert: RaisedAlert, history: list[Change]) -> AlertView:
    last = history[-1] if history else None
    return AlertView(
        id=alert.id,
        tenant=alert.tenant,
        rule=alert.rule,
        title=alert.title,
        description=alert.description,
        severity=alert.severity,
        raised_at=alert.raised_at,
        first_at=alert.first_at,
        last_at=alert.last_at,
        count=alert.count,
        group=alert.group,
        actor=alert.actor,
        action=alert.action,
        events=alert.events,
        attack=alert.attack,
        state=last.state if last else "open",
        by=last.by if last else "",
        changed_at=last.at if last else None,
        note=last.note if last else "",
        history=[ChangeView(state=one.state, by=one.by, at=one.at, note=one.note) for one in history],
    )


HANDLERS = [list_alerts, get_alert, acknowledge_alert, close_alert, reopen_alert]
