"""One event's tlog-proof out of the tree files, up to the tenant's last signed head."""

from __future__ import annotations

import asyncio

from tallystick.api.deps import ApiDeps
from tallystick.errors import NotFoundError, TransientError
from tallystick.evidence.origin import event_origin, tree_name
from tallystick.evidence.proof import build_proof
from tallystick.evidence.trees import TreeFiles

_WAIT_S = 2.0
_STEP_S = 0.05


class NotSealedError(TransientError):
    """The event is on disk, and no signed head covers it yet."""

    code = "not_sealed"


async def build_event_proof(deps: ApiDeps, tenant: str, index: int) -> str:
    """The proof's text. Waits a moment for a fresh event's head. Raises NotSealedError, IntegrityError."""
    found = deps.tenants.get(tenant)
    if found is None:
        raise NotFoundError("no such tenant")
    origin = event_origin(deps.server_name, found.handle)
    head = None
    for _ in range(int(_WAIT_S / _STEP_S)):
        head = deps.heads.head(origin)
        if head is not None and head.size > index:
            break
        deps.heads.refresh()
        head = deps.heads.head(origin)
        if head is not None and head.size > index:
            break
        await asyncio.sleep(_STEP_S)
    if head is None or head.size <= index:
        raise NotSealedError("the event is on disk and not sealed yet", hint="Try again in a moment")
    size, note = head.size, head.note
    path = await deps.reads.run(lambda: _inclusion(deps, origin, index, size))
    return build_proof(index, path, note)


def _inclusion(deps: ApiDeps, origin: str, index: int, size: int) -> list[bytes]:
    tree = TreeFiles(deps.data_dir / "trees" / tree_name(origin), size)
    try:
        return tree.inclusion(index, size)
    finally:
        tree.close()
