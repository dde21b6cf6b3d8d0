"""Where one event went: its place in the log, how far it has come, and what each destination did with it."""

from __future__ import annotations

from typing import Any

from tallystick.api.deps import ApiDeps
from tallystick.archive.reader import Found
from tallystick.errors import TransientError
from tallystick.evidence.origin import event_origin


async def explain_event(deps: ApiDeps, tenant: str, event_id: str, found: Found) -> dict[str, Any]:
    """The answer of ``/explain``. When the dispatcher does not answer, ``destinations_reason`` says so."""
    known = deps.tenants.get(tenant)
    handle = known.handle if known else ""
    deps.heads.refresh()
    head = deps.heads.head(event_origin(deps.server_name, handle))
    marks = await deps.reads.run(deps.marks)
    destinations, reason = await _destinations(deps, handle, found.index)
    answer: dict[str, Any] = {
        "id": event_id,
        "tenant": tenant,
        "log": event_origin(deps.server_name, handle),
        "index": found.index,
        "durable": True,
        "sealed": head is not None and head.size > found.index,
        "tree_size": head.size if head else 0,
        "archived": marks.get(handle, 0) > found.index,
        "destinations": destinations,
    }
    if reason:
        answer["destinations_reason"] = reason
    return answer


async def _destinations(deps: ApiDeps, handle: str, index: int) -> tuple[dict[str, Any], str]:
    if not deps.config.destinations:
        return {}, ""
    try:
        answer = await deps.reads.run(lambda: deps.control("explain", handle=handle, index=index))
    except TransientError as error:
        return {}, str(error)
    return dict(answer), ""
