"""The operator's line above the list of events (`[console] notice`), shown until this browser has read it.

Which notice was read is all that the cookie says (a digest of the text), so another text is shown again.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter

from tallystick.api.caller import require
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.console.entrance import local_path

_COOKIE = "tallystick-notice"
_KEPT_S = 365 * 86_400
Next = Annotated[str, QueryParameter(name="next", max_length=32_768)]


@get("/notice/read", include_in_schema=False, status_code=303)
async def dismiss_notice(caller: CallerDep, deps: DepsDep, target: Next = "/") -> Response[bytes]:
    """Not to be shown again in this browser; back to where one was."""
    require(caller, "read")
    answer = Response(b"", status_code=303, headers={"location": local_path(target)}, media_type="text/plain")
    answer.set_cookie(
        key=_COOKIE,
        value=_digest(deps.config.console.notice),
        path="/",
        secure=deps.config.server.tls is not None,
        httponly=True,
        samesite="strict",
        max_age=_KEPT_S,
    )
    return answer


def unread_notice(request: Request[Any, Any, Any], deps: ApiDeps) -> str:
    """The notice for this browser; empty when there is none, or when it was read."""
    text = deps.config.console.notice
    return "" if request.cookies.get(_COOKIE) == _digest(text) else text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


HANDLERS: list[BaseRouteHandler] = [dismiss_notice]
