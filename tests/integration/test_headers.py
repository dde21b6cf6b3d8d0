"""RELIABILITY "Secure defaults" 11, 12 and 16: what every answer carries, and what no request can claim."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.raw_http import exchange, head
from support.target import Target, run_target


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with run_target(tmp_path_factory.mktemp("headers")) as running:
        yield running


ANSWERS = [
    (200, head("GET", "/healthz/live")),
    (200, head("GET", "/v1/status")),
    (200, head("GET", "/")),
    (200, head("GET", "/docs")),
    (200, head("GET", "/openapi.json")),
    (200, head("GET", "/metrics")),
    (200, head("GET", "/v1/export")),
    (200, head("GET", "/login", key="")),
    (401, head("GET", "/v1/status", key="")),
    (401, head("GET", "/", key="")),
    (401, head("POST", "/v1/events", ["Content-Length: 0"], key="")),
    (404, head("GET", "/v1/nowhere")),
    (405, head("DELETE", "/v1/events")),
    (405, head("PUT", "/v1/status")),
    (421, head("GET", "/", ["Host: evil.example"])),
    (400, b"x\r\n\r\n"),
    (400, head("GET", "/%00")),
    (431, head("GET", "/", ["X: " + "x" * 70_000])),
    (413, head("POST", "/v1/events", ["Content-Length: 99999999999"])),
    (413, head("POST", "/v1/keys", ["Content-Length: 2000000", "Content-Type: application/json"]) + b" " * 2_000_000),
    (415, head("POST", "/v1/events", ["Content-Length: 0", "Content-Type: text/html"])),
]


@pytest.mark.parametrize(("status", "request_bytes"), ANSWERS, ids=lambda value: str(value)[:60])
def test_security_headers_are_on_every_answer(target: Target, status: int, request_bytes: bytes) -> None:
    """CSP without inline script, nosniff, no referrer, no store, same-origin; no version, and no foreign origin let in."""
    answer = exchange(target.server.port, request_bytes, "GET")
    assert answer.status == status
    headers = answer.headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in headers if name in ("server", "x-powered-by") or name.startswith("access-control")]
    if status >= 400 and "text/html" not in headers["content-type"]:
        assert headers["content-type"] == "application/problem+json"


def test_no_origin_is_let_in(target: Target) -> None:
    """No CORS: neither for a simple request nor for a preflight."""
    origin = [
        "Origin: https://evil.example",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: authorization",
    ]
    for method in ("GET", "OPTIONS"):
        answer = exchange(target.server.port, head(method, "/v1/status", origin), method)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_forwarded_headers_change_nothing(target: Target) -> None:
    """Whoever claims another host, scheme, address or tenant is who the connection and the key say."""
    claims = ["X-Forwarded-For: 10.9.9.9", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "Forwarded: for=10.9.9.9", "X-Scope-OrgID: other",
              "X-Real-IP: 10.9.9.9", "X-Original-URL: /v1/keys", "X-HTTP-Method-Override: DELETE", "X-Tenant: other"]  # fmt: skip
    plain = exchange(target.server.port, head("GET", "/v1/tenants"), "GET")
    claimed = exchange(target.server.port, head("GET", "/v1/tenants", claims), "GET")
    assert (claimed.status, claimed.body) == (plain.status, plain.body)
    assert "strict-transport-security" not in claimed.headers
