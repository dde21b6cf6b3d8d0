"""Searching on behalf of a caller: which tenants, within which limits, on record before the answer goes out.

Used by the HTTP API and by the console alike, so that both see the same and leave the same trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from tallystick.api.caller import Caller, no_such, require
from tallystick.api.deps import ApiDeps
from tallystick.api.params import bad_parameter
from tallystick.archive.reader import Found
from tallystick.errors import NotFoundError
from tallystick.http.problem import Problem
from tallystick.journal.tenants import SERVER_TENANT
from tallystick.query.request import Order, SearchRequest, TimeField

T = TypeVar("T")
FIND_TENANTS_MAX = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller typed, checked. ``tenant`` None means all that the caller sees."""

    query: str = ""
    start: datetime | None = None
    end: datetime | None = None
    time: TimeField = "occurred_at"
    tenant: str | None = None
    order: Order = "desc"
    limit: int = 100
    cursor: str | None = None


def visible_tenants(deps: ApiDeps, caller: Caller, tenant: str | None) -> tuple[str, ...]:
    """The tenants that a request covers: the named one, or all that the caller sees but the server's own.

    Raises NotFoundError for a tenant that does not exist or is not the caller's: both in the same words.
    """
    if tenant is not None:
        if deps.tenants.get(tenant) is None:
            deps.tenants.reload()
        if not caller.sees(tenant) or deps.tenants.get(tenant) is None:
            raise no_such("tenant")
        return (tenant,)
    deps.tenants.reload()
    return tuple(item.name for item in deps.tenants.all() if caller.sees(item.name) and item.name != SERVER_TENANT)


def build_request(deps: ApiDeps, caller: Caller, asked: Asked) -> SearchRequest:
    """Checks permission, tenant and sizes. Raises Problem, NotFoundError."""
    require(caller, "read")
    if len(asked.query.encode()) > deps.config.query.query.bytes:
        raise bad_parameter("query", f"longer than {deps.config.query.query.bytes} bytes")
    return SearchRequest(
        tenants=visible_tenants(deps, caller, asked.tenant),
        query=asked.query,
        start=asked.start,
        end=asked.end,
        time=asked.time,
        order=asked.order,
        limit=min(asked.limit, deps.config.query.limit),
        cursor=asked.cursor,
    )


async def run_recorded(
    deps: ApiDeps,
    caller: Caller,
    asked: Asked,
    request: SearchRequest,
    action: str,
    request_id: str,
    call: Callable[[], T],
    **details: Any,
) -> T:
    """Put the search on record, then run it. The record is there even when the search then fails."""
    await record_search(deps, caller, asked, request.tenants, action, request_id, **details)
    return await deps.searches.run(call)


async def record_search(
    deps: ApiDeps, caller: Caller, asked: Asked, tenants: Sequence[str], action: str, request_id: str, **details: Any
) -> None:
    """One audit event: in the log of the tenant, or in the server's own for a search over several."""
    await deps.auditor.record(
        caller,
        action,
        tenants=tenants if len(tenants) == 1 else (),
        request_id=request_id,
        details={
            "query": asked.query,
            "from": asked.start.isoformat() if asked.start else None,
            "to": asked.end.isoformat() if asked.end else None,
            "time": asked.time,
            **details,
        },
    )


async def find_event(deps: ApiDeps, caller: Caller, tenant: str | None, event_id: str) -> tuple[str, Found]:
    """The event of that id and its tenant. Raises NotFoundError, in the same words whether it is missing or not the caller's."""
    tenants = visible_tenants(deps, caller, tenant)
    if len(tenants) > FIND_TENANTS_MAX:
        raise Problem(
            400,
            "tenant_needed",
            "this key sees many tenants; name one in `tenant`",
            errors=[{"pointer": "?tenant", "message": "needed"}],
        )

    def find() -> tuple[str, Found] | None:
        for name in tenants:
            found = deps.engine.find(name, event_id)
            if found is not None:
                return name, found
        return None

    answer = await deps.searches.run(find)
    if answer is None:
        raise NotFoundError("no such event")
    return answer
