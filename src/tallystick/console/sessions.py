"""Console sessions: kept here, in memory; the browser holds only a random name in a cookie.

A session is good while it is used (idle timeout), for a working day at most, and while its key is: the key is looked up again
with every request, so revoking it ends the session too. Only hashes of the names are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from tallystick.http.problem import Problem

IDLE_S = 30 * 60.0
LIFETIME_S = 12 * 3_600.0
_SESSIONS_MAX = 10_000


@dataclass(slots=True)
class Session:
    """``csrf`` must come back with every form."""

    key_id: str
    csrf: str
    started_at: float
    used_at: float


class Sessions:
    """All sessions of this process, oldest use first; past the bound the one unused longest ends."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def start(self, key_id: str) -> str:
        """A new session; returns the cookie's value."""
        name = secrets.token_urlsafe(32)
        now = self._clock()
        self._sessions[_digest(name)] = Session(key_id, secrets.token_urlsafe(32), now, now)
        while len(self._sessions) > _SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return name

    def find(self, name: str) -> Session | None:
        """The live session of that cookie, marked as used."""
        digest = _digest(name)
        session = self._sessions.get(digest)
        if session is None:
            return None
        now = self._clock()
        if now - session.used_at > IDLE_S or now - session.started_at > LIFETIME_S:
            del self._sessions[digest]
            return None
        session.used_at = now
        self._sessions.move_to_end(digest)
        return session

    def end(self, name: str) -> None:
        """Forget the session; the cookie is worth nothing from now on."""
        self._sessions.pop(_digest(name), None)


def check_form(csrf: str, sent: str, origin: str | None, own_origin: str) -> None:
    """A state-changing post must carry the session's token and come from our own pages. Raises the 403 problem."""
    check_origin(origin, own_origin)
    if not hmac.compare_digest(csrf.encode(), sent.encode()):
        raise Problem(403, "csrf", "this form is not from your session; load the page again")


def check_origin(origin: str | None, own_origin: str) -> None:
    """Raises the 403 problem unless the browser says that the post comes from our own pages."""
    if origin != own_origin:
        raise Problem(403, "origin", "this post did not come from the console's own pages")


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "replace")).digest()
