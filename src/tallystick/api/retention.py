"""``/v1/retention``: how long events are kept, and what would expire when, before anything is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, get, post

from tallystick.api.caller import Caller, require, require_server_wide
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import TenantParam, request_id_of
from tallystick.api.search import visible_tenants
from tallystick.archive.expiry import RESUME, STATUS
from tallystick.archive.expiry_plan import PlanLine, plan_expiry
from tallystick.archive.periods import configured_periods
from tallystick.durable import StateFile
from tallystick.evidence.account import AccountLog
from tallystick.evidence.entry import ROOT_TYPES, read_entry
from tallystick.evidence.origin import ROOT, tree_dir
from tallystick.evidence.policy import Policy, read_policy
from tallystick.http.problem import Problem
from tallystick.telemetry import read_status


class ClassView(msgspec.Struct, kw_only=True):
    """A retention class as configured. ``tenants``: who has another period for it; those that the key sees."""

    name: str
    period: str
    floor: str
    where: str | None
    tenants: dict[str, str]


class PlanView(msgspec.Struct, kw_only=True):
    """Archived events of one tenant, class and month. Times are RFC 3339; null: never. ``bytes`` is what the chunks take.

    The first of them expires at ``expires_from``, the last at ``expires_at``; ``due_events`` could go now.
    """

    tenant: str
    retention_class: str = msgspec.field(name="class")
    month: str
    chunks: int
    events: int
    bytes: int
    first_index: int
    last_index: int
    expires_from: str | None
    expires_at: str | None
    due_events: int
    due_bytes: int


class ComingView(msgspec.Struct, kw_only=True):
    """A shorter period that is announced: in force from ``at`` on. ``tenant`` null: for all."""

    tenant: str | None
    retention_class: str = msgspec.field(name="class")
    period: str
    at: str


class BrakeView(msgspec.Struct, kw_only=True):
    """Why expiry is stopped. ``due`` of ``kept`` events were to go."""

    id: str
    reason: str
    at: str
    due: int
    kept: int


class RetentionView(msgspec.Struct, kw_only=True):
    """The policy, and what it would do. ``brake``: null while expiry goes on; ``expired_events`` and ``expired_bytes`` count from the
    first start. The last three are null and zero for a key bound to tenants."""

    at: str
    coming: list[ComingView]
    brake: BrakeView | None
    expired_events: int
    expired_bytes: int
    classes: list[ClassView]
    plan: list[PlanView]
    due_events: int
    due_bytes: int


@get("/v1/retention", operation_id="getRetention", tags=["retention"], summary="Periods, and what would expire when")
async def get_retention(caller: CallerDep, deps: DepsDep, tenant: TenantParam = None) -> RetentionView:
    """Nothing is done. Events that are not archived yet are not in it; they are archived long before they expire."""
    require(caller, "read", "operate")
    names = visible_tenants(deps, caller, tenant)
    return await deps.reads.run(lambda: retention_view(deps, caller, names))


def retention_view(deps: ApiDeps, caller: Caller, tenants: Sequence[str]) -> RetentionView:
    """Blocking."""
    now = time.time()
    config = deps.config
    policy = policy_in_force(deps)
    names = {found.handle: name for name in tenants if (found := deps.tenants.get(name)) is not None}
    rows = [row for handle in names for row in deps.catalog.chunks(handle)]
    lines = plan_expiry(rows, policy.seconds if policy is not None else configured_periods(config, names), now)
    page = (read_status(deps.data_dir, STATUS) or {}) if caller.is_server_wide else {}
    return RetentionView(
        at=_time(now) or "",
        coming=[
            ComingView(tenant=names.get(one.tenant), retention_class=one.retention_class, period=one.period, at=one.at)
            for one in (policy.coming if policy is not None else ())
            if not one.tenant or one.tenant in names
        ],
        brake=_brake(page),
        expired_events=page.get("expired_events", 0),
        expired_bytes=page.get("expired_bytes", 0),
        classes=[
            ClassView(
                name=name,
                period=settings.period.text,
                floor=settings.floor.text,
                where=settings.where,
                tenants={
                    one: own.retention[name].text
                    for one, own in config.tenants.items()
                    if name in own.retention and caller.sees(one)
                },
            )
            for name, settings in config.retention.known.items()
        ],
        plan=[_view(names[line.handle], line) for line in lines],
        due_events=sum(line.due_events for line in lines),
        due_bytes=sum(line.due_bytes for line in lines),
    )


@post(
    "/v1/retention/resume",
    operation_id="resumeRetention",
    tags=["retention"],
    summary="Let expiry go on after its brake stopped it",
    status_code=200,
)
async def resume_retention(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep) -> BrakeView:
    """What is due now may go. The answer is the brake that was released; 409 when there is none. It is on record before it is done."""
    return await release_brake(deps, caller, request_id_of(request))


async def release_brake(deps: ApiDeps, caller: Caller, request_id: str) -> BrakeView:
    """Raises Problem, PushbackError."""
    require_server_wide(caller, "operate")
    brake = await deps.reads.run(lambda: _brake(read_status(deps.data_dir, STATUS) or {}))
    if brake is None:
        raise Problem(409, "not_stopped", "expiry is not stopped")
    details = {"reason": brake.reason, "due": brake.due, "kept": brake.kept}
    await deps.auditor.record(caller, "retention.resume", target=("brake", brake.id), request_id=request_id, details=details)
    # A crash before it is saved: it is on record that somebody wanted it, and expiry stays stopped.
    payload = msgspec.json.encode({"brake": brake.id, "by": caller.owner})
    await deps.reads.run(lambda: StateFile(deps.data_dir / "cursors" / RESUME).save(payload))
    return brake


def policy_in_force(deps: ApiDeps) -> Policy | None:
    """The last policy of the root log; None before the first one. Blocking."""
    deps.heads.refresh()
    index, head = deps.heads.state.policy, deps.heads.state.heads.get(ROOT)
    if index < 0 or head is None:
        return None
    entries = AccountLog(tree_dir(deps.data_dir, ROOT), head.size)
    try:
        return read_policy(read_entry(entries.entry(index), ROOT_TYPES))
    finally:
        entries.close()


def _brake(page: dict[str, Any]) -> BrakeView | None:
    brake = page.get("brake")
    if brake is None:
        return None
    return BrakeView(id=brake["id"], reason=brake["reason"], at=_time(brake["at"]) or "", due=brake["due"], kept=brake["kept"])


def _view(tenant: str, line: PlanLine) -> PlanView:
    return PlanView(
        tenant=tenant,
        retention_class=line.retention_class,
        month=line.month,
        chunks=line.chunks,
        events=line.events,
        bytes=line.bytes,
        first_index=line.first,
        last_index=line.last,
        expires_from=_time(line.expires_from),
        expires_at=_time(line.expires_at),
        due_events=line.due_events,
        due_bytes=line.due_bytes,
    )


def _time(seconds: float | None) -> str | None:
    """RFC 3339; a time past the year 9999 is never."""
    try:
        return (
            None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        )
    except (OverflowError, ValueError):
        return None


HANDLERS = [get_retention, resume_retention]
