"""The api process's application: routes, errors, and the edge around them.

It sits behind the intake's proxy on a Unix socket. `create_app` takes more handlers (the console's) and a door (the console's
sessions); alone it serves the HTTP API to keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig

from tallystick.api import (
    alerts,
    delivery,
    erasures,
    events,
    holds,
    live,
    management,
    metrics,
    openapi,
    quarantine,
    report,
    retention,
    reviews,
    statements,
    status,
    tlog,
)
from tallystick.api.caller import Caller
from tallystick.api.deps import ApiDeps
from tallystick.api.door_keys import KeyDoor
from tallystick.api.edge import Door, Edge
from tallystick.api.erasing import Eraser
from tallystick.api.params import check_request
from tallystick.http.problem import Problem

BODY_BYTES_MAX = 1 << 20
_MODULES = (
    events,
    alerts,
    erasures,
    live,
    status,
    statements,
    metrics,
    management,
    delivery,
    quarantine,
    retention,
    holds,
    reviews,
    report,
    tlog,
    openapi,
)


def create_app(deps: ApiDeps, handlers: Sequence[Any] = (), door: Door | None = None) -> Litestar:
    """The application over ``deps``. It closes them when it ends."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        eraser = asyncio.create_task(Eraser(deps).run())
        try:
            yield
        finally:
            eraser.cancel()
            await asyncio.gather(eraser, return_exceptions=True)
            await deps.close()

    app = Litestar(
        route_handlers=[*(handler for module in _MODULES for handler in module.HANDLERS), *handlers],
        dependencies={"deps": Provide(lambda: deps, sync_to_thread=False), "caller": Provide(provide_caller, sync_to_thread=False)},
        before_request=check_request,
        openapi_config=OpenAPIConfig(
            title=openapi.TITLE, version=openapi.VERSION, path="/unserved", render_plugins=[], use_handler_docstrings=True
        ),
        request_max_body_size=BODY_BYTES_MAX,
        logging_config=None,
        lifespan=[lifespan],
        state=State({"deps": deps}),
        exception_handlers={Exception: _let_through},
    )
    app.asgi_handler = Edge(app.asgi_handler, door or KeyDoor(deps), is_tls=deps.config.server.tls is not None)
    return app


def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """The caller that the edge found; open paths have none, and their handlers do not ask."""
    caller: Caller | None = request.scope["state"].get("caller")
    if caller is None:
        raise Problem(401, "unauthenticated", "this needs a key")
    return caller


def _let_through(_: Request[Any, Any, Any], error: Exception) -> Any:
    """Every error is rendered at one place, the edge."""
    raise error
