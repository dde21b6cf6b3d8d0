"""The intake's inner door, `run/intake.sock`: how the other processes of this installation write.

There is one writer of the journal, so the api process (its audit events, replays, new tenants) and the dispatcher (delivery
receipts, statements) hand what they must make durable to this process and wait for its answer. The socket lies in the data
directory, mode 0600: whoever can open it could also read the journal's files.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from tallystick.errors import ConflictError, EventInvalidError, NotFoundError, TallystickError
from tallystick.event.stamp import REPLAYED, add_flag
from tallystick.http.problem import Problem
from tallystick.journal.entries import AccountEntry, Append
from tallystick.journal.tenants import SERVER_TENANT
from tallystick.plugin import Record
from tallystick.sources.asgi import Receive, Scope, Send, respond
from tallystick.sources.intake import IntakeService
from tallystick.sources.kind import load_kind
from tallystick.sources.plan import INNER
from tallystick.sources.refusal import problem_of
from tallystick.sources.submission import Outcome, Sender

_BODY_MAX = 64 * 2**20


class _Events(msgspec.Struct):
    tenant: str
    events: list[msgspec.Raw]


class _Records(msgspec.Struct):
    source: str
    records: list[str]
    tenant: str | None = None


class _Entry(msgspec.Struct):
    tenant: str
    id: str
    entry: dict[str, Any]


class _Account(msgspec.Struct):
    entries: list[_Entry]


class _Tenant(msgspec.Struct):
    name: str


@dataclass(frozen=True, slots=True)
class InnerDoor:
    """ASGI application of the inner socket. ``status`` gives the intake's own page."""

    service: IntakeService
    status: Callable[[], dict[str, Any]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        handlers: dict[tuple[str, str], Callable[[bytes], Awaitable[Any]]] = {
            ("POST", "/events"): self._events,
            ("POST", "/records"): self._records,
            ("POST", "/account"): self._account,
            ("POST", "/tenants"): self._tenants,
            ("GET", "/status"): self._status,
        }
        status, headers = 200, [(b"content-type", b"application/json")]
        try:
            handler = handlers.get((scope["method"], scope["path"]))
            if handler is None:
                raise Problem(404, "not_found", "the inner door has no such call")
            body = msgspec.json.encode(await handler(await _read(receive)))
        except (TallystickError, msgspec.MsgspecError) as error:
            problem = _problem(error)
            status, body, headers = problem.status, problem.body(""), problem.header_lines(b"")[:1]
            headers += [line for line in problem.header_lines(b"") if line[0] == b"retry-after"]
        await respond(send, status, body, headers)

    async def _events(self, body: bytes) -> dict[str, Any]:
        request = msgspec.json.decode(body, type=_Events)
        draft = self.service.draft(self.service.plan(INNER), Sender("", (request.tenant,), is_own=True))
        self.service.read_records(draft, [bytes(event) for event in request.events])
        return _summary(await self.service.commit(draft))

    async def _records(self, body: bytes) -> dict[str, Any]:
        request = msgspec.json.decode(body, type=_Records)
        plan = self.service.plan(request.source)
        draft = self.service.draft(plan, Sender("", (request.tenant,) if request.tenant else (), is_own=True), on_invalid="reject")
        records = [record.encode() for record in request.records]
        kind = load_kind(plan.type) if plan.settings is not None else None
        if kind is not None and kind.reread is not None:
            kind.reread(self.service, draft, records)
        elif plan.mapping is None:
            self.service.read_records(draft, records)
        else:
            await self.service.map_records(draft, [Record(record, line) for line, record in enumerate(records, 1)])
        # They come out of order and without their credential: what watches producers' numbers must pass them over.
        draft.said = ()
        for event in draft.events:
            add_flag(event, REPLAYED)
        return _summary(await self.service.commit(draft))

    async def _account(self, body: bytes) -> dict[str, Any]:
        request = msgspec.json.decode(body, type=_Account)
        entries = []
        for item in request.entries:
            tenant = self.service.tenants.get(item.tenant)
            if tenant is None:
                raise NotFoundError(f"there is no tenant {item.tenant!r}")
            entries.append(AccountEntry(handle=tenant.handle, id=item.id, entry=item.entry))
        await self.service.journal.append(Append(account=entries))
        return {"accepted": len(entries)}

    async def _tenants(self, body: bytes) -> dict[str, Any]:
        name = msgspec.json.decode(body, type=_Tenant).name
        if self.service.tenants.get(name) is not None:
            raise ConflictError(f"there is a tenant {name!r} already")
        if name == SERVER_TENANT:
            raise EventInvalidError("this name is the server's own", pointer="/name")
        tenant = self.service.tenants.create(name)
        return {"name": tenant.name, "handle": tenant.handle, "created_at": tenant.created_at}

    async def _status(self, body: bytes) -> dict[str, Any]:
        return self.status()


def _problem(error: TallystickError | msgspec.MsgspecError) -> Problem:
    """What a caller inside the installation is told; an error that no call should end with is raised."""
    if isinstance(error, TallystickError) and (problem := problem_of(error)) is not None:
        return problem
    if isinstance(error, ConflictError):
        return Problem(409, error.code, error.message)
    if isinstance(error, EventInvalidError | msgspec.MsgspecError):
        return Problem(422, "invalid", str(error))
    raise error


def _summary(outcome: Outcome) -> dict[str, Any]:
    return {
        "accepted": outcome.accepted,
        "duplicates": outcome.duplicates,
        "filtered": outcome.filtered,
        "quarantined": len(outcome.bad),
        "receipts": [{"log": tenant.handle, "ranges": [list(pair) for pair in tenant.ranges]} for tenant in outcome.tenants],
    }


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "disconnected", "the caller went away")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > _BODY_MAX:
            raise Problem(413, "body_too_large", "the inner door takes 64 MiB at most")
        if not message.get("more_body"):
            return b"".join(parts)
