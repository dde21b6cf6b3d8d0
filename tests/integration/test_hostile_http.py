"""RELIABILITY "Hostile inputs", HTTP: requests that no honest client sends, against the running server over raw sockets."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator

import pytest

from support.raw_http import RawConnection, exchange, head
from support.server import wait_for
from support.target import Target, event_text, run_target

BODY_MAX = 4 << 20
CONNECTIONS = 40
LIMITS = f"""
[limits]
body = "4MiB"
decompressed = "16MiB"
head_time = "1s"
body_time = "2s"
idle_time = "3s"
connections_per_address = {CONNECTIONS}
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with run_target(tmp_path_factory.mktemp("hostile"), LIMITS) as running:
        yield running
        running.check_ledger()


def test_a_body_over_the_limit_is_refused_before_it_is_read(target: Target) -> None:
    """413 comes on the Content-Length alone; then the connection is closed."""
    with target.unchanged(), RawConnection(target.server.port) as connection:
        connection.send(head(headers=[f"Content-Length: {BODY_MAX + 1}"]))
        answer = connection.answer()
        assert answer.status == 413
        assert answer.headers["connection"] == "close"
        assert connection.wait_closed(5) < 4


def test_a_chunked_body_is_refused_at_the_limit(target: Target) -> None:
    """Chunks that pass the limit end in 413, although each line before it was a good event."""
    line = event_text(metadata={"k": "x" * 60_000}) + b"\n"
    chunk = b"%x\r\n%b\r\n" % (len(line), line)
    with target.unchanged(), RawConnection(target.server.port) as connection:
        connection.send_aside(head(headers=["Transfer-Encoding: chunked"]) + chunk * (BODY_MAX // len(line) + 2))
        assert connection.answer().status == 413


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: -1"],
        ["Content-Length: 1e3"],
        ["Content-Length: +5"],
        ["Content-Length: 0x10"],
        ["Content-Length: 99999999999999999999999999"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding : chunked"],
        ["Content-Length: 2", " folded: yes"],
        ["Content-Length: 2", "Host: localhost", "Host: elsewhere"],
        ["Content-Length: 2", "Authorization: Bearer a", "Authorization: Bearer b"],
        ["Content-Length: 2", "X-Bad: a\0b"],
        ["Content-Length: 2", "X Bad: a"],
    ],
)
def test_ambiguous_heads_are_refused(target: Target, headers: list[str]) -> None:
    """Lengths that are none, two lengths, and other heads that two readers could understand differently: 400."""
    with target.unchanged():
        assert exchange(target.server.port, head(headers=headers) + event_text()[:5]).status == 400


@pytest.mark.parametrize(
    "chunk", [b"-1\r\nab\r\n", b"zz\r\nab\r\n", b"2 2\r\nab\r\n", b"ffffffffffffffffff\r\nab\r\n", b"1\r\nabc\r\n"]
)
def test_malformed_chunks_are_refused(target: Target, chunk: bytes) -> None:
    """A chunk whose size is none, or not that of its data: 400, and nothing stored."""
    with target.unchanged():
        answer = exchange(target.server.port, head(headers=["Transfer-Encoding: chunked"]) + chunk + b"0\r\n\r\n")
    assert answer.status == 400


def test_a_slow_head_is_cut_off_and_others_are_served(target: Target) -> None:
    """A header byte now and then does not hold a connection past the head's deadline."""
    with RawConnection(target.server.port) as slow:
        started = time.monotonic()
        request = head(headers=["X-Slow: " + "s" * 400])
        for byte in request:
            if time.monotonic() - started > 4:
                break
            slow.send(bytes([byte]))
            assert target.server.http.get("/healthz/live").status_code == 200
            slow.socket.settimeout(0.1)
            try:
                if (first := slow.receive()) is not None:
                    assert first == b"" or first.startswith(b"HTTP/1.1 408"), first
                    break
            except TimeoutError:
                continue
        assert time.monotonic() - started < 4


def test_a_slow_body_gets_408(target: Target) -> None:
    """A body that has not arrived by its deadline is refused, though bytes keep coming."""
    body = event_text()
    with target.unchanged(), RawConnection(target.server.port) as slow:
        slow.send(head(headers=[f"Content-Length: {len(body)}"]))
        slow.socket.settimeout(0.5)
        for place in range(12):
            slow.send(body[place : place + 1])
            try:
                answer = slow.answer()
            except TimeoutError:
                continue
            assert answer.status == 408
            assert answer.headers["content-type"] == "application/problem+json"
            return
    pytest.fail("no 408 within 6 s")


def test_a_body_that_ends_early_stores_nothing(target: Target) -> None:
    """A sender that closes in the middle of its body has sent nothing, also when whole lines came."""
    body = event_text() + b"\n"
    with target.unchanged():
        with RawConnection(target.server.port) as connection:
            connection.send(head(headers=[f"Content-Length: {len(body) * 3}"]) + body * 2)
        with RawConnection(target.server.port) as connection:
            connection.send(head(headers=["Transfer-Encoding: chunked"]) + b"%x\r\n%b\r\n" % (len(body), body))
        assert target.server.http.get("/healthz/ready").status_code == 200


def test_idle_connections_are_capped_and_closed(target: Target) -> None:
    """Past the cap newcomers get 503, those who are there are served, and idle ones end by themselves."""
    with RawConnection(target.server.port) as early:
        idle = [RawConnection(target.server.port) for _ in range(CONNECTIONS)]
        try:
            refused = idle[-1].answer()
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) >= 1
            early.send(head("GET", "/healthz/ready"))
            assert early.answer("GET").status == 200
            assert idle[0].wait_closed(8) < 6
        finally:
            for connection in idle:
                connection.close()
    wait_for(lambda: _is_served(target), "the server to serve newcomers again", 10)


def _is_served(target: Target) -> bool:
    try:
        return exchange(target.server.port, head("GET", "/healthz/live"), "GET").status == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.parametrize(
    "request_head",
    [
        head("GET", "/healthz/live", ["X-Long: " + "x" * (1 << 20)]),
        head("GET", "/healthz/live", [f"X-{number}: 1" for number in range(10_000)]),
        head("GET", "/healthz/live", [f"X-{number}: 1" for number in range(150)]),
        head("GET", "/" + "x" * 100_000),
    ],
    ids=["one header of 1 MB", "10,000 headers", "150 headers", "a target of 100 KB"],
)
def test_large_heads_get_431(target: Target, request_head: bytes) -> None:
    """By size or by number of headers."""
    assert exchange(target.server.port, request_head, "GET").status == 431


@pytest.mark.parametrize("path", ["/v1/events", "/healthz/live", "/v1/status", "/v1/keys", "/nowhere"])
@pytest.mark.parametrize("method", ["TRACE", "FOO", "post", "CONNECT", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(target: Target, method: str, path: str) -> None:
    """405 with Allow, or 400 for what is no method at all; 404 where there is nothing."""
    answer = exchange(target.server.port, head(method, path, ["Content-Length: 0"]), method)
    allowed = {400, 405} | ({404} if path == "/nowhere" else set())
    assert answer.status in allowed
    assert answer.status != 405 or "GET" in answer.headers["allow"] or "POST" in answer.headers["allow"]


def test_expect_with_a_bad_key_is_refused_before_any_body(target: Target) -> None:
    """No 100 Continue is sent to a stranger."""
    bad = "Authorization: Bearer ts_testadmin01_" + "0" * 43
    with target.unchanged_but_for_its_own(), RawConnection(target.server.port) as connection:
        connection.send(head(headers=["Content-Length: 100", "Expect: 100-continue"], key=bad))
        first = connection.receive()
        assert first.startswith(b"HTTP/1.1 401")
        assert b"www-authenticate" in first.lower()


def test_expect_with_a_good_key_is_continued(target: Target) -> None:
    """The body is asked for, then accepted."""
    body = event_text()
    with RawConnection(target.server.port) as connection:
        connection.send(head(headers=[f"Content-Length: {len(body)}", "Expect: 100-continue"]))
        assert connection.receive().startswith(b"HTTP/1.1 100")
        connection.send(body)
        assert connection.answer().status == 200
    target.accepted.add(body.decode().split('"')[3])


@pytest.mark.parametrize(
    "target_path",
    [
        "//v1/events",
        "/v1//events",
        "/v1/./events",
        "/v1/../v1/events",
        "/v1/%2e%2e/v1/events",
        "/v1%2fevents",
        "/v1/events%00",
        "/v1/events%0d%0aX: y",
        "/%ff",
        "/v1\\events",
        "/v1/%2565vents",
    ],
)
def test_odd_paths_are_refused(target: Target, target_path: str) -> None:
    """A path is decoded once and refused when it is not plain, before anything is routed."""
    with target.unchanged():
        answer = exchange(target.server.port, head(target=target_path, headers=["Content-Length: 2"]) + b"{}")
    assert answer.status == 400


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8420", "localhost.evil.example", "", "127.0.0.1@evil.example", "[::1"]
)
def test_a_foreign_host_is_misdirected(target: Target, host: str) -> None:
    """421, on doors of the intake and of the api alike (DNS rebinding)."""
    for path in ("/v1/events", "/v1/status", "/healthz/live", "/"):
        assert exchange(target.server.port, head("GET", path, [f"Host: {host}"]), "GET").status in (400, 421)


def test_http_1_0_and_no_host(target: Target) -> None:
    """HTTP/1.1 without Host is 400, and garbage too."""
    for request in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"{}\r\n\r\n",
        b"GET / HTTP/3.7\r\nHost: localhost\r\n\r\n",
    ):
        assert exchange(target.server.port, request, "GET").status == 400


def test_pipelined_requests_are_answered_in_order(target: Target) -> None:
    """Two events and a look at health on one connection in one packet: three answers, in order."""
    first, second = event_text(), event_text()
    request = b"".join(head(headers=[f"Content-Length: {len(body)}"]) + body for body in (first, second))
    with RawConnection(target.server.port) as connection:
        connection.send(request + head("GET", "/healthz/live"))
        received = b""
        while b'{"live":true}' not in received:
            received += connection.receive()
    assert received.count(b"HTTP/1.1 200") == 3
    assert received.index(b'"accepted":1') < received.index(b'{"live":true}')
    target.accepted |= {body.decode().split('"')[3] for body in (first, second)}


def test_a_refused_request_smuggles_no_second_one(target: Target) -> None:
    """What follows a refused head on its connection is never read as a request."""
    inner = event_text()
    smuggled = head(headers=[f"Content-Length: {len(inner)}"]) + inner
    with target.unchanged():
        for headers in (
            ["Content-Length: 0", "Transfer-Encoding: chunked"],
            [f"Content-Length: {BODY_MAX + 1}"],
            ["Content-Length: x"],
        ):
            with RawConnection(target.server.port) as connection:
                connection.send(head(headers=headers) + b"0\r\n\r\n" + smuggled)
                assert connection.answer().status in (400, 413)
                connection.wait_closed(5)
