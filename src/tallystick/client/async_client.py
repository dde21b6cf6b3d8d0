"""The asyncio client: the same calls as `Client` for sending and searching."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from tallystick.client import wire
from tallystick.client.retry import Attempts
from tallystick.client.wire import Answer


class AsyncClient:
    """As `Client`, for asyncio."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 30.0,
        patience_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url, key = wire.settings_from_environment(url, key)
        self._patience_s = patience_s
        self._http = httpx.AsyncClient(base_url=self.url, headers=wire.headers(key), timeout=timeout_s, transport=transport)

    async def send(self, action: str, actor: str | Mapping[str, Any], **fields: Any) -> Answer:
        """Send one event; returns when it is durable."""
        return await self.send_many([wire.event_fields(action, actor, fields)])

    async def send_many(self, events: Iterable[Mapping[str, Any]], *, on_invalid: str = "reject") -> Answer:
        """Send events in one request; see `Client.send_many`."""
        response = await self.request(
            "POST",
            "/v1/events",
            content=wire.encode_events(events),
            params={"on_invalid": on_invalid},
            headers={"Content-Type": "application/x-ndjson"},
            is_repeatable=True,
        )
        return wire.decode(response, Answer)

    async def search(self, query: str = "", *, limit: int | None = None, **fields: Any) -> AsyncIterator[dict[str, Any]]:
        """Events that match, newest first; at most ``limit`` of them."""
        params = wire.search_params(query, fields)
        left = limit
        while left != 0:
            if left is not None:
                params["limit"] = str(min(left, 1000))
            page = wire.decode(await self.request("GET", "/v1/events", params=params), wire.Page)
            for event in page.events:
                yield event
            left = left - len(page.events) if left is not None else None
            if not page.next:
                return
            params["cursor"] = page.next

    async def request(self, method: str, path: str, *, is_repeatable: bool | None = None, **options: Any) -> httpx.Response:
        """One call, repeated with backoff while the server is away or asks to slow down (`retry` has the rules).

        ``is_repeatable``: doing it twice is as good as once; None: as the method says. Raises ProblemError, UnavailableError.
        """
        attempts = Attempts(self.url, method, self._patience_s, is_repeatable=is_repeatable)
        while True:
            try:
                response = await self._http.request(method, path, **options)
            except httpx.TransportError as error:
                pause_s: float | None = attempts.after_error(error)
            else:
                pause_s = attempts.after_answer(response, response.content)
            if pause_s is None:
                return response
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
