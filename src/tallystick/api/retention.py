"""``/v1/retention``: how long events are kept, and what would expire when, before anything is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from litestar import get

from tallystick.api.caller import Caller, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import TenantParam
from tallystick.api.search import visible_tenants
from tallystick.archive.expiry_plan import PlanLine, plan_expiry
from tallystick.archive.periods import configured_periods


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


class RetentionView(msgspec.Struct, kw_only=True):
    """The policy, and what it would do."""

    at: str
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
    names = {found.handle: name for name in tenants if (found := deps.tenants.get(name)) is not None}
    rows = [row for handle in names for row in deps.catalog.chunks(handle)]
    lines = plan_expiry(rows, configured_periods(config, names), now)
    return RetentionView(
        at=_time(now) or "",
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


HANDLERS = [get_retention]
