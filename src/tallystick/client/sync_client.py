"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from tallystick.client import wire
from tallystick.client.problem import UnavailableError, problem_from
from tallystick.client.wire import Answer


class Client:
    """A connection pool to one server. Use as a context manager, or call ``close``.

    ``timeout_s`` bounds one attempt; ``patience_s`` bounds all attempts of one call together.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 30.0,
        patience_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, key = wire.settings_from_environment(url, key)
        self._patience_s = patience_s
        self._http = httpx.Client(base_url=self.url, headers=wire.headers(key), timeout=timeout_s, transport=transport)

    def send(self, action: str, actor: str | Mapping[str, Any], **fields: Any) -> Answer:
        """Send one event; returns when it is durable. ``fields`` are those of the event."""
        return self.send_many([wire.event_fields(action, actor, fields)])

    def send_many(self, events: Iterable[Mapping[str, Any]], *, on_invalid: str = "reject") -> Answer:
        """Send events in one request: all are stored, or none (``on_invalid="quarantine"`` keeps the good ones).

        Raises ProblemError when the server refuses them, UnavailableError when patience ends.
        """
        body = wire.encode_events(events)
        response = self.request(
            "POST",
            "/v1/events",
            content=body,
            params={"on_invalid": on_invalid},
            headers={"Content-Type": "application/x-ndjson"},
        )
        return msgspec.json.decode(response.content, type=Answer)

    def search(self, query: str = "", *, limit: int | None = None, **fields: Any) -> Iterator[dict[str, Any]]:
        """Events that match, newest first, page after page; at most ``limit`` of them."""
        params = wire.search_params(query, fields)
        left = limit
        while True:
            if left is not None:
                params["limit"] = str(min(left, 1000))
            page = msgspec.json.decode(self.request("GET", "/v1/events", params=params).content)
            yield from page["events"]
            left = left - len(page["events"]) if left is not None else None
            if not page.get("next") or left == 0:
                return
            params["cursor"] = page["next"]

    def get(self, path: str, **params: Any) -> Any:
        """Read one JSON document."""
        return msgspec.json.decode(self.request("GET", path, params=wire.search_params("", params)).content)

    def post(self, path: str, document: Any = None, **params: Any) -> Any:
        """Post one JSON document and read the answer."""
        content = msgspec.json.encode(document if document is not None else {})
        options = {"params": wire.search_params("", params), "headers": {"Content-Type": "application/json"}}
        return msgspec.json.decode(self.request("POST", path, content=content, **options).content or b"null")

    def stream(self, path: str, **params: Any) -> Iterator[str]:
        """Lines of a streamed answer (export, tail), as they arrive."""
        with self._http.stream("GET", path, params=wire.search_params("", params), timeout=None) as response:
            if response.status_code >= 400:
                raise problem_from(response.status_code, response.read())
            yield from response.iter_lines()

    def stream_bytes(self, path: str, **params: Any) -> Iterator[bytes]:
        """The bytes of a streamed answer, as they arrive."""
        with self._http.stream("GET", path, params=wire.search_params("", params), timeout=None) as response:
            if response.status_code >= 400:
                raise problem_from(response.status_code, response.read())
            yield from response.iter_bytes()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One call, repeated with backoff while the server is away or asks to slow down."""
        deadline = time.monotonic() + self._patience_s
        attempt = 0
        while True:
            advice_s, reason = 0.0, ""
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if response.status_code < 400:
                    return response
                if response.status_code not in wire.RETRY_STATUSES:
                    raise problem_from(response.status_code, response.content)
                advice_s, reason = wire.retry_after_s(response), str(problem_from(response.status_code, response.content))
            pause_s = wire.pause_s(attempt, advice_s)
            if time.monotonic() + pause_s > deadline:
                raise UnavailableError(reason, place=self.url, hint="Is the server up? See `tallystick status`")
            time.sleep(pause_s)
            attempt += 1

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
