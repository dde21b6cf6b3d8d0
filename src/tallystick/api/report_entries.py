"""What account trees and the root log say of a period: their entries, by type, read in blocks.

Entries begin with their type, so what is not wanted is passed over without decoding it. They have no index by time: each is looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from tallystick.api.deps import ApiDeps
from tallystick.evidence.account import AccountLog
from tallystick.evidence.origin import account_origin, root_origin, tree_dir, tree_name

_BLOCK = 2_000


@dataclass(frozen=True, slots=True)
class Period:
    """``start`` inclusive, ``end`` exclusive."""

    start: datetime
    end: datetime

    def holds(self, text: Any) -> bool:
        """Whether a time (RFC 3339) lies in it; what is no time does not."""
        if not isinstance(text, str):
            return False
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return False
        return self.start <= (at if at.tzinfo else at.replace(tzinfo=UTC)) < self.end


def account_entries(deps: ApiDeps, tenants: Collection[str], types: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(tenant, entry) of each entry of these types in the account trees. Blocking. Raises IntegrityError."""
    deps.heads.refresh()
    for name in tenants:
        tenant = deps.tenants.get(name)
        if tenant is not None:
            for entry in _entries(deps, account_origin(deps.server_name, tenant.handle), types):
                yield name, entry


def root_entries(deps: ApiDeps, types: Collection[str]) -> Iterator[dict[str, Any]]:
    """Entries of these types in the root log. Blocking. Raises IntegrityError."""
    deps.heads.refresh()
    return _entries(deps, root_origin(deps.server_name), types)


def _entries(deps: ApiDeps, origin: str, types: Collection[str]) -> Iterator[dict[str, Any]]:
    head = deps.heads.head(origin)
    if head is None or head.size == 0:
        return
    begins = tuple(b'{"type":"%b"' % name.encode() for name in types)
    log = AccountLog(tree_dir(deps.data_dir, tree_name(origin)), head.size)
    try:
        for first in range(0, head.size, _BLOCK):
            for line in log.entries(first, min(_BLOCK, head.size - first)):
                if line.startswith(begins):
                    entry: dict[str, Any] = msgspec.json.decode(line)
                    entry.pop("salt", None)
                    yield entry
    finally:
        log.close()
