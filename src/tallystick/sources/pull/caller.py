"""One API's requests: with its credential, within its rate limit, to its own server only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tallystick.errors import TransientError
from tallystick.http.outbound import OutboundClient, Reply
from tallystick.sources.pull.auth import Credential
from tallystick.sources.pull.pages import PageError, same_origin, wait_s

_SAID_MAX = 300


class RefusedError(TransientError):
    """The vendor answered with an error. It is asked again, later: nothing is ever given up."""

    code = "refused"

    def __init__(self, status: int, said: str, retry_after_s: float | None) -> None:
        super().__init__(f"status {status}: {said}" if said else f"status {status}")
        self.status = status
        self.retry_after_s = retry_after_s


class StoppedError(Exception):
    """The server stops."""


class Caller:
    """``not_before`` is when the vendor's rate limit lets the next request through, as a time of the clock."""

    def __init__(
        self, client: OutboundClient, credential: Credential, base: str, page_max: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.base = base
        self.not_before = 0.0
        self._client = client
        self._credential = credential
        self._page_max = page_max
        self._clock = clock

    async def call(self, method: str, url: str, body: bytes, headers: dict[str, str], stop: asyncio.Event) -> Reply:
        """A 2xx reply, whole. Raises RefusedError, PageError, StoppedError, TokenError and what the client raises."""
        if not same_origin(url, self.base):
            raise PageError(f"{urlsplit(url).netloc} is not the server of this source; the credential is not sent there")
        await self._wait(stop)
        own = {"host": urlsplit(url).netloc, "accept": "application/json", "user-agent": "tallystick"}
        if body:
            own["content-type"] = "application/json"
        own |= headers | await self._credential.header(self._client)
        reply = await self._client.request(method, url, body, own, self._page_max + 1)
        asked = wait_s(reply, self._clock())
        if asked is not None:
            self.not_before = self._clock() + asked
        if reply.status == 401:
            self._credential.forget()
        if not 200 <= reply.status < 300:
            said = reply.body[:_SAID_MAX].decode("utf-8", "replace").strip() if b"\0" not in reply.body[:_SAID_MAX] else ""
            raise RefusedError(reply.status, said, asked)
        if len(reply.body) > self._page_max:
            raise PageError(f"the reply has more than {self._page_max} bytes", hint="Raise page_max, or ask for smaller pages")
        return reply

    async def _wait(self, stop: asyncio.Event) -> None:
        seconds = self.not_before - self._clock()
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await stop.wait()
            except TimeoutError:
                return
        if stop.is_set():
            raise StoppedError
