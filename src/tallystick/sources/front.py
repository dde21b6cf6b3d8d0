"""The public ASGI application of the intake process: senders' doors, health, and the way through to the api process.

Bare ASGI, no framework: between the socket and the journal there is only what a request needs.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from tallystick.errors import NotFoundError, PushbackError, QuotaExceededError
from tallystick.event.entropy import random_piece
from tallystick.http.host import HostCheck
from tallystick.http.limits import ClientGoneError
from tallystick.http.problem import Problem
from tallystick.http.proxy import UnixProxy
from tallystick.http.security import with_security_headers
from tallystick.sources.asgi import Receive, Scope, Send, respond
from tallystick.sources.doors import EventsDoor, SourceDoor
from tallystick.telemetry import log

Door = Callable[[Scope, Receive], Awaitable[tuple[int, bytes]]]


@dataclass(frozen=True, slots=True)
class Front:
    """Routes one request. ``not_ready`` gives the reasons why intake would refuse, empty when it would not.

    ``pushback_delay_s``: whoever is told to slow down is told a little later, with the rest of its body unread meanwhile. A
    sender that does not listen would else have its bodies received and thrown away as fast as it can send them.
    """

    events: EventsDoor
    sources: SourceDoor
    proxy: UnixProxy
    hosts: HostCheck
    not_ready: Callable[[], list[str]]
    is_tls: bool = False
    pushback_delay_s: float = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request_id = random_piece()[:8].hex()
        try:
            self.hosts.check(scope)
            door = self._door(scope)
            if door is None:
                await self.proxy(scope, receive, send)
                return
            status, body = await _through(door, scope, receive, request_id)
        except ClientGoneError:
            return
        except Problem as problem:
            await self._refuse(send, problem, request_id)
        except PushbackError as error:
            await asyncio.sleep(self.pushback_delay_s)
            await self._refuse(send, pushback_problem(error), request_id)
        except NotFoundError as error:
            await self._refuse(send, Problem(404, error.code, error.message), request_id)
        else:
            await respond(send, status, body, with_security_headers([(b"content-type", b"application/json")], is_tls=self.is_tls))

    def _door(self, scope: Scope) -> Door | None:
        path = scope["path"]
        if path == "/v1/events" and scope["method"] not in ("GET", "HEAD"):
            return _only("POST", scope, self.events)
        if path.startswith("/v1/in/"):
            return _only("POST", scope, self.sources)
        if path == "/healthz/live":
            return _only("GET", scope, _live)
        if path == "/healthz/ready":
            return _only("GET", scope, self._ready)
        return None

    async def _refuse(self, send: Send, problem: Problem, request_id: str) -> None:
        body = problem.body(request_id)
        headers = [line for line in problem.header_lines(body) if line[0] != b"content-length"]
        headers.append((b"x-request-id", request_id.encode()))
        await respond(send, problem.status, body, with_security_headers(headers, is_tls=self.is_tls))

    async def _ready(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        reasons = self.not_ready()
        return (503 if reasons else 200), msgspec.json.encode({"ready": not reasons, "reasons": reasons})


async def _through(door: Door, scope: Scope, receive: Receive, request_id: str) -> tuple[int, bytes]:
    """The door's answer. What no door foresees goes to the log, and nothing of it to the sender."""
    try:
        return await door(scope, receive)
    except (ClientGoneError, Problem, PushbackError, NotFoundError):
        raise
    except Exception as error:
        log.exception("request failed", request_id=request_id, path=scope["path"])
        raise Problem(500, "internal", "this request failed; the log has the request id") from error


async def _live(scope: Scope, receive: Receive) -> tuple[int, bytes]:
    return 200, b'{"live":true}'


def _only(method: str, scope: Scope, door: Door) -> Door:
    if scope["method"] == method or (method == "GET" and scope["method"] == "HEAD"):
        return door
    allowed = "GET, HEAD" if method == "GET" else "GET, HEAD, POST" if scope["path"] == "/v1/events" else method
    raise Problem(405, "method_not_allowed", f"this path takes {allowed}", headers={"allow": allowed})


def pushback_problem(error: PushbackError) -> Problem:
    """429 for a quota, else 503, with the error's advice in whole seconds, at least one."""
    seconds = max(1, math.ceil(error.retry_after_s))
    status = 429 if isinstance(error, QuotaExceededError) else 503
    return Problem(status, error.code, error.message, headers={"retry-after": str(seconds)})
