"""``/v1/statements``: the last signed statement of each tenant at each destination, as it was signed."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import get
from litestar.params import QueryParameter

from tallystick.api.caller import no_such, require
from tallystick.api.deps import CallerDep, DepsDep
from tallystick.api.params import TenantParam
from tallystick.api.search import visible_tenants
from tallystick.delivery.statement import read_statements
from tallystick.evidence.statement import statement_key_name


class StatementView(msgspec.Struct, kw_only=True):
    """``note`` is the signed note: accepted = delivered + filtered + dead-lettered + pending."""

    destination: str
    tenant: str
    note: str


class StatementList(msgspec.Struct, kw_only=True):
    """``key`` is the public key that signs statements."""

    key: str
    statements: list[StatementView]


@get("/v1/statements", operation_id="listStatements", tags=["delivery"], summary="Signed statements: what became of the events")
async def list_statements(
    caller: CallerDep,
    deps: DepsDep,
    tenant: TenantParam = None,
    destination: Annotated[
        str | None, QueryParameter(name="destination", description="Only this destination.", max_length=128)
    ] = None,
) -> StatementList:
    """One per tenant and destination; a later one of the same range has a higher revision."""
    require(caller, "read", "verify")
    if destination is not None and destination not in deps.config.destinations:
        raise no_such("destination")
    names = [name for name in deps.config.destinations if destination in (None, name)]
    tenants = None if tenant is None and caller.is_server_wide else set(visible_tenants(deps, caller, tenant))
    views = await deps.reads.run(lambda: _read(deps, names, tenants))
    return StatementList(key=deps.vkey(statement_key_name(deps.server_name)), statements=views)


def _read(deps: DepsDep, destinations: list[str], tenants: set[str] | None) -> list[StatementView]:
    views = []
    for destination in destinations:
        for handle, note in read_statements(deps.data_dir, destination).items():
            found = deps.tenants.by_handle(handle)
            if found is not None and (tenants is None or found.name in tenants):
                views.append(StatementView(destination=destination, tenant=found.name, note=note))
    return views


HANDLERS = [list_statements]
