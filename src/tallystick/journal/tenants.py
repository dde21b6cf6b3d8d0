"""The tenants of one installation: names, and the handles under which all else keeps them.

`tenants.{a,b}` in the data directory is a `StateFile` with JSON
``{"v":1,"tenants":[{"name","handle","created_at"}]}``, in order of creation. The intake alone writes it, before the first
frame of a tenant; it is saved twice, so that either slot alone still names every handle in use.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from pathlib import Path

import msgspec

from tallystick.durable import StateFile
from tallystick.errors import EventInvalidError, IntegrityError, TallystickError

SERVER_TENANT = "_tallystick"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Tenant(msgspec.Struct, frozen=True):
    """``handle`` is 16 random characters of lower-case base32, fixed for ever; ``created_at`` is Unix seconds."""

    name: str
    handle: str
    created_at: float


class UnknownTenantError(TallystickError):
    """In a worker: the tenant ``name`` is new here, and only the writer can make it (`TenantRegistry.fetch`)."""

    code = "tenant_unknown"

    def __init__(self, name: str) -> None:
        super().__init__(f"the tenant {name!r} is not known here")
        self.name = name


class _Register(msgspec.Struct):
    v: int
    tenants: list[Tenant]


def is_tenant_name(name: str) -> bool:
    """True for a name that a sender may use; the server's own tenant is not among them."""
    return _NAME.fullmatch(name) is not None


class TenantRegistry:
    """Names to handles. The intake creates; other processes `reload` when they meet an unknown name or handle."""

    def __init__(self, data_dir: Path) -> None:
        self._state = StateFile(data_dir / "tenants")
        self._by_name: dict[str, Tenant] = {}
        self._by_handle: dict[str, Tenant] = {}
        self.reload()

    def get(self, name: str) -> Tenant | None:
        """The tenant of that name, as last loaded."""
        return self._by_name.get(name)

    def by_handle(self, handle: str) -> Tenant | None:
        """The tenant with that handle, as last loaded."""
        return self._by_handle.get(handle)

    def all(self) -> list[Tenant]:
        """Every tenant, oldest first."""
        return list(self._by_name.values())

    def create(self, name: str) -> Tenant:
        """The tenant of that name, made durably if it is new. Intake only. Raises EventInvalidError for a bad name, OSError."""
        found = self._by_name.get(name)
        if found is not None:
            return found
        if name != SERVER_TENANT and not is_tenant_name(name):
            raise EventInvalidError(
                "a tenant's name is 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit", pointer="/tenant"
            )
        tenant = Tenant(name, _new_handle(), time.time())
        payload = msgspec.json.encode(_Register(1, [*self._by_name.values(), tenant]))
        # A crash before the first save returned: no tenant, and no event of it was accepted. Between the two: the newer
        # slot is whole and the next creation repairs the other.
        self._state.save(payload)
        self._state.save(payload)
        self._admit(tenant)
        return tenant

    async def fetch(self, name: str) -> Tenant:
        """As `create`, for a registry whose `create` raises UnknownTenantError."""
        return self.create(name)

    def reload(self) -> None:
        """Read what the intake wrote since. Raises IntegrityError when the register is there but unreadable."""
        payload = self._state.load()
        if payload is None:
            if self._state.is_damaged():
                raise IntegrityError(
                    "the register of tenants is damaged", place=str(self._state.path), hint="Restore it from a backup"
                )
            return
        for tenant in msgspec.json.decode(payload, type=_Register).tenants:
            self._admit(tenant)

    def _admit(self, tenant: Tenant) -> None:
        self._by_name[tenant.name] = tenant
        self._by_handle[tenant.handle] = tenant


def _new_handle() -> str:
    return base64.b32encode(secrets.token_bytes(10)).decode().lower()
