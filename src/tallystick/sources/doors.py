"""The senders' doors: `POST /v1/events` and `POST /v1/in/<source>`.

Order of checks, so that nothing is read or spent for a request that will be refused: method, key, permission, parameters, content
type, length, then the body, then its events. Every refusal is a problem document; only a durable outcome is a 200.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
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
from tallystick.sources.asgi import Receive, Reply, Scope, choice, headers_of, peer_of, query_of
from tallystick.sources.intake import IntakeService
from tallystick.sources.plan import EVENTS, OnInvalid, SourcePlan
from tallystick.sources.submission import Draft, Sender

_IDEMPOTENCY_KEY = re.compile(rb"[A-Za-z0-9._:-]{1,96}")
_NDJSON = frozenset({b"application/x-ndjson", b"application/ndjson", b"application/jsonl"})


@dataclass(frozen=True, slots=True)
class Wishes:
    """The query parameters of a sender's request."""

    on_invalid: OnInvalid
    is_signed: bool
    wants_results: bool

    @classmethod
    def of(cls, scope: Scope, default: OnInvalid, ignored: Iterable[str] = ()) -> Wishes:
        """Raises Problem 400 for a parameter or a value that is not known; ``ignored`` ones may have any."""
        params = query_of(scope, ("on_invalid", "receipt", "results", *ignored))
        return cls(
            cast("OnInvalid", choice(params, "on_invalid", ("reject", "quarantine"), default)),
            choice(params, "receipt", ("plain", "signed"), "plain") == "signed",
            choice(params, "results", ("false", "true"), "false") == "true",
        )


@dataclass(frozen=True, slots=True)
class DoorParts:
    """What the doors have in common, and a door's part in every request: who sends, the body, the answer.

    ``derive`` gives 32 secret bytes of this installation for a purpose; ``not_ready`` the reasons why intake would refuse now, empty
    when it would not.
    """

    service: IntakeService
    keys: AccessKeys
    bodies: BodyReader
    signer: ReceiptSigner
    logins: LoginGuard
    derive: Callable[[str], bytes]
    not_ready: Callable[[], list[str]]

    def sender(self, scope: Scope, authorization: bytes | None) -> Sender:
        """Who the key belongs to. Raises Problem 401, 403 or 429."""
        try:
            key = self.keys.verify(authorization)
        except AuthError as error:
            raise self.logins.failed(peer_of(scope), error) from None
        if not key.may("ingest"):
            raise Problem(403, "permission_missing", "this key has no permission `ingest`")
        return Sender(key.id, key.tenants)

    async def body(self, sender: Sender, headers: dict[bytes, bytes], receive: Receive, hold: BodyHold) -> bytes:
        """The whole body, charged to the key."""
        body = await self.bodies.read(headers, receive, hold)
        self.service.quotas.charge_body(sender.credential, len(body))
        return body

    async def commit(self, draft: Draft, wishes: Wishes) -> Reply:
        """The answer with counts and receipts, once all is durable."""
        outcome = await self.service.commit(draft, wants_results=wishes.wants_results)
        encode = partial(encode_answer, is_signed=wishes.is_signed)
        return Reply(200, await self.service.work(draft, encode, outcome, self.signer))


@dataclass(frozen=True, slots=True)
class EventsDoor:
    """`POST /v1/events`: one object, an array, NDJSON or CloudEvents."""

    parts: DoorParts

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """The answer to one request."""
        parts, headers = self.parts, headers_of(scope)
        service = parts.service
        sender = parts.sender(scope, headers.get(b"authorization"))
        wishes = Wishes.of(scope, "reject")
        media, key = media_type(headers), idempotency_key(headers)
        service.quotas.admit(sender.credential, sender.only_tenant)
        with parts.bodies.hold(sender.lane) as hold:
            body = await parts.body(sender, headers, receive, hold)
            draft = service.draft(service.plan(EVENTS), sender, on_invalid=wishes.on_invalid, idempotency_key=key)
            await self._read(draft, media, headers, body)
            return await parts.commit(draft, wishes)

    async def _read(self, draft: Draft, media: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
        service = self.parts.service
        if media in _NDJSON:
            await service.read(draft, body, "ndjson")
        elif media == b"application/json" and b"ce-specversion" not in headers:
            await service.read(draft, body, json_shape(body))
        else:
            try:
                records = cloudevents.read(media.decode(), headers, body)
            except EventInvalidError as error:
                fault = ReadBatch()
                fault.refuse(error, body)
                service.take(draft, fault)
            else:
                service.read_records(draft, records, cloudevents.received(media.decode(), body))


@dataclass(frozen=True, slots=True)
class SourceDoor:
    """`POST /v1/in/<source>`: records of a product, mapped; bad ones are kept in the quarantine."""

    parts: DoorParts
    plan: SourcePlan

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """The answer to one request."""
        parts, plan, headers = self.parts, self.plan, headers_of(scope)
        service = parts.service
        sender = parts.sender(scope, headers.get(b"authorization"))
        wishes = Wishes.of(scope, plan.on_invalid)
        media, key = media_type(headers, default=b"application/x-ndjson"), idempotency_key(headers)
        service.quotas.admit(sender.credential, plan.tenant or sender.only_tenant)
        peer = peer_of(scope)
        with parts.bodies.hold(plan.tenant or sender.lane) as hold:
            body = await parts.body(sender, headers, receive, hold)
            draft = service.draft(plan, sender, on_invalid=wishes.on_invalid, idempotency_key=key, peer=peer)
            await service.map_records(draft, split_records(body, media, peer))
            return await parts.commit(draft, wishes)


@dataclass(frozen=True, slots=True)
class UnknownSourceDoor:
    """Every other path below `/v1/in/`. Only who has a key learns that there is nothing."""

    parts: DoorParts

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """Raises Problem 401, 403, 429 or 404."""
        self.parts.sender(scope, headers_of(scope).get(b"authorization"))
        raise Problem(404, "not_found", "there is no such source")


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
