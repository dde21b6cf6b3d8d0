"""The panel beside the list: one event, one tab of it. Opening it is on record, as reading an event over the API is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from tallystick.api.caller import Caller
from tallystick.api.deps import ApiDeps
from tallystick.api.explain import explain_event
from tallystick.api.search import find_event
from tallystick.archive.reader import Found
from tallystick.console.event_view import context_facts, summary_facts, view_changes, view_event
from tallystick.console.sentence import Part, quote_value
from tallystick.console.state import TABS, ViewState
from tallystick.console.text import shorten
from tallystick.errors import NotFoundError
from tallystick.evidence.origin import event_origin, root_origin

_LINE_SHOWN_MAX = 200_000


async def build_panel(deps: ApiDeps, caller: Caller, state: ViewState, request_id: str) -> dict[str, Any]:
    """The values of the template. An event that is not there, or not the caller's, gives ``missing``."""
    try:
        tenant, found = await find_event(deps, caller, state.tenant or None, state.open)
    except NotFoundError:
        return {"missing": True, "actor_href": "", "target_href": ""}
    await deps.auditor.record(caller, "event.read", tenants=[tenant], target=("event", state.open), request_id=request_id)
    event = msgspec.json.decode(found.line)
    tab = state.tab if state.tab in dict(TABS) else "summary"
    view = view_event(event, datetime.now(UTC))
    values: dict[str, Any] = {
        "missing": False,
        "tab": tab,
        "tabs": [(name, _tab_name(name, title, event)) for name, title in TABS],
        "actor_href": thing_href("actor", event.get("actor"), tenant),
        "target_href": thing_href("target", (event.get("targets") or [None])[0], tenant),
        "action": view.action,
        "outcome": view.outcome,
        "mark": view.mark,
        "parts": view.parts,
    }
    return values | await _tab(deps, tab, state, tenant, found, event)


def thing_href(role: str, thing: dict[str, Any] | None, tenant: str) -> str:
    """The page of an actor or a target; empty for none."""
    if not thing or not thing.get("id"):
        return ""
    kind = {"type": str(thing["type"])} if role == "target" and thing.get("type") else {}
    return f"/{role}?{urlencode({'id': str(thing['id']), **kind, 'tenant': tenant})}"


def _tab_name(tab: str, title: str, event: dict[str, Any]) -> str:
    count = len(event.get("changes") or []) if tab == "changes" else 0
    return f"{title} {count}" if count else title


async def _tab(deps: ApiDeps, tab: str, state: ViewState, tenant: str, found: Found, event: dict[str, Any]) -> dict[str, Any]:
    match tab:
        case "changes":
            return {"changes": view_changes(event)}
        case "context":
            return {"facts": context_facts(event) + related_facts(event)}
        case "raw":
            return {
                "line": shorten(found.line.decode(), _LINE_SHOWN_MAX),
                "line_url": _line_url(state, tenant),
                "size": f"{len(found.line):,}",
                "raw": shorten(event.get("raw") or "", _LINE_SHOWN_MAX),
            }
        case "delivery":
            return _delivery(await explain_event(deps, tenant, state.open, found))
        case "proof":
            return _proof(deps, state, tenant, found)
    return {"facts": summary_facts(event)}


def related_facts(event: dict[str, Any]) -> list[tuple[str, list[Part]]]:
    """Links to what happened with the same session, request, actor and target."""
    context = event.get("context") or {}
    targets = event.get("targets") or [{}]
    terms = (
        ("this session", "context.session_id", context.get("session_id")),
        ("this request", "context.request_id", context.get("request_id")),
        ("this actor", "actor", (event.get("actor") or {}).get("id")),
        ("this target", "target", targets[0].get("id")),
        ("this address", "ip", context.get("ip")),
    )
    links = [Part(f"{name} ", f"{field}:{quote_value(str(value))}") for name, field, value in terms if value]
    spaced = [part for link in links for part in (link, Part("· "))][:-1]
    return [("related", spaced)] if spaced else []


def _delivery(answer: dict[str, Any]) -> dict[str, Any]:
    sealed = f"yes, in a tree of {answer['tree_size']:,} leaves" if answer["sealed"] else "not yet"
    steps = [
        {"name": "durable", "text": "yes, before it was answered"},
        {"name": "sealed", "text": sealed},
        {"name": "archived", "text": "yes" if answer["archived"] else "not yet; it is kept in the journal"},
    ]
    if answer.get("destinations_reason"):
        steps.append({"name": "delivery", "text": answer["destinations_reason"]})
    rows = [
        {
            "name": name,
            "outcome": str(row.get("outcome", "")).replace("_", "-"),
            "at": _moment(row.get("settled_at")),
            "detail": str(row.get("where") or row.get("reason") or row.get("filter") or ""),
        }
        for name, row in answer["destinations"].items()
    ]
    return {"steps": steps, "destinations": rows}


def _moment(settled_at: Any) -> str:
    if not isinstance(settled_at, (int, float)):
        return ""
    return datetime.fromtimestamp(settled_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _proof(deps: ApiDeps, state: ViewState, tenant: str, found: Found) -> dict[str, Any]:
    known = deps.tenants.get(tenant)
    origin = event_origin(deps.server_name, known.handle if known else "")
    return {
        "origin": origin,
        "index": f"{found.index:,}",
        "vkey": deps.vkey(origin),
        "root_vkey": deps.vkey(root_origin(deps.server_name)),
        "line_url": _line_url(state, tenant),
        "proof_url": _line_url(state, tenant, "/proof"),
        "proof_note": "Your browser recomputes the proof here when scripts are on. Without them: tallystick verify, or the proof file below.",
    }


def _line_url(state: ViewState, tenant: str, part: str = "") -> str:
    return f"/v1/events/{quote(state.open, safe='')}{part}?{urlencode({'tenant': tenant})}"
