"""The parts of a report that are no control: log, deliveries, retention, holds, drills, access, reviews, gaps. All JSON, all of one period."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from tallystick.api.caller import Caller
from tallystick.api.deps import ApiDeps
from tallystick.api.holds import visible_holds
from tallystick.api.report_entries import Period, account_entries, root_entries
from tallystick.api.retention import retention_view
from tallystick.api.reviews import due_view, review_view, visible_reviews
from tallystick.evidence.note import split_note
from tallystick.evidence.origin import event_origin, root_origin
from tallystick.evidence.statement import open_statement, statement_key_name
from tallystick.http.access import AccessKey
from tallystick.journal.tenants import SERVER_TENANT
from tallystick.query.request import SearchRequest

_LIST_MAX = 500
_ACTIONS = 50
_ACTORS = 20
_DRILLS = ("drill", "backup", "restore")


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose report, over which tenants and what time."""

    deps: ApiDeps
    caller: Caller
    tenants: tuple[str, ...]
    period: Period

    def request(self, query: str, tenants: tuple[str, ...] | None = None) -> SearchRequest:
        return SearchRequest(tenants=tenants or self.tenants, query=query, start=self.period.start, end=self.period.end)


def log_part(subject: Subject) -> dict[str, Any]:
    """Signed heads, what the root log says of clock and configuration, events whose time was odd."""
    deps, period = subject.deps, subject.period
    beats = [one for one in root_entries(deps, ("heartbeat",)) if period.holds(one.get("at"))]
    configs = [one for one in root_entries(deps, ("config",)) if period.holds(one.get("at"))]
    return {
        "root": _head(deps, root_origin(deps.server_name)),
        "logs": [
            {"tenant": name, **_head(deps, event_origin(deps.server_name, found.handle))}
            for name in subject.tenants
            if (found := deps.tenants.get(name)) is not None
        ],
        "anchors": sum(1 for _ in root_entries(deps, ("anchor",))),
        "heartbeats": len(beats),
        "clock_offset_ms_max": max((abs(int(one.get("clock_offset_ms", 0))) for one in beats), default=0),
        "configurations": configs[:_LIST_MAX],
        "odd_times": _count(subject, "ingest.flags:(time_implausible OR time_zone_missing OR time_invalid OR time_missing)"),
        "events": _count(subject, ""),
    }


def deliveries_part(subject: Subject) -> dict[str, Any]:
    """The last statement of the period for each tenant and destination, verbatim and in numbers; how many there were."""
    deps = subject.deps
    key = deps.vkey(statement_key_name(deps.server_name))
    last: dict[tuple[str, str], dict[str, Any]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for tenant, entry in account_entries(deps, subject.tenants, ("statement",)):
        note = entry.get("note")
        if not isinstance(note, str) or not key:
            continue
        said = open_statement(note, [key])
        if subject.period.holds(said.issued):
            place = (tenant, said.destination)
            counts[place] += 1
            last[place] = {
                "tenant": tenant,
                "destination": said.destination,
                "issued": said.issued,
                "first_index": said.first,
                "last_index": said.last,
                "accepted": said.accepted,
                "delivered": said.delivered,
                "filtered": dict(said.filtered),
                "dead_lettered": dict(said.dead_lettered),
                "pending": said.pending,
                "revision": said.revision,
                "note": note,
            }
    rows = [{**row, "statements": counts[place]} for place, row in last.items()]
    return {"key": key, "destinations": sorted(deps.config.destinations), "statements": rows}


def retention_part(subject: Subject) -> dict[str, Any]:
    """Periods in force, what expired in the period by certificate, and shorter periods that wait."""
    deps = subject.deps
    view = msgspec.to_builtins(retention_view(deps, subject.caller, subject.tenants))
    expiries = [
        {"tenant": tenant, **{name: value for name, value in entry.items() if name not in ("ranges", "type")}}
        for tenant, entry in account_entries(deps, subject.tenants, ("expiry",))
        if subject.period.holds(entry.get("at"))
    ]
    policies = [one for one in root_entries(deps, ("policy",)) if subject.period.holds(one.get("at"))]
    return {
        **{name: view[name] for name in ("classes", "coming", "brake", "due_events")},
        "expired_events": sum(int(one.get("count", 0)) for one in expiries),
        "keys_destroyed": sum(one.get("key") == "destroyed" for one in expiries),
        "expiries": expiries[-_LIST_MAX:],
        "expiries_in_all": len(expiries),
        "policies": [{"at": one["at"], "classes": one.get("classes"), "coming": one.get("coming")} for one in policies][
            -_LIST_MAX:
        ],
    }


def holds_part(subject: Subject) -> dict[str, Any]:
    """Holds that stood at some time of the period, and how many events each matches now."""
    rows = []
    for hold in visible_holds(subject.deps, subject.caller):
        names = tuple(sorted(set(hold.tenants.values()) & set(subject.tenants)))
        ended = datetime.fromisoformat(hold.lifted_at) if hold.lifted_at else None
        if not names or datetime.fromisoformat(hold.placed_at) >= subject.period.end or (ended and ended < subject.period.start):
            continue
        found = subject.deps.engine.count(SearchRequest(tenants=names, query=hold.query))
        facts = {name: getattr(hold, name) for name in ("id", "query", "reason", "owner", "review", "placed_by", "placed_at")}
        lifted = {"lifted_by": hold.lifted_by, "lifted_at": hold.lifted_at or None, "lift_reason": hold.lift_reason}
        rows.append({**facts, **lifted, "tenants": list(names), "events": None if found.partial else found.total})
    return {"holds": rows}


def drills_part(subject: Subject) -> dict[str, Any]:
    """Entries about backups, restores and drills, as they are on record."""
    found = [{"log": "root", **one} for one in root_entries(subject.deps, _DRILLS)]
    found += [{"log": tenant, **one} for tenant, one in account_entries(subject.deps, _with_server(subject), _DRILLS)]
    return {"entries": [one for one in found if subject.period.holds(one.get("at"))][-_LIST_MAX:]}


def access_part(subject: Subject) -> dict[str, Any]:
    """Who did what with Tallystick itself, and the keys. ``keys`` null: the caller may not see them."""
    tenants = _with_server(subject)
    facets = subject.deps.engine.facets(subject.request("action:tallystick.*", tenants), ["action"], _ACTIONS)
    uses = [_use(subject, tenants, action, count) for action, count in facets.values.get("action", [])]
    keys = None
    if subject.caller.may("keys"):
        keys = [_key(one) for one in subject.deps.access.list() if _concerns(subject, one)]
    return {"has_server_log": SERVER_TENANT in tenants, "partial": facets.partial, "uses": uses, "keys": keys}


def reviews_part(subject: Subject) -> dict[str, Any]:
    """Reviews begun or signed in the period, and what is due."""
    reviews, due = visible_reviews(subject.deps, subject.caller)
    now = datetime.now(UTC)
    tenants = _with_server(subject)
    views = [msgspec.to_builtins(review_view(one)) for one in reviews if one.started.tenant in tenants]
    wanted = [one for one in views if subject.period.holds(one["started_at"]) or subject.period.holds(one["signed_at"])]
    return {"reviews": wanted, "due": [msgspec.to_builtins(due_view(one, now)) for one in due if one.tenant in tenants]}


def gaps_part(subject: Subject) -> dict[str, Any]:
    """What is known to be missing: gaps on record, records in quarantine, and sources whose events carry no numbers."""
    deps = subject.deps
    gaps: Counter[tuple[str, str, str]] = Counter()
    for tenant, entry in account_entries(deps, subject.tenants, ("gap",)):
        if subject.period.holds(entry.get("until") or entry.get("at")):
            gaps[tenant, str(entry.get("source", "")), str(entry.get("reason", ""))] += int(entry.get("count") or 1)
    names = {found.handle: name for name in subject.tenants if (found := deps.tenants.get(name)) is not None}
    sources = deps.engine.facets(subject.request("NOT producer.id:*"), ["source.name"], _ACTORS)
    return {
        "gaps": [{"tenant": key[0], "source": key[1], "reason": key[2], "records": count} for key, count in sorted(gaps.items())],
        "quarantine": [
            {"tenant": names[one.handle], "source": one.source, "code": one.code, "records": one.count, "waiting": one.waiting}
            for one in deps.quarantine.counts(list(names))
        ],
        "unnumbered": [{"source": name, "events": count} for name, count in sources.values["source.name"] if name != "tallystick"],
    }


PARTS: dict[str, tuple[str, Callable[[Subject], dict[str, Any]]]] = {
    "log": ("The log", log_part),
    "deliveries": ("Delivery statements", deliveries_part),
    "retention": ("Retention", retention_part),
    "holds": ("Legal holds", holds_part),
    "drills": ("Backups and drills", drills_part),
    "access": ("Access", access_part),
    "reviews": ("Reviews", reviews_part),
    "gaps": ("What is known to be missing", gaps_part),
}


def _head(deps: ApiDeps, origin: str) -> dict[str, Any]:
    head = deps.heads.head(origin)
    if head is None:
        return {"origin": origin, "vkey": deps.vkey(origin), "size": 0, "checkpoint": "", "cosigned_by": []}
    others = [one.name for one in split_note(head.note)[1] if one.name != origin]
    return {"origin": origin, "vkey": deps.vkey(origin), "size": head.size, "checkpoint": head.note, "cosigned_by": others}


def _count(subject: Subject, query: str) -> int | None:
    found = subject.deps.engine.count(subject.request(query))
    return None if found.partial else found.total


def _use(subject: Subject, tenants: tuple[str, ...], action: str, count: int) -> dict[str, Any]:
    found = subject.deps.engine.facets(subject.request(f'action:"{action}"', tenants), ["actor"], _ACTORS)
    return {"action": action, "count": count, "actors": dict(found.values["actor"])}


def _with_server(subject: Subject) -> tuple[str, ...]:
    """With the server's own log, for a caller who is bound to no tenant."""
    has_own = subject.caller.is_server_wide and subject.deps.tenants.get(SERVER_TENANT) is not None
    return tuple(dict.fromkeys((*subject.tenants, SERVER_TENANT))) if has_own else subject.tenants


def _concerns(subject: Subject, key: AccessKey) -> bool:
    """A key that could be used in the period, for one of the tenants, and that the caller manages."""
    end, start = subject.period.end.timestamp(), subject.period.start.timestamp()
    gone = min(one for one in (key.revoked_at, key.expires_at, float("inf")) if one is not None)
    is_ours = subject.caller.is_server_wide or (bool(key.tenants) and set(key.tenants) <= set(subject.caller.tenants))
    return is_ours and key.created_at < end and gone >= start and any(map(key.sees, subject.tenants))


def _key(key: AccessKey) -> dict[str, Any]:
    times = {name: _time(getattr(key, name)) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    facts = {name: getattr(key, name) for name in ("id", "owner", "purpose")}
    return {**facts, "tenants": ", ".join(key.tenants) or "all tenants", "permissions": sorted(key.permissions), **times}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
