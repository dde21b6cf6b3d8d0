"""What destinations over HTTP share: settings, the guarded client, and attempts that no answer came of."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, field

from tallystick.config import Duration
from tallystick.destinations.encodings import EncodingSettings
from tallystick.destinations.encodings.framing import compress_gzip
from tallystick.destinations.encodings.registry import Shape
from tallystick.errors import ConfigError, DestinationUnavailableError
from tallystick.http.outbound import REPLY_MAX, ForbiddenAddressError, OutboundClient, Reply, check_url, trust_context
from tallystick.plugin import Answer, AnswerKind, Cut


class HttpSettings(EncodingSettings, frozen=True, kw_only=True):
    """Where to, how carefully, and in which form; a form in JSON, unless a class says otherwise."""

    carries: ClassVar[tuple[Shape, ...]] = ("json",)

    url: Annotated[str, Meta(description="Where to send: https, or http with `allow_private` or `insecure`.")]
    allow_private: Annotated[bool, Meta(description="Allow addresses that are not public: loopback, private, link-local.")] = False
    insecure: Annotated[bool, Meta(description="Allow plain http to a public address.")] = False
    timeout: Annotated[Duration, Meta(description="Longest time for one attempt, look-up to last byte.")] = field(
        default_factory=lambda: Duration("15s")
    )
    ca: Annotated[str | None, Meta(description="Path of a CA certificate to trust instead of the system's, PEM.")] = None

    def rooted(self, base_dir: Path) -> Self:
        return self if self.ca is None else msgspec.structs.replace(self, ca=str(base_dir / self.ca))

    def check(self) -> None:
        self.checked_url()
        trust_context(self.ca)

    def checked_url(self) -> str:
        """The URL, when it may be used. Raises ConfigError."""
        return check_url(self.url, allow_http=self.allow_private or self.insecure)


class HttpDestination:
    """Base of destinations that POST; nothing can be looked up by place unless a class says otherwise."""

    def __init__(self, name: str, settings: HttpSettings, connections: int) -> None:
        self.name = name
        self._url = settings.checked_url()
        self._client = OutboundClient(
            allow_private=settings.allow_private,
            timeout_s=settings.timeout.seconds,
            connections=connections,
            ca_file=settings.ca,
        )

    def place(self, cut: Cut) -> str:
        return ""

    async def find(self, place: str, sha256: str) -> bool | None:
        return None

    async def close(self) -> None:
        await self._client.close()

    async def _request(
        self,
        path: str,
        body: bytes,
        headers: dict[str, str],
        *,
        method: str = "POST",
        is_gzip: bool = False,
        reply_max: int = REPLY_MAX,
    ) -> Reply | Answer:
        """One attempt, below the settings' URL; an Answer when nothing was said."""
        url = self._url.rstrip("/") + path if path else self._url
        if is_gzip:
            body = await asyncio.to_thread(compress_gzip, body)
            headers = headers | {"content-encoding": "gzip"}
        every = {"host": urlsplit(url).netloc, "user-agent": "tallystick"}
        try:
            return await self._client.request(method, url, body, every | headers, reply_max)
        except ForbiddenAddressError as error:
            return Answer(AnswerKind.PARK, reason=str(error))
        except DestinationUnavailableError as error:
            return Answer(AnswerKind.RETRY, reason=str(error))

    @property
    def shown_url(self) -> str:
        """The URL without its query, which may hold a token."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"


def basic_authorization(username: str | None, password: str | None, token: str | None, scheme: str = "Bearer") -> dict[str, str]:
    """The header of a user with a password, or of a token; none without either. Raises ConfigError for half of one, or for both."""
    if (username is None) != (password is None):
        raise ConfigError("username and password belong together")
    if username is not None and token is not None:
        raise ConfigError("either username and password, or a token or key")
    if token is not None:
        return {"authorization": f"{scheme} {require_header(token, 'the token or key')}"}
    if username is None:
        return {}
    if ":" in username:
        raise ConfigError("username: a colon ends a user's name (RFC 7617)")
    return {"authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


def require_header(text: str, name: str) -> str:
    """``text``, when it can be the value of a header. Raises ConfigError."""
    if not text.strip() or not text.isascii() or not text.isprintable():
        raise ConfigError(f"{name} is empty or holds characters that no header can carry")
    return text
