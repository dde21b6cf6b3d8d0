"""``/v1/tail``: events as they are accepted, as server-sent events.

Each message is ``id: <tenant>/<index>`` and ``data: <canonical line>``. A comment every few seconds keeps the connection; ``event:
missed`` says how many events this listener was too slow for. The session is on record, and it ends when its key does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from litestar import Request, get
from litestar.response import Stream

from tallystick.api.caller import require
from tallystick.api.deps import CallerDep, DepsDep
from tallystick.api.params import QueryText, TenantParam, request_id_of
from tallystick.api.search import Asked, build_request, record_search
from tallystick.api.tail import Tailed
from tallystick.errors import OverloadedError
from tallystick.query.evaluate import compile_query

_IDLE_S = 5.0
Render = Callable[[Tailed], bytes]


@get(
    "/v1/tail",
    operation_id="tailEvents",
    tags=["events"],
    summary="Live events, as server-sent events",
    media_type="text/event-stream",
)
async def tail(
    request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, text: QueryText = "", tenant: TenantParam = None
) -> Stream:
    """Begins with what is accepted from now on; there is no going back: search for what was before."""
    stream = await open_tail(deps, caller, text, tenant, request_id_of(request), as_message)
    request.scope["state"]["closers"] = [stream.aclose]
    return Stream(stream, media_type="text/event-stream")


async def open_tail(
    deps: DepsDep, caller: CallerDep, query: str, tenant: str | None, request_id: str, render: Render
) -> AsyncGenerator[bytes, None]:
    """A recorded tail session as a stream of rendered messages. Raises QueryError, NotFoundError, OverloadedError."""
    require(caller, "read")
    asked = Asked(query, tenant=tenant)
    built = build_request(deps, caller, asked)
    matches = compile_query(query)
    if deps.tail.is_full:
        raise OverloadedError("too many live tails are open", retry_after_s=30)
    await record_search(deps, caller, asked, built.tenants, "tail", request_id)
    is_all = tenant is None and caller.is_server_wide
    return _messages(deps, caller, None if is_all else frozenset(built.tenants), matches, render)


async def _messages(
    deps: DepsDep, caller: CallerDep, tenants: frozenset[str] | None, matches: Callable[[dict[str, Any]], bool], render: Render
) -> AsyncGenerator[bytes, None]:
    yield b": from now on\n\n"
    with deps.tail.listen(tenants, matches) as listener:
        async for event in listener.events(_IDLE_S):
            if not deps.is_active(caller):
                yield b"event: closed\ndata: the key was revoked or has expired\n\n"
                return
            if listener.missed:
                missed, listener.missed = listener.missed, 0
                yield b"event: missed\ndata: %d\n\n" % missed
            yield render(event) if event is not None else b": still here\n\n"


def as_message(event: Tailed) -> bytes:
    """The canonical line has no line break, so it is one data field."""
    return b"id: %b/%d\ndata: %b\n\n" % (event.tenant.encode(), event.index, event.line)


HANDLERS = [tail]
