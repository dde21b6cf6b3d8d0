"""Clients of the sources that take HTTP, for `support.source_ledger`: HEC, the Kubernetes webhook, signed hooks, OTLP and audit records."""

from __future__ import annotations

import hmac
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from standardwebhooks import Webhook

from support.audit import audit_record
from support.otlp import log_record, log_request
from support.server import ADMIN_KEY, Server
from support.source_ledger import Send, Sender, Sent

SECRET = "a-secret-for-hooks-under-test"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CONFIGURATION = f"""
[sources.github]
type = "http"
verify = "github"
secret = "{SECRET}"
tenant = "default"
[sources.slack]
type = "http"
verify = "slack"
secret = "{SECRET}"
tenant = "default"
[sources.okta]
type = "http"
verify = "okta"
secret = "{SECRET}"
tenant = "default"
[sources.standard]
type = "http"
verify = "standard"
secret = "{STANDARD_SECRET}"
tenant = "default"
"""
CHANNEL = str(uuid.uuid4())
_TOKEN = {"Authorization": f"Splunk {ADMIN_KEY}"}
_JSON = {"Content-Type": "application/json"}

_PROTOBUF = {"Content-Type": "application/x-protobuf", "Authorization": f"Bearer {ADMIN_KEY}"}

Request = tuple[str, dict[str, str], bytes]


def hec_with_ids(marks: list[str]) -> Request:
    return (
        "/services/collector/event",
        _TOKEN,
        b"".join(_json({"event": {"id": mark, "user": "u_1", "mark": mark}}) for mark in marks),
    )


def hec_without_ids(marks: list[str]) -> Request:
    body = b"".join(_json({"time": 1772618400, "host": "web-1", "event": mark}) for mark in marks)
    return f"/services/collector/event?channel={CHANNEL}", _TOKEN, body


def hec_raw(marks: list[str]) -> Request:
    return "/services/collector/raw", _TOKEN, "\n".join(marks).encode()


def kubernetes(marks: list[str]) -> Request:
    entries = [
        {"verb": "get", "auditID": mark, "stage": stage, "user": {"username": "u_1"}, "stageTimestamp": "2026-03-04T10:00:00Z"}
        for mark, stage in zip(marks, ("RequestReceived", "ResponseComplete") * len(marks), strict=False)
    ]
    return (
        "/v1/kubernetes?timeout=30s",
        _JSON | {"Authorization": f"Bearer {ADMIN_KEY}"},
        _json({"kind": "EventList", "items": entries}),
    )


def github(marks: list[str]) -> Request:
    body = _lines(marks)
    mac = hmac.new(SECRET.encode(), body, "sha256").hexdigest()
    return "/v1/in/github", {"Content-Type": "application/x-ndjson", "X-Hub-Signature-256": f"sha256={mac}"}, body


def slack(marks: list[str]) -> Request:
    body, stamp = _lines(marks), str(int(time.time()))
    mac = hmac.new(SECRET.encode(), b"v0:%b:%b" % (stamp.encode(), body), "sha256").hexdigest()
    headers = {"Content-Type": "application/x-ndjson", "X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={mac}"}
    return "/v1/in/slack", headers, body


def okta(marks: list[str]) -> Request:
    return "/v1/in/okta", {"Content-Type": "application/x-ndjson", "Authorization": SECRET}, _lines(marks)


def standard(marks: list[str]) -> Request:
    body, now, message = _lines(marks), datetime.now(UTC), f"msg_{marks[0].rpartition(':')[2]}"
    headers = {
        "Content-Type": "application/x-ndjson",
        "webhook-id": message,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(STANDARD_SECRET).sign(message, now, body.decode()),
    }
    return "/v1/in/standard", headers, body


def otlp(marks: list[str]) -> Request:
    return "/v1/logs", _PROTOBUF, log_request(*(log_record(mark) for mark in marks)).SerializeToString()


def audit(marks: list[str]) -> Request:
    return "/v1/audit", _PROTOBUF, log_request(audit_record(marks[0])).SerializeToString()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _lines(marks: list[str]) -> bytes:
    return b"\n".join(_json({"user": "u_1", "mark": mark}) for mark in marks)


def _http(make: Callable[[list[str]], Request], *, merges: bool = True, batch: int = 12) -> Sender:
    @contextmanager
    def opened(server: Server) -> Iterator[Send]:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            yield lambda marks: _post(client, *make(marks))

    return Sender(make.__name__, opened, merges=merges, batch=batch)


def _post(client: httpx.Client, path: str, headers: dict[str, str], body: bytes) -> Sent:
    try:
        answer = client.post(path, content=body, headers=headers)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return Sent()
    except httpx.TransportError:
        return Sent(is_unanswered=True)
    if answer.status_code == 200:
        is_acked = "application/json" in answer.headers.get("content-type", "") and "ackId" in answer.text
        return Sent(is_accepted=True, ack=answer.json()["ackId"] if is_acked else None)
    return Sent(odd="" if answer.status_code in (429, 503) else f"{answer.status_code} {answer.text[:200]}")


# What has no id of its own, and no delivery that is named, cannot be merged with its repeat.
FORWARDERS = (
    _http(hec_with_ids),
    _http(hec_without_ids, merges=False),
    _http(hec_raw, merges=False),
    _http(kubernetes),
    _http(github),
    _http(slack),
    _http(okta),
    _http(standard),
)
OPENTELEMETRY = (_http(otlp, merges=False), _http(audit, batch=1))
