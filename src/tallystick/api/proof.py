"""One event's tlog-proof out of the tree files, up to the tenant's last signed head, and on to the root log if wanted."""

from __future__ import annotations

import asyncio
from functools import partial

from tallystick.api.deps import ApiDeps
from tallystick.errors import IntegrityError, NotFoundError, TransientError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.heads import Head
from tallystick.evidence.origin import event_origin, root_origin, tree_name
from tallystick.evidence.proof import build_proof
from tallystick.evidence.trees import TreeFiles

_WAIT_S = 2.0
_STEP_S = 0.05


class NotSealedError(TransientError):
    """The event is on disk, and no signed head covers it yet."""

    code = "not_sealed"


async def build_event_proof(deps: ApiDeps, tenant: str, index: int, *, is_chain: bool = False) -> str:
    """The proof's text, with ``is_chain`` up to the root log (EVIDENCE.md 1.7). Waits a moment for a fresh event's head.

    Raises NotSealedError, IntegrityError.
    """
    found = deps.tenants.get(tenant)
    if found is None:
        raise NotFoundError("no such tenant")
    origin = event_origin(deps.server_name, found.handle)
    for _ in range(int(_WAIT_S / _STEP_S)):
        deps.heads.refresh()
        rooted = deps.heads.rooted(origin) if is_chain else None
        head = rooted[0] if rooted else (None if is_chain else deps.heads.head(origin))
        if head is not None and head.size > index:
            proof = await deps.reads.run(partial(_prove, deps, head, index))
            return proof + (await _root_proof(deps, rooted[1]) if rooted else "")
        await asyncio.sleep(_STEP_S)
    where = "in the root log" if is_chain else "sealed"
    raise NotSealedError(f"the event is on disk and not {where} yet", hint="Try again in a moment")


async def _root_proof(deps: ApiDeps, entry_index: int) -> str:
    origin = root_origin(deps.server_name)
    head = deps.heads.head(origin)
    if head is None or head.size <= entry_index:
        raise IntegrityError("the root log's head does not cover an entry that it quotes", place=origin)
    return await deps.reads.run(lambda: _prove(deps, head, entry_index, _entry(deps, head, entry_index)))


def _entry(deps: ApiDeps, head: Head, index: int) -> bytes:
    log = AccountLog(deps.data_dir / "trees" / tree_name(head.origin), head.size)
    try:
        return log.entry(index)
    finally:
        log.close()


def _prove(deps: ApiDeps, head: Head, index: int, extra: bytes | None = None) -> str:
    tree = TreeFiles(deps.data_dir / "trees" / tree_name(head.origin), head.size)
    try:
        return build_proof(index, tree.inclusion(index, head.size), head.note, extra)
    finally:
        tree.close()
