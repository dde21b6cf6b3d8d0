"""The public ASGI application of the intake process: senders' doors, health, and the way through to the api process.

Bare ASGI, no framework: between the socket and the journal there is only what a request needs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tallystick.errors import OutcomeUnknownError, PushbackError
from tallystick.event.entropy import random_piece
from tallystick.http.host import HostCheck
from tallystick.http.limits import ClientGoneError
from tallystick.http.problem import Problem
from tallystick.http.protocol import HANG_UP
from tallystick.http.proxy import UnixProxy
from tallystick.http.security import with_security_headers
from tallystick.sources.asgi import Door, Receive, Reply, Scope, Send, respond
from tallystick.sources.refusal import forget_request, problem_of
from tallystick.sources.routes import Refuse, Routes, as_problem_document
from tallystick.telemetry import log


@dataclass(frozen=True, slots=True)
class Front:
    """Takes one request to its door, and its answer or refusal back.

    ``pushback_delay_s``: whoever is told to slow down is told a little later, with the rest of its body unread meanwhile. A
    sender that does not listen would else have its bodies received and thrown away as fast as it can send them.
    """

    routes: Routes
    proxy: UnixProxy
    hosts: HostCheck
    is_tls: bool = False
    pushback_delay_s: float = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request_id = random_piece()[:8].hex()
        refuse: Refuse = as_problem_document
        try:
            self.hosts.check(scope)
            route = self.routes.find(scope["path"])
            if route is None or scope["method"] in route.passed:
                await self.proxy(scope, receive, send)
                return
            refuse = route.refuse
            if scope["method"] not in route.methods:
                raise Problem(405, "method_not_allowed", f"this path takes {route.allowed}", headers={"allow": route.allowed})
            reply = await self._through(route.door, scope, receive, request_id)
        except ClientGoneError:
            return
        except OutcomeUnknownError:
            log.warning("request unanswered: its outcome is unknown", request_id=request_id, path=scope["path"])
            scope["extensions"][HANG_UP]()
        except Problem as problem:
            headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers.items()]
            headers.append((b"x-request-id", request_id.encode()))
            await self._answer(send, refuse(problem, scope, request_id), headers)
        else:
            await self._answer(send, reply, [])

    async def _through(self, door: Door, scope: Scope, receive: Receive, request_id: str) -> Reply:
        """The door's answer, or a Problem. What no door foresees goes to the log, and nothing of it to the sender."""
        try:
            return await door(scope, receive)
        except OutcomeUnknownError:
            raise
        except Exception as error:  # noqa: BLE001 - the edge: whatever it was, it becomes an answer
            if problem_of(error) is None:
                log.exception("request failed", request_id=request_id, path=scope["path"])
            forget_request(error)
            if isinstance(error, PushbackError):
                await asyncio.sleep(self.pushback_delay_s)
            raise (problem_of(error) or Problem(500, "internal", "this request failed; the log has the request id")) from None

    async def _answer(self, send: Send, reply: Reply, headers: list[tuple[bytes, bytes]]) -> None:
        lines = with_security_headers([(b"content-type", reply.media), *headers], is_tls=self.is_tls)
        await respond(send, reply.status, reply.body, lines)
