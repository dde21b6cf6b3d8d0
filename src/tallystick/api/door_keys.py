"""Who may come in with an API key: ``Authorization: Bearer ts_…``, once, on every request."""

from __future__ import annotations

from tallystick.api.caller import Caller
from tallystick.api.deps import ApiDeps
from tallystick.api.edge import Scope
from tallystick.http.access import AccessKey, AuthError
from tallystick.http.problem import CONTENT_TYPE, Problem


class KeyDoor:
    """The `edge.Door` of a server without console."""

    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps

    async def identify(self, scope: Scope) -> Caller | None:
        """The caller of a bearer key. Raises the 400, 401 and 429 problems."""
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if not values:
            return None
        if len(values) > 1:
            raise Problem(400, "header_repeated", "the Authorization header is there more than once")
        try:
            return caller_of(self._deps.access.verify(values[0]))
        except AuthError as error:
            raise self._deps.logins.failed(address_of(scope), error) from None

    def is_open(self, path: str) -> bool:
        """With a public log, its checkpoints and tiles; their handlers keep the entries closed."""
        return self._deps.config.log.public and path.startswith("/log/")

    def render(self, scope: Scope, problem: Problem, request_id: str) -> tuple[bytes, bytes]:
        """RFC 9457."""
        return CONTENT_TYPE, problem.body(request_id)


def address_of(scope: Scope) -> str:
    """The client's address as our own proxy says it, the only way in; empty without one. Senders cannot set it (`http.proxy`)."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"), "")


def caller_of(key: AccessKey) -> Caller:
    """The key as the handlers see it."""
    return Caller(key.id, key.owner, tuple(key.tenants), frozenset(key.permissions))
