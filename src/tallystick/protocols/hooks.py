"""Signed hooks: is this body, byte for byte, what the holder of the secret sent, and lately.

| scheme | signed with HMAC | signature | time |
|---|---|---|---|
| ``github`` | the body | `X-Hub-Signature-256: sha256=<hex>` | none |
| ``slack`` | `v0:<time>:<body>` | `X-Slack-Signature: v0=<hex>` | `X-Slack-Request-Timestamp` |
| ``standard`` | `<id>.<time>.<body>` | `webhook-signature: v1,<base64> …`, any of several (Standard Webhooks) | `webhook-timestamp` |
| ``hmac`` | as configured | as configured | as configured, or none |
| ``okta`` | nothing: a fixed text in a header, flagged ``unsigned`` | `Authorization: <text>` | none |

What names a delivery is what was signed: its id where that is signed (``standard``, or ``hmac`` with `{id}`), else the digest of the
body. A header that is not signed could be changed by whoever repeats a delivery. So a delivery that comes again, by its sender or by
somebody who recorded it, has the same name, and is stored once; where the time is signed, one that is too old is refused.

Signatures are compared in constant time, and each secret is tried whatever the others say. A secret is at least 16 bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from tallystick.errors import ConfigError, TerminalError

SECRET_MIN = 16
_ID_MAX = 64
_PLACE = re.compile(rb"\{(?:id|timestamp)\}")
Headers = Mapping[bytes, bytes]
Algorithm = Literal["sha256", "sha1", "sha512"]
Encoding = Literal["hex", "base64"]


class SignatureError(TerminalError):
    """Not what the holder of the secret sent, or not lately. ``code`` says which: missing, invalid, or stale."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Delivery(NamedTuple):
    """A delivery that was checked: its name, what its headers say of it, and flags for its events."""

    name: str
    facts: Mapping[str, str]
    flags: tuple[str, ...] = ()


class Verifier(Protocol):
    """One scheme with its secrets. ``now`` is Unix seconds."""

    def look(self, headers: Headers, now: float) -> None:
        """What can be told before the body is read. Raises SignatureError."""

    def check(self, headers: Headers, body: bytes) -> Delivery:
        """The delivery. Raises SignatureError unless it is signed."""


@dataclass(frozen=True, slots=True)
class HmacForm:
    """Where a scheme has its signature, and what it is of.

    ``signed`` is a text with ``{body}`` and perhaps ``{id}`` and ``{timestamp}``. ``facts``: further headers that are kept of a delivery.
    """

    header: str
    prefix: str = ""
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    signed: str = "{body}"
    timestamp_header: str | None = None
    id_header: str | None = None
    facts: tuple[str, ...] = ()
    has_several: bool = False

    @property
    def is_timed(self) -> bool:
        """Whether the time is part of what is signed, so that an old delivery can be told."""
        return "{timestamp}" in self.signed


GITHUB = HmacForm("x-hub-signature-256", "sha256=", facts=("x-github-event", "x-github-delivery", "x-github-hook-id"))
SLACK = HmacForm(
    "x-slack-signature",
    "v0=",
    signed="v0:{timestamp}:{body}",
    timestamp_header="x-slack-request-timestamp",
    facts=("x-slack-retry-num", "x-slack-retry-reason"),
)
STANDARD = HmacForm(
    "webhook-signature",
    "v1,",
    encoding="base64",
    signed="{id}.{timestamp}.{body}",
    timestamp_header="webhook-timestamp",
    id_header="webhook-id",
    has_several=True,
)


@dataclass(frozen=True, slots=True)
class HmacVerifier:
    """A scheme of `HmacForm`. ``tolerance_s``: how far a signed time may be from now, either way."""

    form: HmacForm
    secrets: Sequence[bytes]
    tolerance_s: float = 300.0

    def look(self, headers: Headers, now: float) -> None:
        """Raises SignatureError when a header is missing, or the time is not near ``now``."""
        form = self.form
        _need(headers, form.header)
        if "{id}" in form.signed and form.id_header is not None:
            _need(headers, form.id_header)
        if form.is_timed and form.timestamp_header is not None:
            stamp = _need(headers, form.timestamp_header)
            if not (stamp.isdigit() and len(stamp) < 16 and abs(int(stamp) - now) <= self.tolerance_s):
                raise SignatureError(
                    "signature_stale", f"the time in {form.timestamp_header} is not within {self.tolerance_s:.0f} s of ours"
                )

    def check(self, headers: Headers, body: bytes) -> Delivery:
        """Raises SignatureError unless one of the signatures is by one of the secrets."""
        form = self.form
        signed_id = headers.get((form.id_header or "").encode(), b"")
        values = {b"{id}": signed_id, b"{timestamp}": headers.get((form.timestamp_header or "").encode(), b"")}
        parts = [_PLACE.sub(lambda match: values[match[0]], part) for part in form.signed.encode().split(b"{body}")]
        sent = headers.get(form.header.encode(), b"")
        given = sent.split(b" ") if form.has_several else [sent]
        wanted = [self._signature(secret, parts, body) for secret in self.secrets]
        matches = [hmac.compare_digest(want, one) for want in wanted for one in given]
        if not any(matches):
            raise SignatureError("signature_invalid", f"the signature in {form.header} is not that of this body")
        facts = {
            name: value for name in (form.id_header, form.timestamp_header, *form.facts) if name and (value := _text(headers, name))
        }
        return Delivery(_name(signed_id if "{id}" in form.signed else b"", body), facts)

    def _signature(self, secret: bytes, parts: Sequence[bytes], body: bytes) -> bytes:
        """As the header has it, prefix and all."""
        mac = hmac.new(secret, parts[0], self.form.algorithm)
        for part in parts[1:]:
            mac.update(body)
            mac.update(part)
        digest = mac.digest()
        text = base64.b64encode(digest) if self.form.encoding == "base64" else digest.hex().encode()
        return self.form.prefix.encode() + text


@dataclass(frozen=True, slots=True)
class TokenVerifier:
    """A fixed text in a header: it says who sends, and nothing of the body."""

    secrets: Sequence[bytes]
    header: str = "authorization"

    def look(self, headers: Headers, now: float) -> None:
        """Raises SignatureError unless the header has one of the secrets."""
        sent = _need(headers, self.header)
        matches = [hmac.compare_digest(secret, sent) for secret in self.secrets]
        if not any(matches):
            raise SignatureError("signature_invalid", f"the text in {self.header} is not the one that was agreed")

    def check(self, headers: Headers, body: bytes) -> Delivery:
        """The delivery, flagged as unsigned."""
        return Delivery(_name(b"", body), {}, ("unsigned",))


def read_secret(text: str, *, is_standard: bool = False) -> bytes:
    """The key in a setting; Standard Webhooks' are ``whsec_`` and base64, or plain text. Raises ConfigError."""
    secret = text.encode()
    if is_standard and text.startswith("whsec_"):
        try:
            secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except binascii.Error as error:
            raise ConfigError("the secret begins with whsec_ but is not base64 after it") from error
    if len(secret) < SECRET_MIN:
        raise ConfigError(f"the secret is shorter than {SECRET_MIN} bytes", hint="openssl rand -base64 32")
    return secret


def _need(headers: Headers, name: str) -> bytes:
    value = headers.get(name.encode(), b"")
    if not value:
        raise SignatureError("signature_missing", f"there is no header {name}")
    return value


def _text(headers: Headers, name: str) -> str:
    """A header's value as far as it is printable ASCII; what it holds beyond that nobody signed."""
    value = headers.get(name.encode(), b"").decode("ascii", "replace")
    return "".join(character if character.isprintable() else "\ufffd" for character in value)[:256]


def _name(signed_id: bytes, body: bytes) -> str:
    """What a delivery is called, fit to be part of an id."""
    text = signed_id.decode("latin-1")
    if 0 < len(text) <= _ID_MAX and all(character.isalnum() or character in "._:-" for character in text) and text.isascii():
        return text
    return hashlib.sha256(signed_id or body).hexdigest()[:32]
