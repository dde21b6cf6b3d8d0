"""Destination `webhook`: one signed POST per cut, at least once, with a stable id (Standard Webhooks, standardwebhooks.com).

    webhook-id          <tenant handle>-<first>-<last>-<hash>      the same for every attempt and after every restart
    webhook-timestamp   Unix seconds of this attempt
    webhook-signature   v1,<base64 HMAC-SHA256(secret, "<id>.<timestamp>.<body>")>   two of them while a secret is exchanged
    tallystick-log, tallystick-range, tallystick-checkpoint     which part of which log, and the signed note (base64)

The body is ``{"events":[…],"range":{"log","first_index","last_index"}}`` with the canonical lines as they are, or
each event in the encoding that the settings name. A receiver that keeps the ids it has seen gets each event once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from typing import Annotated, ClassVar

from msgspec import Meta

from tallystick.config import DestinationSettings
from tallystick.destinations.answers import NO_ANSWER, AnswerTable, Row
from tallystick.destinations.encodings.framing import Envelope
from tallystick.destinations.over_http import HttpDestination, HttpSettings
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut

SECRET_MIN = 16


class WebhookSettings(HttpSettings, frozen=True, kw_only=True):
    """`type = "webhook"`"""

    secret: Annotated[str, Meta(description="Signing secret, `whsec_…` (base64) or raw text of at least 16 bytes.")]
    previous_secret: Annotated[str | None, Meta(description="The old secret, signed with as well while receivers change over.")] = (
        None
    )

    def check(self) -> None:
        super().check()
        self.keys()

    def keys(self) -> list[bytes]:
        """The keys to sign with, the current one first. Raises ConfigError."""
        return [read_secret(secret) for secret in (self.secret, self.previous_secret) if secret is not None]


TABLE = AnswerTable(
    Row([range(200, 300)], AnswerKind.DELIVERED, "2xx", "delivered"),
    Row([413], AnswerKind.SPLIT, "413", "split the cut in halves; a single event is dead-lettered as too_large", "too_large"),
    Row([400, 422], AnswerKind.SPLIT, "400, 422", "split the cut in halves; a single event is dead-lettered as refused", "refused"),
    Row([429, 503], AnswerKind.THROTTLE, "429, 503", "throttle, as long as Retry-After says"),
    Row([408, 409, 425, range(500, 600)], AnswerKind.RETRY, "408, 409, 425, other 5xx", "retry"),
    Row([range(300, 500)], AnswerKind.PARK, "3xx (redirects are not followed), 401, 403, 404, 410, other 4xx", "park"),
)


class WebhookDestination(HttpDestination):
    """Signed POSTs to one URL."""

    settings: ClassVar[type[DestinationSettings]] = WebhookSettings
    guarantee: ClassVar[str] = "at least once, with stable ids"
    window: ClassVar[int] = 8
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=500, max_bytes=1 << 20, max_age_s=0.1)
    answers: ClassVar[dict[str, str]] = TABLE.published | NO_ANSWER

    def __init__(self, name: str, settings: WebhookSettings) -> None:
        super().__init__(name, settings, self.window)
        self.encoder = settings.make_encoder(framing="envelope")
        self._secrets = settings.keys()

    async def send(self, cut: Cut) -> Answer:
        proof = {
            "tallystick-log": cut.origin,
            "tallystick-range": f"{cut.first_index}-{cut.last_index}",
            "tallystick-checkpoint": base64.b64encode(cut.checkpoint.encode()).decode(),
        }
        return await self._post(f"{cut.handle}-{cut.name}", cut.body, proof)

    async def probe(self) -> Answer:
        """A signed POST without events; anything but the answers that park counts as accepting."""
        nothing = b'{"events":[]}' if self.encoder.content_type == Envelope.content_type else b"[]"
        answer = await self._post(f"probe-{secrets.token_hex(8)}", nothing, {})
        if answer.kind is AnswerKind.SPLIT:
            return Answer(AnswerKind.DELIVERED, where=answer.where)
        return answer

    async def _post(self, message_id: str, body: bytes, proof: dict[str, str]) -> Answer:
        stamp = str(int(time.time()))
        headers = {
            "content-type": self.encoder.content_type,
            "webhook-id": message_id,
            "webhook-timestamp": stamp,
            "webhook-signature": sign_message(self._secrets, message_id, stamp, body),
            **proof,
        }
        reply = await self._request("", body, headers)
        return reply if isinstance(reply, Answer) else TABLE.answer(reply, where=f"{self.shown_url} {message_id}")


def read_secret(text: str) -> bytes:
    """The key bytes of ``whsec_<base64>`` or of raw text. Raises ConfigError for one too short or not base64."""
    if text.startswith("whsec_"):
        try:
            key = base64.b64decode(text[6:], validate=True)
        except binascii.Error as error:
            raise ConfigError("the secret begins with whsec_ but is not base64 after it") from error
    else:
        key = text.encode()
    if len(key) < SECRET_MIN:
        raise ConfigError(f"the secret is shorter than {SECRET_MIN} bytes", hint="openssl rand -base64 32")
    return key


def sign_message(keys: list[bytes], message_id: str, stamp: str, body: bytes) -> str:
    """The ``webhook-signature`` header: one ``v1,…`` per key."""
    message = f"{message_id}.{stamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.digest(key, message, hashlib.sha256)).decode() for key in keys)
