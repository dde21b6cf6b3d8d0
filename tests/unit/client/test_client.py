"""Both clients against answers that a test dictates: what is sent, what is sent again, and what an error says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import msgspec
import pytest

from tallystick.client import Answer, AsyncClient, Client, ProblemError, UnavailableError, wire
from tallystick.errors import ConfigError

URL = "http://127.0.0.1:8420"
OK = {
    "accepted": 1,
    "duplicates": 0,
    "filtered": 0,
    "quarantined": [],
    "receipts": [{"log": "l", "ranges": [[4, 1]], "batch_root": "r", "received_at": "t", "durability": "fsynced"}],
}
Step = Exception | Callable[[], httpx.Response]


def reply(status: int, **options: Any) -> Step:
    """An answer, made anew each time it is given."""
    return lambda: httpx.Response(status, **options)


def ok(document: Any = OK) -> Step:
    return reply(200, json=document)


class Script:
    """Answers requests one after the other and remembers them; errors are raised, the last step stays."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step()

    @property
    def bodies(self) -> list[bytes]:
        return [request.content for request in self.requests]


class Either:
    """The sync or the async client behind the same blocking calls."""

    def __init__(self, kind: str, script: Script, **options: Any) -> None:
        self.kind = kind
        self.transport = httpx.MockTransport(script)
        self.options = {"patience_s": 5.0, **options}

    def run(self, name: str, *arguments: Any, **fields: Any) -> Any:
        if self.kind == "sync":
            with Client(URL, "ts_a_b", transport=self.transport, **self.options) as client:
                found = getattr(client, name)(*arguments, **fields)
                return list(found) if name == "search" else found
        return asyncio.run(self._run(name, arguments, fields))

    async def _run(self, name: str, arguments: Any, fields: Any) -> Any:
        async with AsyncClient(URL, "ts_a_b", transport=self.transport, **self.options) as client:
            found = getattr(client, name)(*arguments, **fields)
            return [event async for event in found] if name == "search" else await found


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Callable[..., Either]:
    return lambda script, **options: Either(request.param, script, **options)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are remembered and not waited for."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("tallystick.client.sync_client.time.sleep", waited.append)
    monkeypatch.setattr("tallystick.client.async_client.asyncio.sleep", sleep)
    return waited


def test_an_event_is_sent_with_an_id_and_a_key(client: Callable[..., Either]) -> None:
    """NDJSON with an id, the credential, and an answer with its receipt; members that are None are left out."""
    script = Script(ok())
    answer = client(script).run("send", "user.login", "u_1", outcome="success", reason=None)
    assert isinstance(answer, Answer)
    assert answer.receipts[0].ranges == [(4, 1)]
    (request,) = script.requests
    assert (request.method, request.url.path) == ("POST", "/v1/events")
    assert request.headers["authorization"] == "Bearer ts_a_b"
    assert request.headers["content-type"] == "application/x-ndjson"
    sent = msgspec.json.decode(request.content)
    assert len(sent.pop("id")) == 36
    assert sent == {"action": "user.login", "actor": "u_1", "outcome": "success"}


def test_ids_of_the_caller_stay(client: Callable[..., Either]) -> None:
    """Each event has its own id; made ones are distinct."""
    script = Script(ok())
    client(script).run("send_many", ({"action": "a", "actor": "u", **more} for more in ({"id": "mine"}, {}, {})))
    ids = [msgspec.json.decode(line)["id"] for line in script.bodies[0].splitlines()]
    assert ids[0] == "mine"
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("gone"),
        httpx.ReadTimeout("slow"),
        *(reply(status) for status in (408, 429, 500, 502, 503, 504)),
    ],
)
def test_events_are_sent_again_byte_for_byte(client: Callable[..., Either], waits: list[float], trouble: Step) -> None:
    """Whether the request or its answer was lost: the same bytes, the same ids, so that the server stores them once."""
    script = Script(trouble, trouble, ok())
    assert client(script).run("send", "a.b", "u").accepted == 1
    assert len(script.bodies) == 3
    assert len(set(script.bodies)) == 1
    assert len(waits) == 2


@pytest.mark.parametrize("trouble", [httpx.ReadError("reset"), httpx.ReadTimeout("slow"), reply(502), reply(500)])
def test_a_post_that_may_have_happened_is_not_repeated(client: Callable[..., Either], waits: list[float], trouble: Step) -> None:
    """A key made twice would be a key that nobody knows of: the caller is told to look."""
    script = Script(trouble, ok())
    with pytest.raises((UnavailableError, ProblemError)):
        client(script).run("request", "POST", "/v1/keys", content=b"{}")
    assert len(script.requests) == 1
    assert waits == []


@pytest.mark.parametrize("trouble", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), reply(503)])
def test_a_post_that_surely_did_not_happen_is_repeated(client: Callable[..., Either], waits: list[float], trouble: Step) -> None:
    """It never reached the server, or the server says that nothing was stored."""
    script = Script(trouble, ok())
    client(script).run("request", "POST", "/v1/keys", content=b"{}")
    assert len(script.requests) == 2


def test_advice_is_obeyed(client: Callable[..., Either], waits: list[float]) -> None:
    """Never earlier than Retry-After says, in seconds or as a date."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    script = Script(reply(503, headers={"Retry-After": "2"}), reply(429, headers={"Retry-After": date}), ok())
    client(script, patience_s=20.0).run("send", "a.b", "u")
    assert 2.0 <= waits[0] <= 2.2
    assert 1.5 <= waits[1] <= 3.3


def test_patience_ends_before_a_pause_that_is_too_long(client: Callable[..., Either], waits: list[float]) -> None:
    """The caller hears at once, with the server's own words and where it was asked."""
    body = {"detail": "the disk is full", "code": "disk_full"}
    script = Script(reply(503, headers={"Retry-After": "60"}, json=body))
    with pytest.raises(UnavailableError, match=r"the disk is full \[disk_full\] \(http://127.0.0.1:8420\)"):
        client(script).run("send", "a.b", "u")
    assert waits == []


def test_patience_ends_after_many_attempts(client: Callable[..., Either]) -> None:
    """Real pauses, a short patience: several attempts, then the reason of the last."""
    script = Script(httpx.ConnectError("nobody listens"))
    with pytest.raises(UnavailableError, match="ConnectError: nobody listens"):
        client(script, patience_s=0.4).run("send", "a.b", "u")
    assert len(script.requests) >= 2


def test_a_refusal_names_the_place(client: Callable[..., Either]) -> None:
    """Line, pointer and message of the first fault, how many more, and the document itself; asked once."""
    errors = [{"line": 2, "pointer": "/actor", "message": "is missing"}, {"line": 3, "pointer": "", "message": "x"}]
    script = Script(reply(422, json={"detail": "no events", "code": "events_invalid", "errors": errors}))
    with pytest.raises(ProblemError) as caught:
        client(script).run("send", "a.b", "u")
    assert str(caught.value) == "no events [events_invalid] (line 2, /actor: is missing and 1 more)"
    assert (caught.value.status, caught.value.problem["errors"]) == (422, errors)
    assert len(script.requests) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"errors":["x"]}', b'{"errors":{}}', b""])
def test_a_refusal_of_someone_else_is_still_an_error(client: Callable[..., Either], body: bytes) -> None:
    """A proxy's page is no problem document; its status and text are what there is to say."""
    with pytest.raises(ProblemError) as caught:
        client(Script(reply(404, content=body))).run("send", "a.b", "u")
    assert caught.value.status == 404


@pytest.mark.parametrize("answer", [reply(302, headers={"Location": "/"}), reply(200, text="hello"), ok([])])
def test_an_answer_that_is_none_of_ours_is_no_success(client: Callable[..., Either], answer: Step) -> None:
    """Another server on that port must not look like a durable event."""
    with pytest.raises(ProblemError):
        client(Script(answer)).run("send", "a.b", "u")


def test_search_follows_pages_up_to_a_limit(client: Callable[..., Either]) -> None:
    """Each page's cursor leads to the next; the last request asks only for what is missing."""
    script = Script(ok({"events": [{"n": 1}, {"n": 2}], "next": "c1"}), ok({"events": [{"n": 3}], "next": "c2"}))
    found = client(script).run("search", "action:a", limit=3, from_="-24h", tenant=None)
    assert [event["n"] for event in found] == [1, 2, 3]
    params = [dict(request.url.params) for request in script.requests]
    assert params == [
        {"query": "action:a", "from": "-24h", "limit": "3"},
        {"query": "action:a", "from": "-24h", "limit": "1", "cursor": "c1"},
    ]


def test_search_ends_with_the_last_page(client: Callable[..., Either]) -> None:
    """No cursor, no further request; nothing is asked for nothing."""
    script = Script(ok({"events": [{"n": 1}], "next": None}))
    assert len(client(script).run("search")) == 1
    assert client(script).run("search", limit=0) == []
    assert len(script.requests) == 1


def test_documents_are_read_and_posted() -> None:
    """An empty answer is None."""
    script = Script(ok({"a": 1}), ok({"b": 2}), reply(204))
    with Client(URL, "ts_a_b", transport=httpx.MockTransport(script)) as client:
        assert client.get("/v1/status", tenant="a") == {"a": 1}
        assert client.post("/v1/tenants", {"name": "x"}) == {"b": 2}
        assert client.post("/v1/destinations/d/pause") is None
    assert script.bodies[1:] == [b'{"name":"x"}', b"{}"]


def test_streams_arrive_and_break_with_an_error_of_ours() -> None:
    """Lines and bytes as they come; a refusal is a ProblemError, a lost connection an UnavailableError."""

    def broken() -> Iterator[bytes]:
        yield b"a\n"
        raise httpx.ReadError("reset")

    script = Script(
        reply(200, content=b"a\nb\n"),
        reply(200, content=b"xyz"),
        reply(403, json={"detail": "no"}),
        lambda: httpx.Response(200, content=broken()),
        httpx.ConnectError("refused"),
    )
    with Client(URL, "ts_a_b", transport=httpx.MockTransport(script)) as client:
        assert list(client.stream("/v1/export")) == ["a", "b"]
        assert b"".join(client.stream_bytes("/v1/export")) == b"xyz"
        with pytest.raises(ProblemError, match="no"):
            list(client.stream("/v1/export"))
        for _ in range(2):
            with pytest.raises(UnavailableError):
                list(client.stream("/v1/export"))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is passed wins; without a key, or with one that is none, the error says what to set."""
    monkeypatch.setenv("TALLYSTICK_URL", "http://there:1/")
    monkeypatch.setenv("TALLYSTICK_KEY", "ts_env")
    assert wire.settings_from_environment(None, None) == ("http://there:1", "ts_env")
    assert wire.settings_from_environment(URL, "ts_x") == (URL, "ts_x")
    for key in ("ts_a\nb", "ts_ä", "two words"):
        with pytest.raises(ConfigError, match="none"):
            wire.settings_from_environment(None, key)
    with pytest.raises(ConfigError, match="no address"):
        wire.settings_from_environment("127.0.0.1:8420", "ts_x")
    monkeypatch.delenv("TALLYSTICK_KEY")
    with pytest.raises(ConfigError, match="TALLYSTICK_KEY"):
        Client(URL)


def test_pauses_grow_and_vary() -> None:
    """Up to ten seconds, never none, so that many clients do not come back at the same moment."""
    for attempt, most in ((0, 0.1), (3, 0.8), (50, 10.0)):
        pauses = {wire.pause_s(attempt, 0.0) for _ in range(50)}
        assert 0 < min(pauses) <= max(pauses) <= most
        assert len(pauses) > 10


def test_the_package_offers_the_client_without_loading_it() -> None:
    """`tallystick.Client` is there, but importing the package costs no HTTP library."""
    program = (
        "import sys, tallystick\n"
        "assert 'httpx' not in sys.modules\n"
        "assert tallystick.Client.__name__ == 'Client' and tallystick.AsyncClient\n"
        "assert 'httpx' in sys.modules\n"
        "try:\n    tallystick.Nothing\nexcept AttributeError as error:\n    assert 'Nothing' in str(error)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
