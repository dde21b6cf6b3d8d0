"""The other doors under attack: declared sources, management calls, HEAD, upgrades, repeats in flight, records that nobody can read."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.raw_http import RawConnection, exchange, head
from support.server import wait_for
from support.target import Target, event, event_text, run_target

CONFIGURATION = """
[limits]
body = "4MiB"
[sources.github]
type = "http"
mapping = "github_audit"
tenant = "default"
[sources.any]
type = "http"
mapping = "generic"
tenant = "default"
"""
JSON = ["Content-Type: application/json"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with run_target(tmp_path_factory.mktemp("doors"), CONFIGURATION) as running:
        yield running


# --- declared sources: whatever comes is stored or kept aside, and named


@pytest.mark.parametrize(
    "record",
    [
        b"not json", b"{", b"[" * 50_000, b"42", b"null", b'"x"', b'{"a":1,"a":2}', b'{"n":NaN}', b'{"n":1e400}', b'{"s":"\\ud800"}', b"\xff\xfe\xfd",
        b'{"s":"a\\u0000b"}', b"\x00" * 1_000, b'{"k":"' + b"x" * 2_000_000 + b'"}', b"x" * 3_000_000, b"{}", b'{"action":"a b c","actor":{}}',
        b'{"action":["x"],"actor":5,"@timestamp":"never"}', b'{"@timestamp":1e300}', b'{"@timestamp":-99999999999999999999}',
        b'{"' + b"k" * 100_000 + b'":1}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("source", ["github", "any"])
def test_a_source_keeps_what_it_cannot_read(target: Target, source: str, record: bytes) -> None:
    """200 with one event or one quarantined record, none lost; what was kept aside is kept to the byte."""
    media = {"Content-Type": "application/x-ndjson"}
    answer = target.server.http.post(f"/v1/in/{source}", content=record, headers=media)
    assert answer.status_code == 200, answer.text[:300]
    page = answer.json()
    assert page["accepted"] + page["duplicates"] + len(page["quarantined"]) == 1
    if page["quarantined"]:
        wait_for(lambda: record in kept_records(target, source), "the record to be kept to the byte")


def kept_records(target: Target, source: str) -> list[bytes]:
    """The bytes of what a source's quarantine got last."""
    rows = target.server.http.get("/v1/quarantine", params={"limit": "1000", "source": source}).json()["records"]
    details = [target.server.http.get(f"/v1/quarantine/{row['id']}").json() for row in rows[-2:]]
    return [base64.b64decode(item["data"]) if item["encoding"] == "base64" else item["data"].encode() for item in details]


def test_a_source_in_reject_mode(target: Target) -> None:
    """`on_invalid=reject` holds for sources too: one record that does not map refuses all."""
    good = {"action": "repo.create", "actor": "octocat", "org": "acme", "@timestamp": 1_700_000_000_000, "_document_id": "gh-9"}
    with target.unchanged():
        answer = target.server.http.post(
            "/v1/in/github",
            content=json.dumps(good).encode() + b'\n{"nothing":"known"}',
            headers={"Content-Type": "application/x-ndjson"},
            params={"on_invalid": "reject"},
        )
    assert answer.status_code == 422
    assert [row["line"] for row in answer.json()["errors"]] == [2]


@pytest.mark.parametrize("name", ["nowhere", "events", "tallystick", "", "github/x", "GITHUB", "%2e%2e", "a" * 300, "github%20"])
def test_sources_that_are_none(target: Target, name: str) -> None:
    """404, or 400 for what is no plain path; also for the names of what is built in."""
    with target.unchanged():
        assert target.server.http.post(
            f"/v1/in/{name}", content=b"{}", headers={"Content-Type": "application/json"}
        ).status_code in (400, 404)


@pytest.mark.parametrize("body", [b"x" * 3_900_000, b"\xff" * 3_900_000, b"{" * 3_900_000, b"\n".join([b"x" * 60_000] * 60)])
def test_megabytes_of_nonsense_in_quarantine_mode(target: Target, body: bytes) -> None:
    """Kept aside whole, or refused by a stated limit; never an error of ours."""
    answer = target.post(body, on_invalid="quarantine")
    assert answer.status_code in (200, 413), answer.text[:300]
    if answer.status_code == 200:
        assert answer.json()["accepted"] == 0
        assert len(answer.json()["quarantined"]) == body.count(b"\n") + 1


# --- management calls


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"42", b"{", b"[" * 100_000, b'{"owner":"x"}', b'{"owner":"","permissions":["read"]}', b'{"owner":"x","permissions":[]}',
        b'{"owner":"x","permissions":"read"}', b'{"owner":"x","permissions":["root"]}', b'{"owner":"x","permissions":["read"],"admin":true}',
        b'{"owner":"x\\n","permissions":["read"]}', b'{"owner":"\\u0000","permissions":["read"]}', b'{"owner":"\\ud800","permissions":["read"]}',
        b'{"owner":"x","permissions":["read"],"tenants":["../x"]}', b'{"owner":"x","permissions":["read"],"expires_at":"tomorrow"}',
        b'{"owner":"x","permissions":["read"],"expires_at":"2099-01-01T00:00:00"}', b'{"owner":"x","permissions":["read"],"expires_at":1e400}',
        b'{"owner":"' + b"x" * 300 + b'","permissions":["read"]}', b"\xff\xfe", b'{"owner":"\xff","permissions":["read"]}', b'{"owner":NaN,"permissions":["read"]}',
        b'{"owner":"a","owner":"b","permissions":["read"]}',
    ],
)  # fmt: skip
def test_malformed_management_bodies(target: Target, body: bytes) -> None:
    """400 or 422 as problem documents, on every call that takes a body; no key is made."""
    before = len(target.server.http.get("/v1/keys").json()["keys"])
    for path in ("/v1/keys", "/v1/tenants", "/v1/destinations/x/replay", "/v1/dead-letters/x:1/discard"):
        answer = target.server.http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 404, 422), (path, answer.status_code, answer.text[:300])
        assert answer.headers["content-type"] == "application/problem+json"
    assert len(target.server.http.get("/v1/keys").json()["keys"]) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({}, 415),
    ],
)
def test_management_takes_plain_json_alone(target: Target, headers: dict[str, str], status: int) -> None:
    """Another type, charset or encoding: 415 (a form from a foreign page is none of ours)."""
    body = b'{"owner":"x","permissions":["read"]}'
    sent = gzip.compress(body) if "Content-Encoding" in headers else body
    assert target.server.http.post("/v1/keys", content=sent, headers=headers).status_code == status


def test_a_chunked_management_body_has_the_same_limit(target: Target) -> None:
    """413 past one MiB, with and without a Content-Length; a small chunked one is taken."""
    body = json.dumps({"owner": "chunked", "permissions": ["read"]}).encode()
    chunked = head(target="/v1/keys", headers=[*JSON, "Transfer-Encoding: chunked"])
    port = target.server.port
    assert exchange(port, chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)).status == 201
    piece = b" " * 65_536
    assert exchange(port, chunked + b"10000\r\n%b\r\n" % piece * 32 + b"0\r\n\r\n").status == 413
    assert exchange(port, head(target="/v1/keys", headers=[*JSON, "Content-Length: 2097152"]) + piece * 32).status == 413


# --- HTTP on the way to the api process


QUERIES = {"/v1/report": "?framework=soc2"}
"""What calls need that cannot do without."""


def test_head_is_get_without_a_body(target: Target) -> None:
    """On every reading call, the endless one too; the connection stays usable."""
    document = target.server.http.get("/openapi.json").json()
    with RawConnection(target.server.port) as connection:
        for path, item in document["paths"].items():
            if "get" in item and "{" not in path:
                connection.send(head("HEAD", path + QUERIES.get(path, "")))
                answer = connection.answer("HEAD")
                assert answer.status == 200, path
                assert answer.body == b""
                if answer.headers.get("connection") == "close":
                    connection.socket.close()
                    connection.__init__(target.server.port)  # type: ignore[misc]
        connection.send(head("GET", "/healthz/live"))
        assert connection.answer("GET").body == b'{"live":true}'


@pytest.mark.parametrize("path", ["/v1/events", "/v1/tail", "/v1/status", "/"])
def test_upgrades_are_not_offered(target: Target, path: str) -> None:
    """WebSocket and HTTP/2 upgrades are ignored or refused, never switched to."""
    for lines in (
        ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"],
        ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"],
    ):
        with RawConnection(target.server.port) as connection:
            connection.send(head("GET", path, lines))
            first = connection.receive()
            assert first.startswith(b"HTTP/1.1 "), first
            assert not first.startswith(b"HTTP/1.1 101")


def test_a_reader_that_goes_away_leaves_nothing_behind(target: Target) -> None:
    """More exports and tails than may be open at once, each broken off: the next one is served."""
    target.accept(b"\n".join(event_text(metadata={"k": "x" * 10_000}) for _ in range(300)))
    for path in ("/v1/export", "/v1/tail"):
        for _ in range(70 if path == "/v1/tail" else 10):
            with RawConnection(target.server.port) as connection:
                connection.send(head("GET", path))
                assert connection.receive(100).startswith((b"HTTP/1.1 200", b"HTTP/1.1 503"))
    wait_for(
        lambda: target.server.http.get("/v1/export", params={"query": "action:none"}).status_code == 200, "exports to be free again"
    )
    wait_for(lambda: _tail_status(target) == 200, "tails to be free again")


def _tail_status(target: Target) -> int:
    with target.server.http.stream("GET", "/v1/tail") as answer:
        return answer.status_code


# --- ids in flight


def test_repeats_in_flight_are_one_event(target: Target) -> None:
    """Twenty senders with the same id and content at once: one is accepted, the others are told its place."""
    sent = [event() for _ in range(50)]
    body = "\n".join(map(json.dumps, sent)).encode()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: target.accept(body), range(20)))
    assert sum(answer["accepted"] for answer in answers) == 50
    assert sum(answer["duplicates"] for answer in answers) == 19 * 50
    assert len({json.dumps(answer["receipts"][0]["ranges"]) for answer in answers}) == 1
    assert len({answer["receipts"][0]["batch_root"] for answer in answers}) == 1
    assert len(target.export("id:" + sent[0]["id"])) == 1


def test_other_content_in_flight_is_a_conflict(target: Target) -> None:
    """Twenty different events under one id at once: one is accepted, nineteen are 409."""
    name = event()["id"]
    with ThreadPoolExecutor(20) as pool:
        bodies = [json.dumps({"id": name, "action": "a.b", "actor": f"u_{number}"}).encode() for number in range(20)]
        answers = list(pool.map(target.post, bodies))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    assert len(target.export(f"id:{name}")) == 1


def test_many_tenants_in_one_request(target: Target) -> None:
    """Two hundred new tenants: one commit, one receipt each, and others are served meanwhile."""
    rows = [event(tenant=f"many-{number}") for number in range(200)]
    answer = target.accept("\n".join(map(json.dumps, rows)).encode())
    assert answer["accepted"] == 200
    assert len({receipt["log"] for receipt in answer["receipts"]}) == 200
