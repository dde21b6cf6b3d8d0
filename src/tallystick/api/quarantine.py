"""Quarantine: records that could not become events, to look at and, once the reason is mended, to send in again."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from litestar.params import PathParameter, QueryParameter

from tallystick.api.caller import Caller, no_such, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import PageLimit, TenantParam, request_id_of
from tallystick.api.search import visible_tenants
from tallystick.archive.quarantine import Quarantined
from tallystick.errors import NotFoundError, TerminalError
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


class QuarantineCountView(msgspec.Struct, kw_only=True):
    """Records of one source with one reason. ``mapping`` is the file or name that the source is configured with now, null without one;
    ``sample`` is the id of one of the records, the newest that waits if any does."""

    tenant: str | None
    source: str
    mapping: str | None
    code: str
    count: int
    waiting: int
    sample: int


class QuarantineCounts(msgspec.Struct, kw_only=True):
    counts: list[QuarantineCountView]


@get("/v1/quarantine/counts", operation_id="countQuarantine", tags=["quarantine"], summary="How many, by tenant, source and reason")
async def count_quarantine(caller: CallerDep, deps: DepsDep, tenant: TenantParam = None) -> QuarantineCounts:
    """Replayed ones are in ``count``, and not in ``waiting``."""
    require(caller, "read", "operate")
    handles = visible_handles(deps, caller, tenant)
    return QuarantineCounts(counts=await deps.reads.run(lambda: count_records(deps, handles)))


def count_records(deps: ApiDeps, handles: list[str] | None) -> list[QuarantineCountView]:
    """Blocking."""
    return [
        QuarantineCountView(
            tenant=_tenant_of(deps, found.handle),
            source=found.source,
            mapping=deps.config.sources.get(found.source, {}).get("mapping"),
            code=found.code,
            count=found.count,
            waiting=found.waiting,
            sample=found.sample,
        )
        for found in deps.quarantine.counts(handles)
    ]


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
    tenant = _tenant_of(deps, found.record.handle)
    text = _text_of(found)
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


class ReplayFailure(msgspec.Struct, kw_only=True):
    """A record that still is no event, or none that can be sent in again, and why."""

    id: int
    code: str
    message: str


class ReplayReport(msgspec.Struct, kw_only=True):
    """``tried`` records: those replayed and the ``failed``. ``next`` goes into ``after``; null: there are no more."""

    tried: int
    accepted: int
    duplicates: int
    failed: list[ReplayFailure]
    next: int | None


@post(
    "/v1/quarantine/replay",
    operation_id="replayManyQuarantined",
    tags=["quarantine"],
    summary="Try the waiting records of a source again",
    status_code=200,
)
async def replay_many_quarantined(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    source: Annotated[str, QueryParameter(name="source", description="Records of this source.", max_length=128)],
    code: Annotated[str | None, QueryParameter(name="code", description="Only those with this reason.", max_length=128)] = None,
    tenant: TenantParam = None,
    after: Annotated[int, QueryParameter(name="after", description="Continue after this id.", ge=-1, le=2**62)] = -1,
    limit: PageLimit = 100,
) -> ReplayReport:
    """One page of them, each by itself: one that still fails holds up no other, and doing it twice stores no event twice."""
    filters = Waiting(visible_handles(deps, caller, tenant), source, code)
    return await replay_waiting(deps, caller, filters, after, limit, request_id_of(request))


@dataclass(frozen=True, slots=True)
class Waiting:
    """Which of the records that wait. ``code`` None: whatever the reason."""

    handles: list[str] | None
    source: str
    code: str | None


async def replay_waiting(deps: ApiDeps, caller: Caller, which: Waiting, after: int, limit: int, request_id: str) -> ReplayReport:
    """On record as one act; each record is marked after the intake has its event on disk. Raises Problem, PushbackError."""
    require(caller, "operate")
    seqs, has_more = await deps.reads.run(lambda: _find(deps, which, after, limit))
    report = ReplayReport(tried=len(seqs), accepted=0, duplicates=0, failed=[], next=seqs[-1] if has_more else None)
    if not seqs:
        return report
    records = await deps.reads.run(lambda: deps.quarantine.read(seqs, which.handles))
    tenants = {_tenant_of(deps, found.record.handle) for found in records}
    await deps.auditor.record(
        caller,
        "quarantine.replay",
        tenants=sorted(name for name in tenants if name),
        target=("source", which.source),
        request_id=request_id,
        details={"code": which.code, "first": seqs[0], "last": seqs[-1], "records": len(seqs)},
    )
    for found in records:
        try:
            answer = await deps.door.append_records(found.record.source, _tenant_of(deps, found.record.handle), [_text_of(found)])
        except (Problem, TerminalError) as error:
            message = error.detail if isinstance(error, Problem) else error.message
            report.failed.append(ReplayFailure(id=found.seq, code=error.code, message=message))
            continue
        await deps.reads.run(partial(deps.quarantine.mark_replayed, [found.seq]))
        report.accepted += answer.get("accepted", 0)
        report.duplicates += answer.get("duplicates", 0)
    return report


def _find(deps: ApiDeps, which: Waiting, after: int, limit: int) -> tuple[list[int], bool]:
    """Ids of the next ``limit`` records, and whether there are more behind them. Blocking."""
    seqs: list[int] = []
    while len(seqs) <= limit:
        rows = deps.quarantine.list(which.handles, after_seq=after, limit=limit + 1, is_waiting=True)
        seqs += [row.seq for row, _ in rows if row.source == which.source and which.code in (None, row.code)]
        if len(rows) <= limit:
            break
        after = rows[-1][0].seq
    return seqs[:limit], len(seqs) > limit


def _text_of(found: Quarantined) -> str:
    try:
        return found.record.data.decode()
    except UnicodeDecodeError as error:
        raise Problem(422, "not_text", "this record is not UTF-8 and cannot become an event; download it instead") from error


async def _found(deps: ApiDeps, caller: Caller, record_id: int) -> Quarantined:
    handles = visible_handles(deps, caller, None)
    try:
        return await deps.reads.run(lambda: deps.quarantine.get(record_id, handles))
    except NotFoundError as error:
        raise no_such("record") from error


def _tenant_of(deps: ApiDeps, handle: str) -> str | None:
    tenant = deps.tenants.by_handle(handle) if handle else None
    return tenant.name if tenant else None


def _view(deps: ApiDeps, found: Quarantined) -> dict[str, Any]:
    record = found.record
    return {
        "id": found.seq,
        "tenant": _tenant_of(deps, record.handle),
        "source": record.source,
        "code": record.code,
        "message": record.message,
        "received_at": record.received_at,
        "line": record.line,
        "peer": record.peer,
        "state": "replayed" if found.is_replayed else "waiting",
    }


HANDLERS = [list_quarantine, count_quarantine, get_quarantined, replay_quarantined, replay_many_quarantined]
