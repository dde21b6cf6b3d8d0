"""Credentials of a pull source: a fixed header, or a token that is fetched and renewed.

`bearer`, `ssws` (tokens made in Okta's Admin Console), `basic`; `oauth2`: client credentials (RFC 6749 4.4); `google`: a service account's signed assertion
(RFC 7523), for a user of the domain when `subject` names one.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from msgspec import Meta

from tallystick.config.settings import Settings
from tallystick.errors import ConfigError, TransientError
from tallystick.http.outbound import OutboundClient
from tallystick.sources.pull.definition import Auth, AuthKind, fill

_RENEW_BEFORE_S = 60.0
_ASSERTION_S = 3600
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class AuthSettings(Settings, frozen=True, kw_only=True):
    """`auth = {…}` of a pull source."""

    kind: Annotated[AuthKind | None, Meta(description="Kind of credential; absent: the definition's usual one.")] = None
    token: Annotated[str | None, Meta(description="`bearer`, `ssws`: the token.")] = None
    user: Annotated[str | None, Meta(description="`basic`: user name.")] = None
    password: Annotated[str | None, Meta(description="`basic`: password.")] = None
    client_id: Annotated[str | None, Meta(description="`oauth2`: client id.")] = None
    client_secret: Annotated[str | None, Meta(description="`oauth2`: client secret.")] = None
    token_url: Annotated[
        str | None, Meta(description="`oauth2`, `google`: where tokens come from; absent: as the definition says.")
    ] = None
    scope: Annotated[str | None, Meta(description="`oauth2`, `google`: scopes; absent: as the definition says.")] = None
    audience: Annotated[
        str | None, Meta(description="`oauth2`: audience, where the vendor asks for one; absent: as the definition says.")
    ] = None
    key_file: Annotated[str | None, Meta(description="`google`: path of the service account's key file, JSON.")] = None
    subject: Annotated[str | None, Meta(description="`google`: user of the domain on whose behalf it reads.")] = None


_NEEDS: dict[str, tuple[str, ...]] = {
    "bearer": ("token",),
    "ssws": ("token",),
    "basic": ("user", "password"),
    "oauth2": ("client_id", "client_secret"),
    "google": ("key_file",),
    "none": (),
}


class TokenError(TransientError):
    """No token was given."""

    code = "token_refused"


class Credential:
    """Gives the header of a request. ``forget`` after a 401: the next header has a new token."""

    def __init__(
        self, settings: AuthSettings, auth: Auth, values: dict[str, str], base_dir: Path, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises ConfigError, whose place is the setting."""
        self.kind = settings.kind or auth.kinds[0]
        if self.kind not in auth.kinds:
            raise ConfigError(f"this API takes no `{self.kind}`", place="auth", hint="It takes " + ", ".join(auth.kinds))
        missing = [name for name in _NEEDS[self.kind] if getattr(settings, name) is None]
        if missing:
            raise ConfigError(f"auth of kind `{self.kind}` needs `{missing[0]}`", place="auth")
        self._settings = settings
        self._scope = settings.scope or auth.scope
        self._audience = settings.audience or fill(auth.audience, values)
        self.token_url = settings.token_url or fill(auth.token_url, values)
        if self.kind in ("oauth2", "google") and not self.token_url:
            raise ConfigError(f"auth of kind `{self.kind}` needs `token_url`", place="auth")
        self._account = _account(base_dir / (settings.key_file or "")) if self.kind == "google" else None
        self._clock = clock
        self._token, self._ends_at = "", 0.0

    async def header(self, client: OutboundClient) -> dict[str, str]:
        """For one request. Raises TokenError and what the client raises."""
        settings = self._settings
        match self.kind:
            case "none":
                return {}
            case "bearer":
                return {"authorization": f"Bearer {settings.token}"}
            case "ssws":
                return {"authorization": f"SSWS {settings.token}"}
            case "basic":
                pair = base64.b64encode(f"{settings.user}:{settings.password}".encode()).decode()
                return {"authorization": f"Basic {pair}"}
        if self._clock() >= self._ends_at:
            await self._renew(client)
        return {"authorization": f"Bearer {self._token}"}

    def forget(self) -> None:
        self._ends_at = 0.0

    async def _renew(self, client: OutboundClient) -> None:
        settings, now = self._settings, self._clock()
        if self._account is not None:
            form = {
                "grant_type": _GRANT,
                "assertion": self._account.assertion(self.token_url, self._scope, settings.subject, int(now)),
            }
        else:
            form = {
                "grant_type": "client_credentials",
                "client_id": settings.client_id or "",
                "client_secret": settings.client_secret or "",
            }
            form |= {name: value for name, value in (("scope", self._scope), ("audience", self._audience)) if value}
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json", "user-agent": "tallystick"}
        reply = await client.post(self.token_url, urlencode(form).encode(), headers)
        try:
            page = msgspec.json.decode(reply.body)
            token, lasts_s = page["access_token"], float(page.get("expires_in", 300))
        except (msgspec.DecodeError, ValueError, KeyError, TypeError):
            raise TokenError(f"{self.token_url} gave no token: status {reply.status}") from None
        self._token, self._ends_at = str(token), now + max(lasts_s - _RENEW_BEFORE_S, lasts_s / 2)


class _Account:
    """A Google service account."""

    def __init__(self, email: str, key: rsa.RSAPrivateKey, key_id: str) -> None:
        self._email, self._key, self._key_id = email, key, key_id

    def assertion(self, audience: str, scope: str, subject: str | None, now: int) -> str:
        """A JWT signed with RS256."""
        header = {"alg": "RS256", "typ": "JWT", "kid": self._key_id}
        claims: dict[str, Any] = {"iss": self._email, "scope": scope, "aud": audience, "iat": now, "exp": now + _ASSERTION_S}
        if subject:
            claims["sub"] = subject
        text = b".".join(_base64url(msgspec.json.encode(part)) for part in (header, claims))
        return (text + b"." + _base64url(self._key.sign(text, padding.PKCS1v15(), hashes.SHA256()))).decode()


def _account(path: Path) -> _Account:
    """Raises ConfigError when the file is no key of a service account."""
    try:
        page = msgspec.json.decode(path.read_bytes())
        key = serialization.load_pem_private_key(page["private_key"].encode(), None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError("its key is no RSA key")
        return _Account(page["client_email"], key, page.get("private_key_id", ""))
    except (OSError, msgspec.DecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no key file of a service account: {error}", place="auth") from error


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
