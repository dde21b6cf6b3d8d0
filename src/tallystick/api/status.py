"""``/v1/status``: one page merged from what every process says of itself, in the shape of DESIGN section 5.

    {"ready", "reasons", "warnings", "backups": {"last", "keys", "drills"}, "durable", "tenants": {t: {"accepted", "sealed", "archived"}},
     "config": {"path", "hash", "refused"}, "destinations": {d: {"state", "reason", "delivered", "filtered": {name: n}, "dead_lettered", "pending", "lag_seconds",
         "accepted", "dead_letter_reasons", "rate", "last_success", "last_error", "reads_back"}}, "sources": {…},
     "completeness": {"watched", "watched_max", "forgotten", "found": {t: {"sequence", "late", "repeat", "restart", "unplaced"}}, "recent": [gap entries]},
     "alerts": {"lag", "seq", "reason", "rules": {rule: {"raised", "groups", "forgotten", "suppressed"}}},
     "alarms": {name: {"since", "reason", "severity"}}}

``ready`` is the intake's alone: whether it would accept. Everything that is wrong anywhere stands in ``reasons`` in words. A page
that its process has not renewed for a while is itself a reason: silence is never taken for health.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from litestar import get

from tallystick.api.backups import backup_state
from tallystick.api.caller import Caller, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.holds import overdue_reasons
from tallystick.api.reviews import review_reasons
from tallystick.errors import PushbackError
from tallystick.telemetry import read_status

FOLLOWERS = ("sealer", "archiver", "dispatcher", "producers")
_STALE_S = 15.0


@get(
    "/v1/status",
    operation_id="getStatus",
    tags=["operation"],
    summary="What is durable, sealed, archived and delivered, and what is wrong",
)
async def get_status(caller: CallerDep, deps: DepsDep) -> dict[str, Any]:
    """A key bound to tenants sees those tenants, and of each destination their account alone."""
    require(caller, "read", "operate")
    return await build_status(deps, caller)


async def build_status(deps: ApiDeps, caller: Caller) -> dict[str, Any]:
    """The page as this caller may see it."""
    intake, destinations = await asyncio.gather(_intake(deps), destination_rows(deps, caller))
    reasons = [f"intake: {reason}" for reason in intake["reasons"]]
    reasons += source_reasons(intake["sources"])
    reasons += await deps.reads.run(lambda: follower_reasons(deps))
    reasons += await deps.reads.run(lambda: overdue_reasons(deps, caller))
    reasons += await deps.reads.run(lambda: review_reasons(deps, caller))
    lacking, warnings, backups = await deps.reads.run(lambda: backup_state(deps, caller))
    reasons += lacking
    config = (await deps.reads.run(lambda: read_status(deps.data_dir, "supervisor")) or {}).get("config") or {}
    if config.get("refused"):
        reasons.append(f"configuration: the newest was refused, the one before is in force: {config['refused']}")
    for name, row in destinations.items():
        if row["state"] not in ("running", "paused") or row["reason"]:
            reasons.append(f"destination {name}: {row['state']}" + (f", {row['reason']}" if row["reason"] else ""))
    return {
        "ready": intake["ready"],
        "reasons": reasons,
        "warnings": warnings,
        "backups": backups,
        "durable": intake["durable"],
        "tenants": await deps.reads.run(lambda: _tenants(deps, caller, intake["accepted"])),
        "destinations": destinations,
        "sources": intake["sources"] if caller.is_server_wide else {},
        "completeness": await deps.reads.run(lambda: completeness(deps, caller)),
        "config": config if caller.is_server_wide else {},
        "alerts": await deps.reads.run(lambda: read_status(deps.data_dir, "alerts")) or {} if caller.is_server_wide else {},
        "alarms": (await deps.reads.run(lambda: read_status(deps.data_dir, "alarms")) or {}).get("raised", {})
        if caller.is_server_wide
        else {},
    }


async def _intake(deps: ApiDeps) -> dict[str, Any]:
    try:
        page = await deps.door.status()
    except PushbackError as error:
        return {"ready": False, "reasons": [error.message], "durable": None, "accepted": {}, "sources": {}}
    return {
        "ready": bool(page.get("ready")),
        "reasons": [str(reason) for reason in page.get("reasons") or []],
        "durable": page.get("durable"),
        "accepted": page.get("accepted") or {},
        "sources": page.get("sources") or {},
    }


def source_reasons(sources: dict[str, dict[str, Any]]) -> list[str]:
    """What the sources that run by themselves complain of, and which of the expected ones are silent."""
    reasons = [
        f"source {name}: {row['state']}" + (f", {row['reason']}" if row["reason"] else "")
        for name, row in sources.items()
        if "state" in row and (row["state"] == "failed" or row["reason"])
    ]
    return reasons + [
        f"source {name}: silent since {row['silent_since']}, expected every {row['expect_every_seconds']:g} s"
        for name, row in sources.items()
        if row.get("silent_since")
    ]


def follower_reasons(deps: ApiDeps) -> list[str]:
    """What the follower processes complain of, and which of them have gone quiet."""
    reasons = []
    for role in (*FOLLOWERS, *(("alerts",) if deps.config.alerts.is_on else ())):
        page = read_status(deps.data_dir, role)
        if page is None:
            reasons.append(f"{role}: has not reported since the start")
            continue
        age = time.time() - float(page.get("at", 0))
        if age > _STALE_S:
            reasons.append(f"{role}: silent for {age:.0f} s")
        if page.get("reason"):
            reasons.append(f"{role}: {page['reason']}")
        own = (reason for reason in page.get("reasons") or [] if reason.partition(":")[0] not in deps.config.destinations)
        reasons += [f"{role}: {reason}" for reason in own]
    return reasons


def completeness(deps: ApiDeps, caller: Caller) -> dict[str, Any]:
    """What producers' numbers say of the tenants that the caller sees; the newest entry last."""
    page = read_status(deps.data_dir, "producers") or {}
    found = page.get("found") or {}
    counts = {name: page.get(name, 0) for name in ("watched", "watched_max", "forgotten")} if caller.is_server_wide else {}
    return {
        **counts,
        "found": {tenant: row for tenant, row in found.items() if caller.sees(tenant)},
        "recent": [entry for entry in page.get("recent") or [] if caller.sees(entry["tenant"])],
    }


def _tenants(deps: ApiDeps, caller: Caller, accepted: dict[str, int]) -> dict[str, dict[str, int]]:
    deps.heads.refresh()
    marks = deps.marks()
    deps.tenants.reload()
    rows = {}
    for tenant in deps.tenants.all():
        if caller.sees(tenant.name):
            sealed = deps.heads.sealed_size(tenant.handle)
            rows[tenant.name] = {
                "accepted": accepted.get(tenant.name, sealed),
                "sealed": sealed,
                "archived": marks.get(tenant.handle, 0),
            }
    return rows


async def destination_rows(deps: ApiDeps, caller: Caller) -> dict[str, dict[str, Any]]:
    """State and account of every configured destination, over the tenants that the caller sees."""
    page = await deps.reads.run(lambda: read_status(deps.data_dir, "dispatcher")) or {}
    known = page.get("destinations") or {}
    return {name: _destination(table, known.get(name), caller) for name, table in deps.config.destinations.items()}


def _destination(table: dict[str, Any], page: dict[str, Any] | None, caller: Caller) -> dict[str, Any]:
    page = page or {"state": "unknown", "reason": "the dispatcher has not reported it yet"}
    counts = page if caller.is_server_wide else _sum(page, caller)
    return {
        "type": table.get("type"),
        "guarantee": page.get("guarantee", ""),
        "state": page.get("state", "unknown"),
        "reason": page.get("reason") or "",
        "accepted": counts.get("accepted", 0),
        "delivered": counts.get("delivered", 0),
        "filtered": counts.get("filtered", {}),
        "dead_lettered": counts.get("dead_lettered", 0),
        "dead_letter_reasons": counts.get("dead_letter_reasons") or {},
        "pending": counts.get("pending", 0),
        "lag_seconds": float(page.get("lag_seconds") or 0.0),
        "rate": float(page.get("rate") or 0.0) if caller.is_server_wide else None,
        "last_success": page.get("last_success"),
        "last_error": page.get("last_error"),
        "reads_back": bool(page.get("reads_back")),
    }


def _sum(page: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """The account over the tenants that the caller sees."""
    totals: Counter[str] = Counter()
    filtered: Counter[str] = Counter()
    dead: Counter[str] = Counter()
    for tenant, account in (page.get("tenants") or {}).items():
        if caller.sees(tenant):
            totals.update({name: account.get(name, 0) for name in ("accepted", "delivered", "dead_lettered", "pending")})
            dead.update(account.get("dead_letter_reasons") or {})
            filtered.update(account["filtered"])
    return {**totals, "filtered": dict(filtered), "dead_letter_reasons": dict(dead)}


HANDLERS = [get_status]
