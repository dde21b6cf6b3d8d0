"""The log as other people's clients read it: C2SP tlog-tiles (``/log/<handle>/…``, ``/log/<handle>/account/…``, ``/log/root/…``).

Permission ``verify``, or none with ``[log] public = true``; entry bundles hold the events themselves and always need
``read`` and sight of the tenant. Beyond the last signed head there is nothing: only what is signed is shown.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.params import PathParameter

from tallystick.api.caller import Caller, no_such, require, require_server_wide
from tallystick.api.deps import ApiDeps, DepsDep
from tallystick.api.params import request_id_of
from tallystick.errors import NotFoundError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.origin import ROOT, account_origin, event_origin, root_origin, tree_name
from tallystick.evidence.tile_path import TILE_WIDTH, TileName, parse_tile_path, tile_width
from tallystick.evidence.trees import TreeFiles
from tallystick.http.problem import Problem

_IMMUTABLE = "private, max-age=31536000, immutable"
_FRESH = "private, max-age=2"
TileText = Annotated[str, PathParameter(description="A tile's name as in C2SP tlog-tiles.")]
Handle = Annotated[str, PathParameter(description="A tenant's handle, or `root`.", max_length=64)]


@dataclass(frozen=True, slots=True)
class Log:
    """One tree as the request names it. ``tenant`` is None for the root log."""

    origin: str
    tenant: str | None
    handle: str
    is_account: bool = False


@get(
    "/log/{handle:str}/checkpoint",
    operation_id="getCheckpoint",
    tags=["log"],
    summary="The last signed head of a log",
    media_type="text/plain",
)
async def get_checkpoint(request: Request[Any, Any, Any], deps: DepsDep, handle: Handle) -> Response[bytes]:
    """A signed note (C2SP tlog-checkpoint) over origin, size and root hash."""
    return _checkpoint(deps, _log(request, deps, handle))


@get(
    "/log/{handle:str}/account/checkpoint", operation_id="getAccountCheckpoint", tags=["log"], summary="The last signed head of an account log",
    media_type="text/plain",
)  # fmt: skip
async def get_account_checkpoint(request: Request[Any, Any, Any], deps: DepsDep, handle: Handle) -> Response[bytes]:
    """As for the event log."""
    return _checkpoint(deps, _log(request, deps, handle, is_account=True))


@get(
    "/log/{handle:str}/tile/{name:path}",
    operation_id="getTile",
    tags=["log"],
    summary="A tile of hashes, or a bundle of entries",
    media_type="application/octet-stream",
)
async def get_tile(request: Request[Any, Any, Any], deps: DepsDep, handle: Handle, name: TileText) -> Response[bytes]:
    """``<level>/<N>[.p/<width>]`` or ``entries/<N>[.p/<width>]`` as in C2SP tlog-tiles; immutable."""
    return await _tile(request, deps, handle, name, is_account=False)


@get(
    "/log/{handle:str}/account/tile/{name:path}", operation_id="getAccountTile", tags=["log"], summary="A tile of an account log",
    media_type="application/octet-stream",
)  # fmt: skip
async def get_account_tile(request: Request[Any, Any, Any], deps: DepsDep, handle: Handle, name: TileText) -> Response[bytes]:
    """As for the event log."""
    return await _tile(request, deps, handle, name, is_account=True)


def _log(request: Request[Any, Any, Any], deps: ApiDeps, handle: str, *, is_account: bool = False, is_entries: bool = False) -> Log:
    """The log that the path names, when this caller may read it. Raises Problem 401/403, NotFoundError."""
    caller: Caller | None = request.scope["state"].get("caller")
    if caller is None and (is_entries or not deps.config.log.public):
        raise Problem(401, "unauthenticated", "this needs a key")
    if caller is not None and (is_entries or not deps.config.log.public):
        require(caller, "read" if is_entries else "verify")
    if handle == ROOT:
        if is_account:
            raise no_such("log")
        return Log(root_origin(deps.server_name), None, ROOT)
    tenant = deps.tenants.by_handle(handle)
    if tenant is None:
        deps.tenants.reload()
        tenant = deps.tenants.by_handle(handle)
    if tenant is None or (caller is not None and (is_entries or not deps.config.log.public) and not caller.sees(tenant.name)):
        raise no_such("log")
    origin = (account_origin if is_account else event_origin)(deps.server_name, handle)
    return Log(origin, tenant.name, handle, is_account)


def _checkpoint(deps: ApiDeps, log: Log) -> Response[bytes]:
    deps.heads.refresh()
    head = deps.heads.head(log.origin)
    if head is None:
        raise NotFoundError("this log has no head yet")
    return Response(head.note.encode(), media_type="text/plain", headers={"cache-control": _FRESH})


async def _tile(request: Request[Any, Any, Any], deps: ApiDeps, handle: str, name: str, *, is_account: bool) -> Response[bytes]:
    tile = parse_tile_path(f"tile/{name.lstrip('/')}")
    log = _log(request, deps, handle, is_account=is_account, is_entries=tile.level is None)
    head = deps.heads.head(log.origin)
    if head is None or tile.width > tile_width(tile.level, tile.number, head.size):
        deps.heads.refresh()
        head = deps.heads.head(log.origin)
    if head is None or tile.width > tile_width(tile.level, tile.number, head.size):
        raise NotFoundError("the log has no such tile yet")
    if tile.level is None:
        caller: Caller = request.scope["state"]["caller"]
        if log.handle == ROOT:
            require_server_wide(caller, "read")
        await deps.log_reads.note(caller, log.origin, log.tenant, tile.number * TILE_WIDTH, request_id_of(request))
    size = head.size
    body = await deps.reads.run(lambda: _read(deps, log, tile, size))
    return Response(body, media_type="application/octet-stream", headers={"cache-control": _IMMUTABLE})


def _read(deps: ApiDeps, log: Log, tile: TileName, size: int) -> bytes:
    directory = deps.data_dir / "trees" / tree_name(log.origin)
    if tile.level is None:
        first = tile.number * TILE_WIDTH
        if log.tenant is None or log.is_account:
            entries = _account_entries(directory, size, first, tile.width)
        else:
            entries = deps.engine.entries(log.tenant, first, tile.width)
        return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)
    tree = TreeFiles(directory, size)
    try:
        return tree.tile(tile.level, tile.number, tile.width)
    finally:
        tree.close()


def _account_entries(directory: Path, size: int, first: int, count: int) -> list[bytes]:
    log = AccountLog(directory, size)
    try:
        return log.entries(first, count)
    finally:
        log.close()


HANDLERS = [get_checkpoint, get_account_checkpoint, get_tile, get_account_tile]
