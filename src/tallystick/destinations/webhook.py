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
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, field

from tallystick.config import DestinationSettings, Duration
from tallystick.destinations.encodings import EncodingSettings
from tallystick.destinations.encodings.registry import Shape
from tallystick.errors import ConfigError, DestinationUnavailableError
from tallystick.http.outbound import ForbiddenAddressError, OutboundClient, Reply, check_url, trust_context
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut

SECRET_MIN = 16


class WebhookSettings(EncodingSettings, frozen=True, kw_only=True):
    """`type = "webhook"`"""

    carries: ClassVar[tuple[Shape, ...]] = ("json",)

    url: Annotated[str, Meta(description="Where to POST: https, or http with `allow_private` or `insecure`.")]
    secret: Annotated[str, Meta(description="Signing secret, `whsec_…` (base64) or raw text of at least 16 bytes.")]
    previous_secret: Annotated[str | None, Meta(description="The old secret, signed with as well while receivers change over.")] = (
        None
    )
    allow_private: Annotated[bool, Meta(description="Allow addresses that are not public: loopback, private, link-local.")] = False
    insecure: Annotated[bool, Meta(description="Allow plain http to a public address.")] = False
    timeout: Annotated[Duration, Meta(description="Longest time for one attempt, look-up to last byte.")] = field(
        default_factory=lambda: Duration("15s")
    )
    ca: Annotated[str | None, Meta(description="Path of a CA certificate to trust instead of the system's, PEM.")] = None

    def rooted(self, base_dir: Path) -> WebhookSettings:
        return self if self.ca is None else msgspec.structs.replace(self, ca=str(base_dir / self.ca))

    def check(self) -> None:
        check_url(self.url, allow_http=self.allow_private or self.insecure)
        self.keys()
        trust_context(self.ca)

    def keys(self) -> list[bytes]:
        """The keys to sign with, the current one first. Raises ConfigError."""
        return [read_secret(secret) for secret in (self.secret, self.previous_secret) if secret is not None]


STATUS_ANSWERS: tuple[tuple[range, AnswerKind], ...] = (
    (range(200, 300), AnswerKind.DELIVERED),
    (range(400, 401), AnswerKind.SPLIT),
    (range(408, 410), AnswerKind.RETRY),
    (range(413, 414), AnswerKind.SPLIT),
    (range(422, 423), AnswerKind.SPLIT),
    (range(425, 426), AnswerKind.RETRY),
    (range(429, 430), AnswerKind.THROTTLE),
    (range(503, 504), AnswerKind.THROTTLE),
    (range(500, 600), AnswerKind.RETRY),
    (range(300, 500), AnswerKind.PARK),
)
"""The first row that holds a status decides; statuses in no row are a retry."""


class WebhookDestination:
    """Signed POSTs to one URL."""

    settings: ClassVar[type[DestinationSettings]] = WebhookSettings
    guarantee: ClassVar[str] = "at least once, with stable ids"
    window: ClassVar[int] = 8
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=500, max_bytes=1 << 20, max_age_s=0.1)
    answers: ClassVar[dict[str, str]] = {
        "2xx": "delivered",
        "400, 413, 422": "split the cut in halves; a single event is dead-lettered",
        "408, 409, 425, 5xx": "retry",
        "429, 503": "throttle, as long as Retry-After says",
        "3xx (redirects are not followed), 401, 403, 404, 410, other 4xx": "park",
        "no connection, no answer in time, TLS or DNS failure": "retry",
        "a private or metadata address": "park",
    }

    def __init__(self, name: str, settings: WebhookSettings) -> None:
        self.name = name
        self.encoder = settings.make_encoder(framing="envelope")
        self._url = check_url(settings.url, allow_http=settings.allow_private or settings.insecure)
        self._secrets = settings.keys()
        self._client = OutboundClient(
            allow_private=settings.allow_private,
            timeout_s=settings.timeout.seconds,
            connections=self.window,
            ca_file=settings.ca,
        )

    def place(self, cut: Cut) -> str:
        return ""

    async def find(self, place: str, sha256: str) -> bool | None:
        return None

    async def send(self, cut: Cut) -> Answer:
        proof = {
            "tallystick-log": cut.origin,
            "tallystick-range": f"{cut.first_index}-{cut.last_index}",
            "tallystick-checkpoint": base64.b64encode(cut.checkpoint.encode()).decode(),
        }
        return await self._post(f"{cut.handle}-{cut.name}", cut.body, proof)

    async def probe(self) -> Answer:
        """A signed POST without events; anything but the answers that park counts as accepting."""
        answer = await self._post(f"probe-{secrets.token_hex(8)}", b'{"events":[]}', {})
        if answer.kind is AnswerKind.SPLIT:
            return Answer(AnswerKind.DELIVERED, where=answer.where)
        return answer

    async def close(self) -> None:
        await self._client.close()

    async def _post(self, message_id: str, body: bytes, proof: dict[str, str]) -> Answer:
        stamp = str(int(time.time()))
        headers = {
            "host": _host(self._url),
            "content-type": "application/json",
            "user-agent": "tallystick",
            "webhook-id": message_id,
            "webhook-timestamp": stamp,
            "webhook-signature": sign_message(self._secrets, message_id, stamp, body),
            **proof,
        }
        try:
            reply = await self._client.post(self._url, body, headers)
        except ForbiddenAddressError as error:
            return Answer(AnswerKind.PARK, reason=str(error))
        except DestinationUnavailableError as error:
            return Answer(AnswerKind.RETRY, reason=str(error))
        return read_reply(reply, where=f"{_shown(self._url)} {message_id}")


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


def read_reply(reply: Reply, where: str) -> Answer:
    """Sort a reply by the table above."""
    kind = next((kind for statuses, kind in STATUS_ANSWERS if reply.status in statuses), AnswerKind.RETRY)
    text = reply.body.decode("utf-8", "replace")
    if kind is AnswerKind.DELIVERED:
        return Answer(kind, where=where, reply=text)
    reasons = {400: "refused", 422: "refused", 413: "too_large"}
    reason = reasons.get(reply.status, f"HTTP {reply.status}")
    return Answer(kind, reason=reason, where=where, reply=text, retry_after_s=reply.retry_after_s())


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _shown(url: str) -> str:
    """The URL without its query, which may hold a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
