"""When a call is made again. No IO here; both clients ask after each attempt.

    the request did not reach the server      again, whatever the call
    429, 503                                  again, after the server's advice: nothing was stored
    the answer was lost, or 408, 500, 502, 504
                                              again only when a repeat changes nothing: reading, deleting, and events, which
                                              have their ids before the first attempt; else the caller must look first
    any other answer below 200 or above 299   the server's word: ProblemError

Attempts end when the next one would begin after the caller's patience.
"""

from __future__ import annotations

import time

import httpx

from tallystick.client import wire
from tallystick.client.problem import ProblemError, UnavailableError, problem_from

_REPEATABLE_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_NOTHING_STORED = frozenset({429, 503})
_LOST = frozenset({408, 500, 502, 504})
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)


class Attempts:
    """The attempts of one call. ``is_repeatable`` None: told by the method. ``patience_s`` bounds all attempts together."""

    def __init__(self, url: str, method: str, patience_s: float, *, is_repeatable: bool | None = None) -> None:
        self._url = url
        self._is_repeatable = method in _REPEATABLE_METHODS if is_repeatable is None else is_repeatable
        self._deadline = time.monotonic() + patience_s
        self._made = 0

    def after_error(self, error: httpx.TransportError) -> float:
        """Seconds to wait before the next attempt. Raises UnavailableError when there is none."""
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, _HOPELESS):
            raise UnavailableError(reason, place=self._url, hint="This call cannot be sent") from error
        if not isinstance(error, _NOT_SENT) and not self._is_repeatable:
            raise UnavailableError(reason, place=self._url, hint="It may have been done; look before you repeat it") from error
        return self._pause(reason, 0.0, error)

    def after_answer(self, response: httpx.Response, body: bytes) -> float | None:
        """None when the call succeeded, or the seconds to wait. Raises ProblemError, UnavailableError."""
        status = response.status_code
        if 200 <= status < 300:
            return None
        problem = problem_from(status, body)
        if status in _NOTHING_STORED or (status in _LOST and self._is_repeatable):
            return self._pause(str(problem), wire.retry_after_s(response), problem)
        raise problem

    def _pause(self, reason: str, advice_s: float, cause: httpx.TransportError | ProblemError) -> float:
        pause_s = wire.pause_s(self._made, advice_s)
        self._made += 1
        if time.monotonic() + pause_s > self._deadline:
            raise UnavailableError(reason, place=self._url, hint="Is the server up? See `tallystick status`") from cause
        return pause_s
