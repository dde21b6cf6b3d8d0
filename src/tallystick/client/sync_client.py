"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from tallystick.client import wire
from tallystick.client.problem import UnavailableError, problem_from
from tallystick.client.retry import Attempts
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
            is_repeatable=True,
        )
        return wire.decode(response, Answer)

    def search(self, query: str = "", *, limit: int | None = None, **fields: Any) -> Iterator[dict[str, Any]]:
        """Events that match, newest first, page after page; at most ``limit`` of them."""
        params = wire.search_params(query, fields)
        left = limit
        while left != 0:
            if left is not None:
                params["limit"] = str(min(left, 1000))
            page = wire.decode(self.request("GET", "/v1/events", params=params), wire.Page)
            yield from page.events
            left = left - len(page.events) if left is not None else None
            if not page.next:
                return
            params["cursor"] = page.next

    def get(self, path: str, **params: Any) -> Any:
        """Read one JSON document."""
        return wire.decode(self.request("GET", path, params=wire.search_params("", params)), Any)

    def post(self, path: str, document: Any = None, **params: Any) -> Any:
        """Post one JSON document and read the answer; None when it is empty. Not repeated when its answer is lost."""
        content = msgspec.json.encode(document if document is not None else {})
        headers = {"Content-Type": "application/json"}
        response = self.request("POST", path, content=content, params=wire.search_params("", params), headers=headers)
        return wire.decode(response, Any) if response.content else None

    def stream(self, path: str, **params: Any) -> Iterator[str]:
        """Lines of a streamed answer (export, tail), as they arrive. Raises ProblemError, UnavailableError."""
        with self._streamed(path, params) as response:
            yield from response.iter_lines()

    def stream_bytes(self, path: str, **params: Any) -> Iterator[bytes]:
        """The bytes of a streamed answer, as they arrive. Raises ProblemError, UnavailableError."""
        with self._streamed(path, params) as response:
            yield from response.iter_bytes()

    @contextmanager
    def _streamed(self, path: str, params: dict[str, Any]) -> Iterator[httpx.Response]:
        try:
            with self._http.stream("GET", path, params=wire.search_params("", params), timeout=None) as response:
                if not response.is_success:
                    raise problem_from(response.status_code, response.read())
                yield response
        except httpx.TransportError as error:
            raise UnavailableError(
                f"{type(error).__name__}: {error}", place=self.url, hint="The answer is not whole; ask again"
            ) from error

    def request(self, method: str, path: str, *, is_repeatable: bool | None = None, **options: Any) -> httpx.Response:
        """One call, repeated with backoff while the server is away or asks to slow down (`retry` has the rules).

        ``is_repeatable``: doing it twice is as good as once; None: as the method says. Raises ProblemError, UnavailableError.
        """
        attempts = Attempts(self.url, method, self._patience_s, is_repeatable=is_repeatable)
        while True:
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                pause_s: float | None = attempts.after_error(error)
            else:
                pause_s = attempts.after_answer(response, response.content)
            if pause_s is None:
                return response
            time.sleep(pause_s)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
