"""The senders' doors: `POST /v1/events` and `POST /v1/in/<source>`.

Order of checks, so that nothing is read or spent for a request that will be refused: method, key, permission, parameters, content
type, length, then the body, then its events. Every refusal is a problem document; only a durable outcome is a 200.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import cast

from tallystick.errors import EventInvalidError
from tallystick.event.codec import ReadBatch, Shape
from tallystick.http.access import AccessKeys, AuthError
from tallystick.http.limits import BodyHold, BodyReader
from tallystick.http.logins import LoginGuard
from tallystick.http.problem import Problem
from tallystick.plugin import Record
from tallystick.protocols import cloudevents
from tallystick.sources.answer import ReceiptSigner, encode_answer
from tallystick.sources.asgi import Receive, Scope, choice, headers_of, query_of
from tallystick.sources.intake import TOO_MANY_EVENTS, IntakeService
from tallystick.sources.plan import EVENTS, OnInvalid
from tallystick.sources.submission import (
    ConflictingLinesError,
    Draft,
    ForbiddenTenantError,
    InvalidBatchError,
    Sender,
    problem_lines,
)

_IDEMPOTENCY_KEY = re.compile(rb"[A-Za-z0-9._:-]{1,96}")
_NDJSON = frozenset({b"application/x-ndjson", b"application/ndjson", b"application/jsonl"})


@dataclass(frozen=True, slots=True)
class _Wishes:
    """The query parameters of a sender's request."""

    on_invalid: OnInvalid
    is_signed: bool
    wants_results: bool

    @classmethod
    def of(cls, scope: Scope, default: OnInvalid) -> _Wishes:
        """Raises Problem 400 for a parameter or a value that is not known."""
        params = query_of(scope, ("on_invalid", "receipt", "results"))
        return cls(
            cast("OnInvalid", choice(params, "on_invalid", ("reject", "quarantine"), default)),
            choice(params, "receipt", ("plain", "signed"), "plain") == "signed",
            choice(params, "results", ("false", "true"), "false") == "true",
        )


@dataclass(frozen=True, slots=True)
class _Door:
    service: IntakeService
    keys: AccessKeys
    bodies: BodyReader
    signer: ReceiptSigner
    logins: LoginGuard

    async def __call__(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        """Status and body of the answer. Raises Problem for a request that is refused as a whole, PushbackError for now."""
        try:
            return await self._take(scope, receive)
        except InvalidBatchError as error:
            raise invalid_problem(error) from None
        except ForbiddenTenantError as error:
            raise Problem(403, error.code, str(error)) from None
        except ConflictingLinesError as error:
            lines = [{"line": line, "pointer": "/id", "message": "other content under this id"} for line in error.lines]
            raise Problem(409, error.code, error.message, lines) from None

    async def _take(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        raise NotImplementedError

    def _sender(self, scope: Scope, headers: dict[bytes, bytes]) -> Sender:
        """Who the key belongs to. Raises Problem 401, 403 or 429."""
        try:
            key = self.keys.verify(headers.get(b"authorization"))
        except AuthError as error:
            raise self.logins.failed(scope["client"][0] if scope.get("client") else "", error) from None
        if not key.may("ingest"):
            raise Problem(403, "permission_missing", "this key has no permission `ingest`")
        return Sender(key.id, key.tenants)

    async def _body(self, sender: Sender, headers: dict[bytes, bytes], receive: Receive, hold: BodyHold) -> bytes:
        """The whole body, charged to the key."""
        quotas = self.service.quotas
        body = await self.bodies.read(headers, receive, hold)
        quotas.charge_body(sender.credential, len(body))
        return body

    async def _commit(self, draft: Draft, wishes: _Wishes) -> tuple[int, bytes]:
        outcome = await self.service.commit(draft, wants_results=wishes.wants_results)
        encode = partial(encode_answer, is_signed=wishes.is_signed)
        return 200, await self.service.work(draft, encode, outcome, self.signer)


class EventsDoor(_Door):
    """`POST /v1/events`: one object, an array, NDJSON or CloudEvents."""

    __slots__ = ()

    async def _take(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        headers = headers_of(scope)
        sender = self._sender(scope, headers)
        wishes = _Wishes.of(scope, "reject")
        media, key = media_type(headers), idempotency_key(headers)
        self.service.quotas.admit(sender.credential, sender.only_tenant)
        with self.bodies.hold(sender.lane) as hold:
            body = await self._body(sender, headers, receive, hold)
            draft = self.service.draft(self.service.plan(EVENTS), sender, on_invalid=wishes.on_invalid, idempotency_key=key)
            await self._read(draft, media, headers, body)
            return await self._commit(draft, wishes)

    async def _read(self, draft: Draft, media: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
        if media in _NDJSON:
            await self.service.read(draft, body, "ndjson")
        elif media == b"application/json" and b"ce-specversion" not in headers:
            await self.service.read(draft, body, json_shape(body))
        else:
            try:
                records = cloudevents.read(media.decode(), headers, body)
            except EventInvalidError as error:
                fault = ReadBatch()
                fault.refuse(error, body)
                self.service.take(draft, fault)
            else:
                self.service.read_records(draft, records, cloudevents.received(media.decode(), body))


class SourceDoor(_Door):
    """`POST /v1/in/<source>`: records of a product, mapped; bad ones are kept in the quarantine."""

    __slots__ = ()

    async def _take(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        headers = headers_of(scope)
        sender = self._sender(scope, headers)
        plan = self.service.plan(scope["path"][len("/v1/in/") :])
        if plan.mapping is None:
            raise Problem(404, "not_found", "there is no such source")
        wishes = _Wishes.of(scope, plan.on_invalid)
        media, key = media_type(headers, default=b"application/x-ndjson"), idempotency_key(headers)
        self.service.quotas.admit(sender.credential, plan.tenant or sender.only_tenant)
        peer = scope["client"][0] if scope.get("client") else ""
        with self.bodies.hold(plan.tenant or sender.lane) as hold:
            body = await self._body(sender, headers, receive, hold)
            draft = self.service.draft(plan, sender, on_invalid=wishes.on_invalid, idempotency_key=key, peer=peer)
            await self.service.map_records(draft, split_records(body, media, peer))
            return await self._commit(draft, wishes)


def split_records(body: bytes, media: bytes, peer: str) -> list[Record]:
    """NDJSON is a record a line; anything else is one record, which a mapping may unwrap."""
    if media in _NDJSON:
        return [Record(line, number, peer) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    return [Record(body, 1, peer)] if body.strip() else []


def media_type(headers: dict[bytes, bytes], default: bytes = b"") -> bytes:
    """The media type without parameters. Raises Problem 415 for a type or charset that is not read."""
    text = headers.get(b"content-type", default).lower()
    media, _, parameters = text.partition(b";")
    media = media.strip()
    charset = re.search(rb"charset\s*=\s*\"?([\w-]+)", parameters)
    if charset and charset[1] not in (b"utf-8", b"utf8", b"us-ascii"):
        raise Problem(415, "charset_unsupported", "only UTF-8 is read")
    if media not in _NDJSON and media != b"application/json" and not media.startswith(b"application/cloudevents"):
        detail = "send application/json, application/x-ndjson or application/cloudevents+json"
        raise Problem(415, "media_type_unsupported", detail, headers={"accept": "application/json, application/x-ndjson"})
    return media


def json_shape(body: bytes) -> Shape:
    """An array when the first byte that is no blank opens one."""
    return "array" if body.lstrip(b" \t\r\n\xef\xbb\xbf")[:1] == b"[" else "object"


def idempotency_key(headers: dict[bytes, bytes]) -> str:
    """The header's value, fit to be the first part of ids. Raises Problem 400."""
    value = headers.get(b"idempotency-key", b"")
    if value and not _IDEMPOTENCY_KEY.fullmatch(value):
        raise Problem(400, "idempotency_key_invalid", "Idempotency-Key is 1 to 96 of A-Z, a-z, 0-9 and ._:-")
    return value.decode("ascii")


def invalid_problem(error: InvalidBatchError) -> Problem:
    """400 when nothing could be read as JSON, 413 for too many events, 422 when records are no events."""
    if error.bad[0].error.code == TOO_MANY_EVENTS:
        return Problem(413, TOO_MANY_EVENTS, error.bad[0].error.message)
    status, code = (400, error.bad[0].error.code) if error.is_unreadable else (422, error.code)
    return Problem(status, code, error.message, problem_lines(error.bad))
