"""Quarantine: records that could not become events, to look at and, once the reason is mended, to send in again."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from litestar.params import PathParameter, QueryParameter

from tallystick.api.caller import Caller, no_such, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import PageLimit, TenantParam, request_id_of
from tallystick.api.search import visible_tenants
from tallystick.archive.quarantine import Quarantined
from tallystick.errors import NotFoundError
from tallystick.http.problem import Problem

RecordId = Annotated[int, PathParameter(description="The record's number in the journal.", ge=0, le=2**62)]


class RecordView(msgspec.Struct, kw_only=True):
    """A record without its bytes. ``id`` is its number in the journal; ``tenant`` null when it belongs to none."""

    id: int
    tenant: str | None
    source: str
    code: str
    message: str
    received_at: str
    line: int
    peer: str
    state: Literal["waiting", "replayed"]


class RecordDetail(RecordView, kw_only=True):
    """With its bytes: as text when they are UTF-8, else in base64."""

    data: str
    encoding: Literal["utf-8", "base64"]


class RecordList(msgspec.Struct, kw_only=True):
    records: list[RecordView]
    next: int | None


@get("/v1/quarantine", operation_id="listQuarantine", tags=["quarantine"], summary="Records that could not become events")
async def list_quarantine(
    caller: CallerDep,
    deps: DepsDep,
    tenant: TenantParam = None,
    source: Annotated[str | None, QueryParameter(name="source", description="Only records of this source.", max_length=128)] = None,
    record_state: Annotated[
        Literal["waiting", "replayed"] | None, QueryParameter(name="state", description="Only records in this state.")
    ] = None,
    after: Annotated[int, QueryParameter(name="after", description="Continue after this id.", ge=-1, le=2**62)] = -1,
    limit: PageLimit = 100,
) -> RecordList:
    """In journal order; ``next`` goes into ``after``."""
    require(caller, "read", "operate")
    handles = visible_handles(deps, caller, tenant)
    is_waiting = None if record_state is None else record_state == "waiting"
    return await deps.reads.run(lambda: list_records(deps, handles, source, is_waiting, after, limit))


def visible_handles(deps: DepsDep, caller: CallerDep, tenant: str | None) -> list[str] | None:
    """Handles that the caller's records may have; None for all, those of no tenant included."""
    if tenant is None and caller.is_server_wide:
        return None
    found = (deps.tenants.get(name) for name in visible_tenants(deps, caller, tenant))
    return [item.handle for item in found if item is not None]


def list_records(
    deps: ApiDeps, handles: list[str] | None, source: str | None, is_waiting: bool | None, after: int, limit: int
) -> RecordList:
    """One page, with messages. Blocking."""
    seqs: list[int] = []
    while len(seqs) <= limit:
        rows = deps.quarantine.list(handles, after_seq=after, limit=limit + 1, is_waiting=is_waiting)
        seqs += [row.seq for row, _ in rows if source in (None, row.source)]
        if len(rows) <= limit:
            break
        after = rows[-1][0].seq
    has_more = len(seqs) > limit
    records = deps.quarantine.read(seqs[:limit], handles) if seqs else []
    views = [RecordView(**_view(deps, found)) for found in records]
    return RecordList(records=views, next=views[-1].id if has_more else None)


@get("/v1/quarantine/{record_id:int}", operation_id="getQuarantined", tags=["quarantine"], summary="One record with its bytes")
async def get_quarantined(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, record_id: RecordId) -> RecordDetail:
    """Reading it is on record, as reading an event is."""
    require(caller, "read")
    found = await _found(deps, caller, record_id)
    view = _view(deps, found)
    await deps.auditor.record(
        caller,
        "quarantine.read",
        tenants=[view["tenant"]] if view["tenant"] else (),
        target=("quarantined_record", str(record_id)),
        request_id=request_id_of(request),
    )
    try:
        return RecordDetail(**view, data=found.record.data.decode(), encoding="utf-8")
    except UnicodeDecodeError:
        return RecordDetail(**view, data=base64.b64encode(found.record.data).decode(), encoding="base64")


@post(
    "/v1/quarantine/{record_id:int}/replay",
    operation_id="replayQuarantined",
    tags=["quarantine"],
    summary="Try it again",
    status_code=200,
)
async def replay_quarantined(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, record_id: RecordId
) -> dict[str, Any]:
    """Goes through its source's mapping as configured now. Doing it twice stores the event once. 422 when it still fails."""
    return await replay_record(deps, caller, record_id, request_id_of(request))


async def replay_record(deps: ApiDeps, caller: Caller, record_id: int, request_id: str) -> dict[str, Any]:
    """Replay on record; the record is marked after the intake has its event on disk. Raises Problem, PushbackError."""
    require(caller, "operate")
    found = await _found(deps, caller, record_id)
    if found.is_replayed:
        raise Problem(409, "already_settled", "this record was replayed already")
    tenant = _tenant_of(deps, found)
    try:
        text = found.record.data.decode()
    except UnicodeDecodeError as error:
        raise Problem(422, "not_text", "this record is not UTF-8 and cannot become an event; download it instead") from error
    await deps.auditor.record(
        caller,
        "quarantine.replay",
        tenants=[tenant] if tenant else (),
        target=("quarantined_record", str(record_id)),
        request_id=request_id,
        details={"source": found.record.source},
    )
    answer = await deps.door.append_records(found.record.source, tenant, [text])
    await deps.reads.run(lambda: deps.quarantine.mark_replayed([record_id]))
    return {"id": record_id, "done": "replay", "accepted": answer.get("accepted", 0), "duplicates": answer.get("duplicates", 0)}


async def _found(deps: ApiDeps, caller: Caller, record_id: int) -> Quarantined:
    handles = visible_handles(deps, caller, None)
    try:
        return await deps.reads.run(lambda: deps.quarantine.get(record_id, handles))
    except NotFoundError as error:
        raise no_such("record") from error


def _tenant_of(deps: ApiDeps, found: Quarantined) -> str | None:
    handle = found.record.handle
    tenant = deps.tenants.by_handle(handle) if handle else None
    return tenant.name if tenant else None


def _view(deps: ApiDeps, found: Quarantined) -> dict[str, Any]:
    record = found.record
    return {
        "id": found.seq,
        "tenant": _tenant_of(deps, found),
        "source": record.source,
        "code": record.code,
        "message": record.message,
        "received_at": record.received_at,
        "line": record.line,
        "peer": record.peer,
        "state": "replayed" if found.is_replayed else "waiting",
    }


HANDLERS = [list_quarantine, get_quarantined, replay_quarantined]
