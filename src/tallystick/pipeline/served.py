"""Puts together what `tallystick verify --url` works on: a reader of the server's log over HTTP, and the key from elsewhere.

Needs the base install alone. What the server sends is bounded and believed in nothing: a body ends at the largest bundle
that there can be, compression is not asked for, redirects are not followed.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tallystick.client import wire
from tallystick.client.problem import problem_from
from tallystick.client.retry import Attempts
from tallystick.errors import CheckpointError, ConfigError, IntegrityError, NotFoundError, TallystickError, TerminalError
from tallystick.evidence.entry import LINE_BYTES_MAX
from tallystick.evidence.note import parse_vkey
from tallystick.evidence.tile_path import TILE_WIDTH
from tallystick.evidence.verify import Report, ServedEvidence, verify_served

_BODY_MAX = TILE_WIDTH * (2 + LINE_BYTES_MAX)
_PARALLEL = 4
_AHEAD = 8
_TIMEOUT_S = 30.0
_PATIENCE_S = 30.0
_PASSING = frozenset({408, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class ServedOptions:
    """What the command line said; ``public_key`` is a vkey's text, ``heads`` a file with a signed root head."""

    url: str
    public_key: str | None = None
    heads: Path | None = None


def verify_url(options: ServedOptions, progress: Callable[[str, int, int], None]) -> Report:
    """Verify what a server serves. Raises ConfigError, TerminalError when it shows nothing to this key, TransientError."""
    url = options.url.rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{options.url!r} is no address of a server", hint="Write https://audit.example.com")
    with HttpFetcher(url, os.environ.get("TALLYSTICK_KEY")) as fetcher:
        remembered = read_head(options.heads) if options.heads else None
        return verify_served(ServedEvidence(fetcher.fetch, url, options.public_key, remembered, progress))


def read_public_key(text: str) -> str:
    """The vkey given as text or as the name of a file with one. Raises ConfigError when it is none."""
    try:
        is_file = Path(text).is_file()
    except OSError:  # a text too long for a name
        is_file = False
    try:
        return parse_vkey(Path(text).read_text("utf-8") if is_file else text).text
    except (CheckpointError, UnicodeDecodeError) as error:
        hint = "It is the one line of the key directory's root.vkey, or that file's name"
        raise ConfigError(f"--public-key is no public key: {error}", hint=hint) from error


def read_head(path: Path) -> str:
    """The text of a head kept in a file. Raises ConfigError when there is no such file."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the file with the signed head cannot be read", place=str(path), hint=str(error)) from error


class HttpFetcher:
    """Reads paths below ``url``, a few at a time and a few ahead. ``key`` None: only what is public."""

    def __init__(
        self, url: str, key: str | None, *, patience_s: float = _PATIENCE_S, transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"Accept-Encoding": "identity"} | (wire.headers(wire.settings_from_environment(url, key)[1]) if key else {})
        self._url = url
        self._patience_s = patience_s
        self._http = httpx.Client(headers=headers, timeout=_TIMEOUT_S, transport=transport)
        self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="fetch")

    def fetch(self, paths: Iterable[str]) -> Iterator[bytes | TallystickError]:
        """As ``evidence.verify.walk.Fetch`` asks."""
        ahead: deque[Future[bytes | TallystickError]] = deque()
        try:
            for path in paths:
                ahead.append(self._pool.submit(self._read, path))
                if len(ahead) == _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def close(self) -> None:
        """Wait for what is under way, and close the connections."""
        self._pool.shutdown(cancel_futures=True)
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _read(self, path: str) -> bytes | TallystickError:
        """One resource. Raises UnavailableError when patience ends."""
        attempts = Attempts(self._url, "GET", self._patience_s)
        while True:
            pause_s: float | None
            try:
                with self._http.stream("GET", self._url + path) as response:
                    body = _bounded(response)
            except httpx.TransportError as error:
                pause_s = attempts.after_error(error)
            else:
                if response.status_code not in _PASSING:
                    return _judge(response.status_code, body)
                pause_s = attempts.after_answer(response, body)
            time.sleep(pause_s or 0.0)


def _bounded(response: httpx.Response) -> bytes:
    """The body as it was sent, cut one byte past what a bundle can have: a longer one is then of the wrong length."""
    pieces, size = [], 0
    for piece in response.iter_raw(65_536):
        pieces.append(piece)
        size += len(piece)
        if size > _BODY_MAX:
            break
    return b"".join(pieces)[: _BODY_MAX + 1]


def _judge(status: int, body: bytes) -> bytes | TallystickError:
    """What an answer means to a verifier."""
    if status == 200:
        return body
    problem = problem_from(status, body)
    if status == 404:
        return NotFoundError(problem.message)
    if status in (401, 403):
        return TerminalError(problem.message, hint="TALLYSTICK_KEY needs the permissions verify and, for entries, read")
    return IntegrityError(f"the server answers {status}: {problem.message}")
