"""Who may come in: a key, as for the API, or a browser with a console session.

A session's cookie opens only what changes nothing (GET, HEAD) and the console's own forms, which carry a token. Without either a
browser gets the sign-in page, still as a 401.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from tallystick.api.caller import Caller
from tallystick.api.deps import ApiDeps
from tallystick.api.door_keys import KeyDoor, caller_of
from tallystick.api.edge import Scope
from tallystick.console.pages import render_bytes
from tallystick.console.sessions import Session, Sessions
from tallystick.http.problem import Problem

_HTML = b"text/html; charset=utf-8"
_FOR_PROGRAMS = ("/v1/", "/log/", "/metrics", "/openapi.json")
_OPEN = frozenset({"/login", "/static"})


class ConsoleDoor(KeyDoor):
    """The `edge.Door` of a server with console."""

    def __init__(self, deps: ApiDeps, sessions: Sessions) -> None:
        super().__init__(deps)
        self._sessions = sessions
        self.cookie_name = "__Host-tallystick" if deps.config.server.tls is not None else "tallystick"

    async def identify(self, scope: Scope) -> Caller | None:
        """The key's caller, else the session's while its key stands. Raises the 400 and 401 problems for bad keys."""
        caller = await super().identify(scope)
        if caller is not None:
            return caller
        is_api = scope["path"].startswith(_FOR_PROGRAMS)
        if is_api and scope["method"] not in ("GET", "HEAD"):
            return None
        session = self.session(scope)
        key = self._deps.access.live(session.key_id) if session else None
        if session is None or key is None:
            return None
        found = caller_of(key)
        return Caller(found.key_id, found.owner, found.tenants, found.permissions, via="console", csrf=session.csrf)

    def session(self, scope: Scope) -> Session | None:
        """The live session of the request's cookie."""
        name = self.cookie_of(scope)
        return self._sessions.find(name) if name else None

    def cookie_of(self, scope: Scope) -> str:
        """The cookie's value, or empty."""
        for header, value in scope["headers"]:
            if header == b"cookie":
                try:
                    cookie = SimpleCookie(value.decode("latin-1")).get(self.cookie_name)
                except CookieError:
                    continue
                if cookie is not None:
                    return cookie.value
        return ""

    def is_open(self, path: str) -> bool:
        """The sign-in page and the static files besides what is open anyway."""
        return super().is_open(path) or "/" + path.split("/")[1] in _OPEN

    def render(self, scope: Scope, problem: Problem, request_id: str) -> tuple[bytes, bytes]:
        """A page for a browser that asks for one, the sign-in page for a stranger; a problem document for everything else."""
        accepts = b",".join(value for name, value in scope["headers"] if name == b"accept")
        if b"text/html" not in accepts or scope["path"].startswith(_FOR_PROGRAMS):
            return super().render(scope, problem, request_id)
        frame = {"caller": None, "server_name": self._deps.server_name}
        if problem.status == 401:
            query = scope.get("query_string", b"").decode("latin-1")
            target = quote(scope["path"]) + (f"?{query}" if query else "")
            return _HTML, render_bytes("login.html", **frame, message="", code="", next=target)
        return _HTML, render_bytes("error.html", **frame, problem=problem, request_id=request_id)
