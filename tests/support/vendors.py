"""Vendors' APIs for tests: small HTTP servers that answer as the documentation of each says, page by page, limits and errors included.

Each holds numbered records and hands them out; ``trouble`` is a list of answers that come first, one a request. ``requests`` are what was asked.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

PAGE = 3


@dataclass
class Answer:
    """What a vendor says."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass
class Vendor:
    """``at`` are the records' times (Unix seconds) by number; ``answer`` is one of the functions below."""

    answer: Callable[[Vendor, Asked], Answer]
    base: str = ""
    at: list[float] = field(default_factory=list)
    trouble: list[Answer] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)
    authorization: str | None = None
    public_key: rsa.RSAPublicKey | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int, age_s: float = 60.0) -> None:
        """More records, that old."""
        with self.lock:
            self.at += [time.time() - age_s] * count

    def within(self, since: float, until: float) -> list[int]:
        return [number for number, at in enumerate(self.at) if since <= at <= until]


def okta(vendor: Vendor, asked: Asked) -> Answer:
    """System Log: a Link that holds for ever, also on the empty last page; X-Rate-Limit-*."""
    if asked.path != "/api/v1/logs":
        return Answer(404)
    after = int(asked.query.get("after", "0"))
    found = [
        _record(
            vendor, n, uuid=f"u-{n}", published=_rfc(vendor.at[n]), eventType="user.session.start", severity="INFO", version="0"
        )
        for n in range(after, min(after + PAGE, len(vendor.at)))
    ]
    following = f"{vendor.base}/api/v1/logs?{urlencode({**asked.query, 'after': after + len(found)})}"
    links = f'<{vendor.base}/api/v1/logs>; rel="self", <{following}>; rel="next"'
    return Answer(
        200,
        found,
        {
            "Link": links,
            "X-Rate-Limit-Limit": "60",
            "X-Rate-Limit-Remaining": "59",
            "X-Rate-Limit-Reset": str(int(time.time()) + 60),
        },
    )


def github(vendor: Vendor, asked: Asked) -> Answer:
    """Audit log of an organisation: a search phrase, and a Link while there are more pages."""
    if asked.path != "/orgs/acme/audit-log" or not asked.query["phrase"].startswith("created:>="):
        return Answer(404, {"message": "Not Found"})
    found = vendor.within(_unix(asked.query["phrase"].removeprefix("created:>=")), 1e12)
    after = int(asked.query.get("after", "0"))
    page = [
        _record(
            vendor,
            n,
            _document_id=f"d-{n}",
            action="repo.create",
            actor="octocat",
            org="acme",
            **{"@timestamp": int(vendor.at[n] * 1000)},
        )
        for n in found[after : after + PAGE]
    ]
    headers = {"X-RateLimit-Remaining": "1700", "X-RateLimit-Reset": str(int(time.time()) + 3600)}
    if after + PAGE < len(found):
        headers["Link"] = f'<{vendor.base}{asked.path}?{urlencode({**asked.query, "after": after + PAGE})}>; rel="next"'
    return Answer(200, page, headers)


def slack(vendor: Vendor, asked: Asked) -> Answer:
    """Audit logs: newest first, a cursor in the body that is empty at the end."""
    if asked.path != "/audit/v1/logs":
        return Answer(404)
    found = vendor.within(float(asked.query["oldest"]), float(asked.query["latest"]))[::-1]
    after = int(base64.b64decode(asked.query.get("cursor", "MA==")))
    entries = [
        _record(
            vendor,
            n,
            id=f"s-{n}",
            date_create=int(vendor.at[n]),
            action="user_login",
            actor={"type": "user", "user": {"id": "W1"}},
            context={"ip_address": "192.0.2.1"},
        )
        for n in found[after : after + PAGE]
    ]
    following = base64.b64encode(str(after + PAGE).encode()).decode() if after + PAGE < len(found) else ""
    return Answer(200, {"entries": entries, "response_metadata": {"next_cursor": following}})


def google(vendor: Vendor, asked: Asked) -> Answer:
    """Reports API: `items` is left out when there are none; tokens for a signed assertion at /token."""
    if asked.path == "/token":
        return _google_token(vendor, asked)
    if not asked.path.startswith("/admin/reports/v1/activity/users/all/applications/"):
        return Answer(404)
    application = asked.path.rpartition("/")[2]
    found = vendor.within(_unix(asked.query["startTime"]), _unix(asked.query["endTime"]))
    after = int(asked.query.get("pageToken", "0"))
    page: dict[str, Any] = {"kind": "admin#reports#activities"}
    if found[after : after + PAGE]:
        page["items"] = [
            _record(
                vendor,
                n,
                id={"time": _rfc(vendor.at[n]), "uniqueQualifier": str(n), "applicationName": application},
                actor={"email": "a@example.com"},
                events=[{"type": "login", "name": "login_success"}],
            )
            for n in found[after : after + PAGE]
        ]
    if after + PAGE < len(found):
        page["nextPageToken"] = str(after + PAGE)
    return Answer(200, page)


def microsoft365(vendor: Vendor, asked: Asked) -> Answer:
    """Management Activity API: start, list in windows of a day at most, NextPageUri, fetch; tokens at /token."""
    if asked.path == "/token":
        return Answer(200, {"access_token": f"t{len(vendor.requests)}", "expires_in": 3600, "token_type": "Bearer"})
    root = "/api/v1.0/7c0e/activity/feed"
    if asked.path == f"{root}/subscriptions/start" and asked.method == "POST":
        started = sum(1 for one in vendor.requests if one.path == asked.path) > 1
        return (
            Answer(400, {"error": {"code": "AF20024", "message": "The subscription is already enabled."}})
            if started
            else Answer(200, {"status": "enabled"})
        )
    if asked.path.startswith(f"{root}/audit/"):
        number = int(asked.path.rpartition("-")[2])
        if number == 1_000_000:
            return Answer(404, {"error": {"code": "AF20051", "message": "Content requested with the key has already expired."}})
        return Answer(
            200,
            [
                _record(vendor, n, Id=f"m-{n}", CreationTime=_rfc(vendor.at[n]).removesuffix("Z"), Operation="UserLoggedIn")
                for n in (number, number + 1)
                if n < len(vendor.at)
            ],
        )
    if asked.path != f"{root}/subscriptions/content":
        return Answer(404)
    since, until = _unix(asked.query["startTime"]), _unix(asked.query["endTime"])
    if until - since > 86_400:
        return Answer(
            400, {"error": {"code": "AF20055", "message": "startTime and endTime must be less than or equal to 24 hours apart."}}
        )
    blobs = [n for n in vendor.within(since, until) if n % 2 == 0]
    after = int(asked.query.get("nextPage", "0"))
    listed = [
        {"contentType": "Audit.General", "contentId": f"b-{n}", "contentUri": f"{vendor.base}{root}/audit/b-{n}"}
        for n in blobs[after : after + PAGE]
    ]
    headers = {}
    if after + PAGE < len(blobs):
        headers["NextPageUri"] = f"{vendor.base}{asked.path}?{urlencode({**asked.query, 'nextPage': after + PAGE})}"
    return Answer(200, listed, headers)


def auth0(vendor: Vendor, asked: Asked) -> Answer:
    """Checkpoint pagination: `from` the last id; tokens at /oauth/token."""
    if asked.path == "/oauth/token":
        return (
            Answer(200, {"access_token": "a0", "expires_in": 86400}) if asked.body["audience"].endswith("/api/v2/") else Answer(403)
        )
    if asked.path != "/api/v2/logs":
        return Answer(404)
    start = int(asked.query["from"].removeprefix("9002")) + 1 if "from" in asked.query else 0
    found = range(start, min(start + PAGE, len(vendor.at)))
    headers = {"x-ratelimit-limit": "50", "x-ratelimit-remaining": "49", "x-ratelimit-reset": str(int(time.time()) + 1)}
    return Answer(200, [_record(vendor, n, log_id=f"9002{n:08d}", date=_rfc(vendor.at[n]), type="s") for n in found], headers)


def onepassword(vendor: Vendor, asked: Asked) -> Answer:
    """Events API: POST with a reset cursor first, then with the cursor alone."""
    if asked.path != "/api/v2/auditevents" or asked.method != "POST":
        return Answer(404)
    if set(asked.body) not in ({"limit", "start_time"}, {"cursor"}):
        return Answer(400, {"Error": {"Message": "either a cursor or a reset cursor"}})
    after = int(asked.body.get("cursor", "0"))
    found = range(after, min(after + PAGE, len(vendor.at)))
    items = [_record(vendor, n, uuid=f"o-{n}", timestamp=_rfc(vendor.at[n]), action="view", object_type="vault") for n in found]
    return Answer(200, {"cursor": str(after + len(items)), "has_more": after + PAGE < len(vendor.at), "items": items})


@contextmanager
def serve(answer: Callable[[Vendor, Asked], Answer]) -> Iterator[Vendor]:
    """A vendor on a free port, until the end of the block."""
    vendor = Vendor(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            url = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("content-length", "0")))
            kind = self.headers.get("content-type", "")
            body = _single(raw.decode()) if "form" in kind else json.loads(raw) if raw else None
            asked = Asked(
                self.command, url.path, _single(url.query), body, {name.lower(): value for name, value in self.headers.items()}
            )
            with vendor.lock:
                vendor.requests.append(asked)
                reply = vendor.trouble.pop(0) if vendor.trouble and "token" not in url.path else self._answer(asked)
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def _answer(self, asked: Asked) -> Answer:
            if vendor.authorization is not None and asked.headers.get("authorization") != vendor.authorization:
                return Answer(401, {"message": "Bad credentials"})
            return answer(vendor, asked)

        do_GET = do_POST = _serve  # noqa: N815 - the names that the base class calls

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    vendor.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield vendor
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _record(vendor: Vendor, number: int, /, **members: Any) -> dict[str, Any]:
    return {**members, "number": number}


def _single(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query).items()}


def _rfc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unix(text: str) -> float:
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _google_token(vendor: Vendor, asked: Asked) -> Answer:
    head, claims, signature = asked.body["assertion"].split(".")
    try:
        assert vendor.public_key is not None
        vendor.public_key.verify(_unpad(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
        said = json.loads(_unpad(claims))
        assert said["aud"] == f"{vendor.base}/token"
        assert said["exp"] - said["iat"] <= 3600
        assert said["sub"] == "admin@example.com"
    except Exception:
        return Answer(400, {"error": "invalid_grant"})
    return Answer(200, {"access_token": "g1", "expires_in": 3599})


def _unpad(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
