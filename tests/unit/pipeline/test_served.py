"""What an answer over HTTP means to a verification, and what bounds it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tallystick.client.problem import UnavailableError
from tallystick.errors import ConfigError, IntegrityError, NotFoundError, TallystickError, TerminalError
from tallystick.pipeline.served import _BODY_MAX, HttpFetcher, ServedOptions, read_head, read_public_key, verify_url

URL = "http://log.test"
KEY = "ts_abc_" + "a" * 43


def say(status: int, body: bytes = b"", **headers: str) -> httpx.Response:
    """An answer that is still to be read, as from a network."""
    return httpx.Response(status, stream=httpx.ByteStream(body), headers=headers)


def fetch(answer: Callable[[httpx.Request], httpx.Response], *paths: str, key: str | None = KEY) -> list[bytes | TallystickError]:
    with HttpFetcher(URL, key, patience_s=1.0, transport=httpx.MockTransport(answer)) as fetcher:
        return list(fetcher.fetch(paths))


def test_answers_come_in_order_and_few_at_a_time() -> None:
    """However long the list, at most four are under way and eight are held."""
    lock, now, most = threading.Lock(), 0, 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["accept-encoding"] == "identity"
        with lock:
            now -= 1
        return say(200, request.url.path.encode())

    paths = [f"/log/x/tile/0/{number:03d}" for number in range(60)]
    asked: list[str] = []
    with HttpFetcher(URL, KEY, transport=httpx.MockTransport(answer)) as fetcher:
        answers = fetcher.fetch(path for path in paths if not asked.append(path))  # type: ignore[func-returns-value]
        assert next(answers) == paths[0].encode()
        assert len(asked) == 8
        assert [answer.decode() for answer in answers if isinstance(answer, bytes)] == paths[1:]
    assert most <= 4


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFoundError), (401, TerminalError), (403, TerminalError), (500, IntegrityError), (302, IntegrityError)],
)
def test_a_refusal_is_told_apart_from_a_failure(status: int, kind: type[TallystickError]) -> None:
    """Not there, not for this key, and owed but not given are three different things; redirects are not followed."""
    (answer,) = fetch(lambda request: say(status, location="http://elsewhere.test/"), "/log/root/checkpoint")
    assert type(answer) is kind


def test_a_passing_fault_is_tried_again_until_patience_ends() -> None:
    """503 and lost connections are repeated; a server that stays away ends the verification, without a verdict."""
    told = iter([503, 429, 200])
    assert fetch(lambda request: say(next(told), b"x"), "/a") == [b"x"]

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(UnavailableError):
        fetch(refuse, "/a")


def test_a_body_without_end_is_cut() -> None:
    """No more is read than the largest bundle has bytes."""

    def pour() -> Iterator[bytes]:
        while True:
            yield bytes(2**20)

    (answer,) = fetch(lambda request: httpx.Response(200, content=pour()), "/a")
    assert isinstance(answer, bytes)
    assert len(answer) == _BODY_MAX + 1


def test_without_a_key_none_is_sent() -> None:
    """A public log is read without credentials."""
    (answer,) = fetch(lambda request: say(200, repr("authorization" in request.headers).encode()), "/a", key=None)
    assert answer == b"False"


def test_what_the_command_line_gives_is_checked_first(tmp_path: Path) -> None:
    """No public key, no head, no address: a configuration error with a hint, before anything is asked."""
    vkey = "example.com/log/root+" + "0" * 8 + "+AAAA"
    for text in (vkey, "x" * 5000, str(tmp_path)):
        with pytest.raises(ConfigError, match="no public key"):
            read_public_key(text)
    with pytest.raises(ConfigError, match="signed head"):
        read_head(tmp_path / "absent")
    with pytest.raises(ConfigError, match="no address"):
        verify_url(ServedOptions("audit.example.com"), lambda title, done, total: None)
