"""Who is asking, and what they may do. Permissions are exact: none implies another.

What a caller may not see does not exist for them: another tenant's thing is answered like a missing one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tallystick.errors import NotFoundError
from tallystick.http.problem import Problem

Permission = Literal["ingest", "read", "open", "verify", "operate", "keys", "approve"]


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated key, direct or behind a console session. ``tenants`` is empty for a key bound to no tenant: it sees all."""

    key_id: str
    owner: str
    tenants: tuple[str, ...]
    permissions: frozenset[str]
    via: Literal["key", "console"] = "key"
    csrf: str = ""

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def sees(self, tenant: str) -> bool:
        return not self.tenants or tenant in self.tenants

    @property
    def is_server_wide(self) -> bool:
        return not self.tenants


def require(caller: Caller, *permissions: Permission) -> None:
    """Raises the 403 problem when the key has none of ``permissions``."""
    if not any(caller.may(permission) for permission in permissions):
        names = " or ".join(f"`{permission}`" for permission in permissions)
        raise Problem(403, "permission_missing", f"this key has no permission {names}")


def require_server_wide(caller: Caller, permission: Permission) -> None:
    """As `require`, and the key must be bound to no tenant: the thing concerns the whole server."""
    require(caller, permission)
    if not caller.is_server_wide:
        raise Problem(403, "server_wide", "only a key bound to no tenant may do this")


def require_sight(caller: Caller, tenant: str) -> None:
    """Raises NotFoundError for a tenant that this key does not see, in the words used for one that does not exist."""
    if not caller.sees(tenant):
        raise no_such("tenant")


def no_such(kind: str) -> NotFoundError:
    """The one answer for missing and for not yours."""
    return NotFoundError(f"no such {kind}")
