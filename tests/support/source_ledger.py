"""A ledger over several sources at once: what each client sent, was told, and what is there after each kill.

Every client sends batches of marked records in its protocol's own form, and the same batch again until it is answered with success, as
forwarders do. A record belongs to the kill point that was being waited for when it was made. After the last restart every cell of
the table source × kill point is judged: accepted records are there; records of a source whose ids merge repeats are there once,
others at most once more for each time that they went without an answer.
"""

from __future__ import annotations

import hmac
import json
import random
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from standardwebhooks import Webhook

from support.ledger import LedgerError
from support.server import ADMIN_KEY, Server

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
_MARK = re.compile(r"mark:([a-z_]+):(\d+)")
_TOKEN = {"Authorization": f"Splunk {ADMIN_KEY}"}
_JSON = {"Content-Type": "application/json"}

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


CLIENTS: dict[str, Callable[[list[str]], Request]] = {
    made.__name__: made for made in (hec_with_ids, hec_without_ids, hec_raw, kubernetes, github, slack, okta, standard)
}
MERGED = frozenset(CLIENTS) - {"hec_without_ids", "hec_raw"}
"""Sources whose records name themselves, or whose deliveries do."""


@dataclass
class Item:
    """One record: the kill point it was made before, whether it was accepted, and how often it went without an answer."""

    point: str
    is_accepted: bool = False
    unanswered: int = 0


@dataclass
class SourceLedger:
    """Thread-safe. ``items`` by (source, number); ``acks`` are the acknowledgement ids that were given out."""

    points: list[str]
    point: str = ""
    items: dict[tuple[str, int], Item] = field(default_factory=dict)
    acks: list[int] = field(default_factory=list)
    odd: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def load(self, server: Server, seed: int) -> Iterator[None]:
        """All clients send until the block ends."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._run, args=(server, name, stop, random.Random(f"{name}{seed}"))) for name in CLIENTS
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(90)
        if any(thread.is_alive() for thread in threads):
            raise LedgerError("a request was neither answered nor refused within 90 s")

    def accepted(self, point: str) -> dict[str, int]:
        """Records accepted so far by source, of one kill point."""
        with self._lock:
            return dict(Counter(name for (name, _), item in self.items.items() if item.is_accepted and item.point == point))

    def judge(self, lines: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
        """(source, kill point, result) of every cell. Raises LedgerError for a broken promise, or a cell that nothing was sent in."""
        if self.odd:
            raise LedgerError(f"answers that no fault excuses: {dict(self.odd)}")
        found: Counter[tuple[str, int]] = Counter()
        for line in lines:
            match = _MARK.search(json.dumps(line))
            if match is None:
                raise LedgerError(f"an event that nobody sent: {line}")
            found[match[1], int(match[2])] += 1
        return [self._cell(source, point, found) for source in CLIENTS for point in self.points]

    def _cell(self, source: str, point: str, found: Counter[tuple[str, int]]) -> tuple[str, str, str]:
        items = {place: item for place, item in self.items.items() if place[0] == source and item.point == point}
        accepted = [place for place, item in items.items() if item.is_accepted]
        lost = [place for place in accepted if not found[place]]
        bound = {place: 1 if source in MERGED else 1 + item.unanswered for place, item in items.items()}
        repeated = [place for place in items if found[place] > bound[place]]
        if not accepted:
            raise LedgerError(f"{source}, {point}: nothing was accepted, so nothing is shown")
        if lost or repeated:
            raise LedgerError(f"{source}, {point}: {len(lost)} lost as {lost[:3]}, {len(repeated)} repeated as {repeated[:3]}")
        resent = sum(1 for item in items.values() if item.unanswered)
        twice = sum(1 for place in items if found[place] > 1)
        return source, point, f"{len(accepted)} accepted, 0 lost; {resent} sent again, {twice} there twice"

    def _run(self, server: Server, name: str, stop: threading.Event, chance: random.Random) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not stop.is_set():
                numbers = self._make(name, chance.randint(1, 12))
                while not self._send(client, name, numbers) and not stop.wait(0.05):
                    pass

    def _make(self, name: str, count: int) -> list[int]:
        with self._lock:
            first = self._made[name]
            self._made[name] += count
            for number in range(first, first + count):
                self.items[name, number] = Item(self.point)
            return list(range(first, first + count))

    def _send(self, client: httpx.Client, name: str, numbers: list[int]) -> bool:
        path, headers, body = CLIENTS[name]([f"mark:{name}:{number}" for number in numbers])
        is_unanswered, answer = False, None
        try:
            answer = client.post(path, content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return False
        except httpx.TransportError:
            is_unanswered = True
        with self._lock:
            for number in numbers:
                self.items[name, number].unanswered += is_unanswered
                self.items[name, number].is_accepted |= answer is not None and answer.status_code == 200
            if answer is not None and answer.status_code not in (200, 429, 503):
                self.odd[f"{name} {answer.status_code} {answer.text[:200]}"] += 1
            if answer is not None and answer.status_code == 200 and "ackId" in answer.text:
                self.acks.append(answer.json()["ackId"])
        return answer is not None and answer.status_code == 200


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _lines(marks: list[str]) -> bytes:
    return b"\n".join(_json({"user": "u_1", "mark": mark}) for mark in marks)
