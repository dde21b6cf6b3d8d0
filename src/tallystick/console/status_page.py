"""The status page: how far every tenant's events have come, what is wrong, the sources, and the quarantine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.handlers import BaseRouteHandler
from litestar.params import PathParameter

from tallystick.api.caller import require
from tallystick.api.deps import CallerDep, DepsDep
from tallystick.api.params import request_id_of
from tallystick.api.quarantine import Waiting, count_records, list_records, replay_record, replay_waiting, visible_handles
from tallystick.api.status import build_status
from tallystick.console.entrance import checked_form
from tallystick.console.pages import render

_RECORDS_SHOWN = 50
REPLAYED_AT_ONCE = 1_000
RecordId = Annotated[int, PathParameter(description="A quarantined record.", ge=0, le=2**62)]


@dataclass(frozen=True, slots=True)
class TenantView:
    """A tenant's marks; ``unsealed`` and ``unarchived`` are how far each is behind the one before."""

    name: str
    accepted: int
    sealed: int
    archived: int

    @property
    def unsealed(self) -> int:
        return max(0, self.accepted - self.sealed)

    @property
    def unarchived(self) -> int:
        return max(0, self.sealed - self.archived)


@get("/status", include_in_schema=False)
async def show_status(caller: CallerDep, deps: DepsDep) -> Response[bytes]:
    """The same facts as /v1/status, to read."""
    require(caller, "read", "operate")
    status = await build_status(deps, caller)
    handles = visible_handles(deps, caller, None)
    records = await deps.reads.run(lambda: list_records(deps, handles, None, True, -1, _RECORDS_SHOWN))
    counts = await deps.reads.run(lambda: count_records(deps, handles))
    return render(
        "status.html",
        page="Status",
        caller=caller,
        server_name=deps.server_name,
        reasons=[],
        status=status,
        tenants=[TenantView(name, **row) for name, row in status["tenants"].items()],
        records=records.records,
        waiting=sum(count.waiting for count in counts),
        counts=counts,
        sources=status["sources"],
        may_operate=caller.may("operate"),
    )


@post("/quarantine/{record_id:int}/replay", include_in_schema=False, opt={"is_form": True}, status_code=303)
async def replay(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, record_id: RecordId) -> Response[bytes]:
    """Try a record again."""
    await checked_form(request, is_tls=deps.config.server.tls is not None)
    await replay_record(deps, caller, record_id, request_id_of(request))
    return Response(b"", status_code=303, headers={"location": "/status"}, media_type="text/plain")


@post("/quarantine/replay", include_in_schema=False, opt={"is_form": True}, status_code=303)
async def replay_all(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep) -> Response[bytes]:
    """Try the records of one source and reason again, as many as one page has."""
    form = await checked_form(request, is_tls=deps.config.server.tls is not None)
    which = Waiting(visible_handles(deps, caller, None), form.get("source", ""), form.get("code") or None)
    await replay_waiting(deps, caller, which, -1, REPLAYED_AT_ONCE, request_id_of(request))
    return Response(b"", status_code=303, headers={"location": "/status#quarantine"}, media_type="text/plain")


HANDLERS: list[BaseRouteHandler] = [show_status, replay, replay_all]
