"""Keys and tenants: the management calls that change who may do what.

A key can give away only what it is itself bound to: a key of one tenant makes, sees and revokes keys of that tenant alone,
and none with more permissions than its own. The secret is in the answer to the creation and nowhere else.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, delete, get, post
from litestar.params import JSONBody, PathParameter
from msgspec import Meta

from tallystick.api.caller import Caller, no_such, require, require_server_wide
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import request_id_of
from tallystick.errors import IntegrityError
from tallystick.event.model import TenantName
from tallystick.evidence.origin import event_origin
from tallystick.http.access import PERMISSIONS, AccessKey
from tallystick.http.problem import Problem
from tallystick.journal.tenants import Tenant

Text = Annotated[str, Meta(max_length=256, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]


class KeyRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of POST /v1/keys. ``expires_at`` is RFC 3339 with a zone; absent means the key does not expire."""

    owner: Annotated[str, Meta(min_length=1, max_length=256, pattern=r"\A[^\x00-\x1f\x7f]+\Z")]
    purpose: Text = ""
    permissions: Annotated[list[str], Meta(min_length=1, max_length=16)]
    tenants: Annotated[list[TenantName], Meta(max_length=1_000)] = []
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class KeyView(msgspec.Struct, kw_only=True):
    """A key without its secret. Times are RFC 3339."""

    id: str
    owner: str
    purpose: str
    tenants: list[str]
    permissions: list[str]
    created_at: str | None
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None


class KeyCreated(KeyView, kw_only=True):
    """The one answer that has the secret."""

    secret: str


class KeyList(msgspec.Struct, kw_only=True):
    keys: list[KeyView]


class TenantRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: TenantName


class TenantView(msgspec.Struct, kw_only=True):
    """``handle`` is the tenant's name in log origins and URLs, ``origin`` its event log's."""

    name: str
    handle: str
    created_at: str
    origin: str


class TenantList(msgspec.Struct, kw_only=True):
    tenants: list[TenantView]


@post("/v1/keys", operation_id="createKey", tags=["keys"], summary="Make a key; the secret is shown once", status_code=201)
async def create_key(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, data: JSONBody[KeyRequest]) -> KeyCreated:
    """The new key may have at most the permissions and tenants of the one that makes it."""
    require(caller, "keys")
    unknown = [name for name in data.permissions if name not in PERMISSIONS]
    if unknown:
        raise Problem(
            400,
            "permission_unknown",
            f"unknown permission; known are {', '.join(PERMISSIONS)}",
            errors=[{"pointer": "/permissions", "message": f"unknown: {name[:64]}"} for name in unknown],
        )
    _check_gift(caller, data)
    if data.expires_at is not None and data.expires_at <= datetime.now(UTC):
        raise Problem(
            400, "expiry_past", "the key would be expired already", errors=[{"pointer": "/expires_at", "message": "is past"}]
        )
    await deps.auditor.record(
        caller,
        "key.create",
        tenants=data.tenants,
        request_id=request_id_of(request),
        details={
            "owner": data.owner,
            "purpose": data.purpose,
            "permissions": sorted(set(data.permissions)),
            "tenants": list(data.tenants),
        },
    )
    key, secret = await deps.reads.run(
        lambda: deps.access.create(data.owner, data.purpose, list(data.tenants), sorted(set(data.permissions)), data.expires_at)
    )
    return KeyCreated(**_key(key), secret=secret)


def _check_gift(caller: Caller, data: KeyRequest) -> None:
    more = sorted(set(data.permissions) - caller.permissions)
    if more:
        raise Problem(403, "permission_missing", f"a key cannot give away what it has not: {', '.join(more)}")
    if caller.tenants and (not data.tenants or not set(data.tenants) <= set(caller.tenants)):
        raise Problem(403, "tenant_forbidden", "a key bound to tenants makes keys for those tenants alone; name them in `tenants`")


@get("/v1/keys", operation_id="listKeys", tags=["keys"], summary="Keys without their secrets")
async def list_keys(caller: CallerDep, deps: DepsDep) -> KeyList:
    """A key bound to tenants sees the keys that are bound to some of those and to no other."""
    require(caller, "keys")
    keys = await deps.reads.run(deps.access.list)
    return KeyList(keys=[KeyView(**_key(key)) for key in keys if _manages(caller, key)])


@delete("/v1/keys/{key_id:str}", operation_id="revokeKey", tags=["keys"], summary="Revoke a key", status_code=204)
async def revoke_key(
    request: Request[Any, Any, Any],
    caller: CallerDep,
    deps: DepsDep,
    key_id: Annotated[str, PathParameter(description="The key's id.", max_length=64)],
) -> None:
    """It stops working within five seconds, on open connections too. Revoking twice is no error."""
    require(caller, "keys")
    keys = await deps.reads.run(deps.access.list)
    key = next((item for item in keys if item.id == key_id and _manages(caller, item)), None)
    if key is None:
        raise no_such("key")
    await deps.auditor.record(
        caller,
        "key.revoke",
        tenants=key.tenants,
        target=("key", key_id),
        request_id=request_id_of(request),
        details={"owner": key.owner},
    )
    await deps.reads.run(lambda: deps.access.revoke(key_id))


def _manages(caller: CallerDep, key: AccessKey) -> bool:
    return not caller.tenants or (bool(key.tenants) and set(key.tenants) <= set(caller.tenants))


def _key(key: AccessKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "owner": key.owner,
        "purpose": key.purpose,
        "tenants": list(key.tenants),
        "permissions": sorted(key.permissions),
        "created_at": rfc3339(key.created_at),
        "expires_at": rfc3339(key.expires_at),
        "last_used_at": rfc3339(key.last_used_at),
        "revoked_at": rfc3339(key.revoked_at),
    }


@post("/v1/tenants", operation_id="createTenant", tags=["tenants"], summary="Make a tenant", status_code=201)
async def create_tenant(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, data: JSONBody[TenantRequest]
) -> TenantView:
    """Its handle, the name in origins and URLs, is fixed now."""
    require_server_wide(caller, "operate")
    deps.tenants.reload()
    if deps.tenants.get(data.name) is not None:
        raise Problem(409, "tenant_exists", "a tenant of that name exists")
    await deps.auditor.record(caller, "tenant.create", target=("tenant", data.name), request_id=request_id_of(request))
    await deps.door.create_tenant(data.name)
    deps.tenants.reload()
    tenant = deps.tenants.get(data.name)
    if tenant is None:
        raise IntegrityError("the intake made a tenant that its register does not show", place=data.name)
    return _tenant(deps, tenant)


@get("/v1/tenants", operation_id="listTenants", tags=["tenants"], summary="Tenants and their handles")
async def list_tenants(caller: CallerDep, deps: DepsDep) -> TenantList:
    """Those that the key sees, oldest first."""
    require(caller, "read", "verify", "operate", "keys")
    deps.tenants.reload()
    return TenantList(tenants=[_tenant(deps, tenant) for tenant in deps.tenants.all() if caller.sees(tenant.name)])


def _tenant(deps: ApiDeps, tenant: Tenant) -> TenantView:
    created = rfc3339(tenant.created_at) or ""
    return TenantView(
        name=tenant.name, handle=tenant.handle, created_at=created, origin=event_origin(deps.server_name, tenant.handle)
    )


def rfc3339(moment: datetime | float | None) -> str | None:
    """A moment (Unix seconds or aware datetime) as text in UTC."""
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


HANDLERS = [create_key, list_keys, revoke_key, create_tenant, list_tenants]
