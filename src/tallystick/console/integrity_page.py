"""The integrity page: what is signed, by which keys, and how to check it without this software."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import BaseRouteHandler

from tallystick.api.caller import Caller, require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.console.pages import render
from tallystick.console.prove import prove_commands
from tallystick.evidence.origin import ROOT, account_origin, event_origin, root_origin


@dataclass(frozen=True, slots=True)
class LogView:
    """One signed tree. ``note`` is its checkpoint, ``rooted`` how much of it the root log quotes."""

    name: str
    origin: str
    path: str
    size: int
    root: str
    note: str
    vkey: str
    rooted: str


@get("/integrity", include_in_schema=False)
async def show_integrity(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep) -> Response[bytes]:
    """The logs that the caller sees."""
    require(caller, "read", "verify")
    logs = await deps.reads.run(lambda: _logs(deps, caller))
    scheme = "https" if deps.config.server.tls is not None else "http"
    url = f"{scheme}://{request.headers.get('host', '')}"
    root = next((log for log in logs if log.path == ROOT), None)
    shown = next((log for log in logs if log is not root and log.size), None)
    commands = prove_commands(url, root.vkey, shown.path, shown.size, shown.name) if root and shown else []
    return render(
        "integrity.html",
        page="Integrity",
        caller=caller,
        server_name=deps.server_name,
        reasons=[],
        root=root,
        logs=[log for log in logs if log is not root],
        commands=commands,
    )


def _logs(deps: ApiDeps, caller: Caller) -> list[LogView]:
    deps.heads.refresh()
    deps.tenants.reload()
    views = [_view(deps, "root log", root_origin(deps.server_name), ROOT)]
    for tenant in deps.tenants.all():
        if caller.sees(tenant.name):
            views.append(_view(deps, tenant.name, event_origin(deps.server_name, tenant.handle), tenant.handle))
            account = account_origin(deps.server_name, tenant.handle)
            views.append(_view(deps, f"{tenant.name}, account", account, f"{tenant.handle}/account"))
    return [view for view in views if view is not None]


def _view(deps: ApiDeps, name: str, origin: str, path: str) -> LogView | None:
    head = deps.heads.head(origin)
    if head is None:
        return None
    quoted = deps.heads.rooted(origin)
    rooted = "" if path == ROOT else "not yet" if quoted is None else f"{quoted[0].size:,} of {head.size:,}"
    return LogView(name, origin, path, head.size, head.root.hex(), head.note, deps.vkey(origin), rooted)


HANDLERS: list[BaseRouteHandler] = [show_integrity]
