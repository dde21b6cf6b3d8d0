"""Outgoing HTTP to addresses that a configuration names: no request may be led into our own network (CWE-918).

Rules

1. The host is resolved once per connection; **every** address it has must be public, and the connection goes to one of those
   very addresses. A second look-up with another answer (DNS rebinding) cannot happen. Host header and TLS name stay the host's.
2. Public means: globally routable, not multicast; IPv4 inside IPv6 (mapped, 6to4, NAT64, Teredo) is judged as that IPv4.
   Hosts written as numbers are resolved like any other and judged by what comes out.
3. No redirects, no proxies from the environment, no cookies; at most ``reply_max`` bytes of the reply are read; one deadline covers
   everything from the look-up to the last byte.

Only the operator's own ``allow_private = true`` lifts rules 1 and 2.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any
from urllib.parse import urlsplit

import httpcore

from tallystick.errors import ConfigError, DestinationUnavailableError, TerminalError

REPLY_MAX = 64 << 10
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenAddressError(TerminalError):
    """The host leads to an address that outgoing requests must not reach."""

    code = "forbidden_address"


@dataclass(frozen=True, slots=True)
class Reply:
    """``body`` is cut at the limit; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def retry_after_s(self) -> float | None:
        """Retry-After (RFC 9110 10.2.3) in seconds from now, from either form; None when absent or unreadable."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time())
        except (ValueError, TypeError):
            return None


def check_url(url: str, *, allow_http: bool) -> str:
    """The URL when it can be used for outgoing requests. Raises ConfigError."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ConfigError(f"{url!r} is no http(s) URL", hint="As in https://example.com/audit")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("a URL must not carry a user name or password", hint="Use the secret setting")
    if parts.scheme == "http" and not allow_http:
        raise ConfigError(f"{url!r} is not encrypted", hint="Use https, or set insecure = true if it must be so")
    return url


def trust_context(ca_file: str | None) -> ssl.SSLContext:
    """TLS 1.2 or newer with the system's authorities, or ``ca_file`` in their place. Raises ConfigError when it cannot be read."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the CA file cannot be used: {error}", place=ca_file, hint="It holds certificates in PEM") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def is_public(text: str) -> bool:
    """Whether an address literal may be connected to (rule 2)."""
    address: _Address = ipaddress.ip_address(text.split("%", 1)[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.teredo is not None:
            return False
        if inner is not None:
            address = inner
    return address.is_global and not address.is_multicast and not address.is_reserved


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._inner: httpcore.AsyncNetworkBackend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._allow_private:
            for address in addresses:
                if not is_public(address):
                    raise ForbiddenAddressError(
                        f"{host} leads to {address}, which is not public", hint="Set allow_private = true if it is meant"
                    )
        error: Exception | None = None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failure:
                error = failure
        raise error or httpcore.ConnectError(f"{host} has no address")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class OutboundClient:
    """Keeps connections to one or few hosts and posts to them under the rules above. Close it with ``close``."""

    def __init__(self, *, allow_private: bool, timeout_s: float, connections: int = 8, ca_file: str | None = None) -> None:
        """``ca_file`` is trusted instead of the system's authorities. Raises ConfigError when it cannot be read."""
        self._timeout_s = timeout_s
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trust_context(ca_file),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30.0,
            network_backend=_CheckedBackend(allow_private=allow_private),
        )

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> Reply:
        """One POST. Raises ForbiddenAddressError, or DestinationUnavailableError for all that is no answer."""
        return await self.request("POST", url, body, headers)

    async def request(self, method: str, url: str, body: bytes, headers: dict[str, str], reply_max: int = REPLY_MAX) -> Reply:
        """One request of any method; ``reply_max`` bytes of the body are read. Raises as `post` does."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._request(method, url, body, headers, reply_max)
        except TimeoutError as error:
            raise DestinationUnavailableError(f"no answer within {self._timeout_s:g} s") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            raise DestinationUnavailableError(f"{type(error).__name__}: {error or 'connection lost'}") from error

    async def close(self) -> None:
        await self._pool.aclose()

    async def _request(self, method: str, url: str, body: bytes, headers: dict[str, str], reply_max: int) -> Reply:
        async with self._pool.stream(method, url, headers=list(headers.items()), content=body) as response:
            parts, size = [], 0
            async for part in response.aiter_stream():
                parts.append(part[: reply_max - size])
                size += len(parts[-1])
                if size >= reply_max:
                    break
            found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return Reply(response.status, found, b"".join(parts))
