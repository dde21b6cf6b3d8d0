"""Signing in and out, and the static files.

GET never starts a session: a link with a code shows a form that posts it, so that a link preview cannot use it up. Every attempt
is an event in the server's own log.
"""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.handlers import BaseRouteHandler
from litestar.params import PathParameter, QueryParameter

from tallystick.api.caller import Caller
from tallystick.api.deps import ApiDeps
from tallystick.api.door_keys import address_of, caller_of
from tallystick.api.params import request_id_of
from tallystick.console.door import ConsoleDoor
from tallystick.console.login import redeem_code
from tallystick.console.pages import render, static_file
from tallystick.console.sessions import Sessions, check_form, check_origin
from tallystick.http.access import AccessKey, AuthError

_FORM_BYTES_MAX = 16_384
CodeParam = Annotated[str, QueryParameter(name="code", description="A single-use code.", max_length=200)]
NextParam = Annotated[str, QueryParameter(name="next", description="The page to open then.", max_length=2_048)]


def entrance(deps: ApiDeps, sessions: Sessions, door: ConsoleDoor) -> list[BaseRouteHandler]:
    """The handlers."""
    is_tls = deps.config.server.tls is not None

    @get("/login", include_in_schema=False)
    async def show_login(code: CodeParam = "", target: NextParam = "/") -> Response[bytes]:
        return render("login.html", caller=None, server_name=deps.server_name, message="", code=code, next=local_path(target))

    @post("/login", include_in_schema=False, opt={"is_form": True}, status_code=303, request_max_body_size=_FORM_BYTES_MAX)
    async def log_in(request: Request[Any, Any, Any]) -> Response[bytes]:
        check_origin(request.headers.get("origin"), own_origin(request, is_tls=is_tls))
        form = await form_of(request)
        try:
            key = _key_of(deps, form)
        except AuthError as error:
            refusal = deps.logins.failed(address_of(request.scope), error)
            if refusal is not error:
                raise refusal from None
            text = "This link was used or is too old." if form.get("code") else "There is no such key, or it is not in force."
            return render(
                "login.html",
                401,
                caller=None,
                server_name=deps.server_name,
                message=text,
                code="",
                next=local_path(form.get("next")),
            )
        await deps.auditor.record(caller_of(key), "session.start", tenants=key.tenants, request_id=request_id_of(request))
        answer = Response(b"", status_code=303, headers={"location": local_path(form.get("next"))}, media_type="text/plain")
        _set_cookie(answer, door, sessions.start(key.id), is_tls=is_tls)
        return answer

    @post("/logout", include_in_schema=False, opt={"is_form": True}, status_code=303, request_max_body_size=_FORM_BYTES_MAX)
    async def log_out(request: Request[Any, Any, Any]) -> Response[bytes]:
        await checked_form(request, is_tls=is_tls)
        sessions.end(door.cookie_of(request.scope))
        answer = Response(b"", status_code=303, headers={"location": "/login"}, media_type="text/plain")
        _set_cookie(answer, door, "", is_tls=is_tls, max_age=0)
        return answer

    @get("/static/{name:str}", include_in_schema=False)
    async def static(request: Request[Any, Any, Any], name: Annotated[str, PathParameter()]) -> Response[bytes]:
        content, content_type, tag = static_file(name)
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(b"", status_code=304, headers=headers, media_type=content_type)
        return Response(content, media_type=content_type, headers=headers)

    return [show_login, log_in, log_out, static]


async def form_of(request: Request[Any, Any, Any]) -> dict[str, str]:
    """The fields of a posted form; a field given twice counts once, with its last value."""
    form = await request.form()
    return {name: value for name, value in form.items() if isinstance(value, str)}


async def checked_form(request: Request[Any, Any, Any], *, is_tls: bool) -> dict[str, str]:
    """The fields of a form that changes state. Raises the 403 problem unless it comes from this session's own pages."""
    form = await form_of(request)
    caller: Caller | None = request.scope["state"].get("caller")
    csrf = caller.csrf if caller is not None and caller.via == "console" else ""
    check_form(csrf or "none", form.get("csrf", ""), request.headers.get("origin"), own_origin(request, is_tls=is_tls))
    return form


def own_origin(request: Request[Any, Any, Any], *, is_tls: bool) -> str:
    """The origin of this server's pages as the browser sees it; the Host was checked at the listener."""
    return f"{'https' if is_tls else 'http'}://{request.headers.get('host', '')}"


def _key_of(deps: ApiDeps, form: dict[str, str]) -> AccessKey:
    """The key that a form names. Raises AuthError."""
    if not form.get("code"):
        try:
            return deps.access.verify(f"Bearer {form.get('key', '').strip()}")
        except UnicodeEncodeError:
            raise AuthError("key_invalid", "this is no access key") from None
    key_id = redeem_code(deps.data_dir, form["code"])
    key = deps.access.live(key_id) if key_id else None
    if key is None:
        raise AuthError("key_invalid", "no such code", key_id or "")
    return key


def local_path(target: str | None) -> str:
    """A path on this server, never another place."""
    if not target or not target.startswith("/") or target.startswith(("//", "/\\")) or any(ord(char) < 0x20 for char in target):
        return "/"
    return target.encode("ascii", "ignore").decode()


def _set_cookie(answer: Response[bytes], door: ConsoleDoor, value: str, *, is_tls: bool, max_age: int | None = None) -> None:
    answer.set_cookie(key=door.cookie_name, value=value, path="/", secure=is_tls, httponly=True, samesite="strict", max_age=max_age)
