"""The tester's own ledger: what was sent and what was answered, and the one judgement after every fault.

An event is *accepted* when any request that held it was answered with 200, *refused* when every one was answered with
another status or never left, *unknown* otherwise (no answer, or 500: a fault of the server's own, excused only where memory ends). After fault, restart and drain `Ledger.judge` holds the server to it:

1. export and file destination hold every accepted event exactly once (a destination may repeat where the test says so),
   unknown ones at most once, refused ones and such that were never sent not at all;
2. the content is what was sent, by a digest over the members that the sender wrote;
3. events of one sender that were each accepted before the next was sent are in the order of sending;
4. status balances at the destination, and what the destination holds is what the export holds;
5. `tallystick verify` passes.

Whatever does not hold raises `LedgerError`, and nothing else does: a deliberately broken stand-in must end in it.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from support.server import ADMIN_KEY, Server

OURS = "NOT action:tallystick.*"
CONFIGURATION = """
[seal]
interval = "50ms"
root_interval = "500ms"
[archive]
max_age = "1s"
[delivery]
retry_max = "1s"
[destinations.disk]
type = "file"
path = "out.jsonl"
where = "NOT action:tallystick.*"
"""
_SENT_MEMBERS = ("id", "action", "actor", "targets", "outcome", "metadata")


class LedgerError(AssertionError):
    """A promise was broken: the message says which."""


@dataclass
class Event:
    """One event as its sender knows it."""

    sender: str
    number: int
    digest: str
    is_accepted: bool = False
    is_unknown: bool = False
    is_in_order: bool = True


@dataclass
class Ledger:
    """Thread-safe. ``events`` by id."""

    events: dict[str, Event] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    _made: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self, sender: str, count: int, pad: int = 0) -> tuple[list[str], bytes]:
        """``count`` new events of a sender as NDJSON, with their ids. ``pad``: bytes of text in each."""
        ids, lines = [], []
        with self._lock:
            first = self._made[sender]
            self._made[sender] += count
            for number in range(first, first + count):
                event = {
                    "id": f"{sender}-{number}",
                    "action": ("user.login", "role.grant", "invoice.view")[number % 3],
                    "actor": {"type": "user", "id": f"u_{number % 97}"},
                    "targets": [{"type": "account", "id": f"acc_{number % 13}"}],
                    "outcome": ("success", "denied")[number % 2],
                    "metadata": {"number": number, "text": random.randbytes(pad // 2).hex()},
                }
                ids.append(str(event["id"]))
                lines.append(json.dumps(event, separators=(",", ":")))
                self.events[ids[-1]] = Event(sender, number, _digest(event))
        return ids, "\n".join(lines).encode()

    def send(self, client: httpx.Client, ids: list[str], body: bytes) -> int:
        """One request; the status, 0 when there was no answer."""
        try:
            answer = client.post("/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"})
            status = answer.status_code
        except (httpx.ConnectError, httpx.ConnectTimeout):
            status = -1
        except httpx.TransportError:
            status = 0
        with self._lock:
            self.statuses[max(status, 0)] += 1
            for name in ids:
                event = self.events[name]
                event.is_accepted |= status == 200
                event.is_unknown |= status in (0, 500)
        return max(status, 0)

    def abandon(self, ids: list[str]) -> None:
        """The sender goes on without an answer for these: nothing is known of their order."""
        with self._lock:
            for name in ids:
                self.events[name].is_in_order = False

    def count(self, *, accepted: bool = True) -> int:
        with self._lock:
            return sum(1 for event in self.events.values() if event.is_accepted == accepted)

    def judge(
        self, server: Server, *, may_repeat: bool = False, timeout_s: float = 180.0, excused: frozenset[int] = frozenset()
    ) -> None:
        """Drain ``server`` and hold it to the ledger. ``may_repeat``: the destination may hold an event more than once."""
        if odd := set(self.statuses) - {0, 200, 429, 503} - excused:
            raise LedgerError(f"answers that no fault excuses: {sorted(odd)}")
        self._drain(server, timeout_s)
        exported = _exported(server)
        delivered = _lines(server.directory / "out.jsonl")
        self._check_place("export", exported)
        self._check_place("destination", delivered, may_repeat=may_repeat)
        self._check_order("export", exported)
        if set(_ids(exported)) != set(_ids(delivered)):
            raise LedgerError("export and destination hold different events")
        _verify(server, timeout_s)

    def _drain(self, server: Server, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        why = "no answer"
        while time.monotonic() < deadline:
            try:
                why = _undrained(server.status())
            except (httpx.TransportError, AssertionError) as error:
                why = str(error) or type(error).__name__
            if not why:
                return
            time.sleep(0.2)
        raise LedgerError(f"not drained after {timeout_s:.0f} s: {why}; {server.tail(2000)}")

    def _check_place(self, place: str, found: list[dict[str, Any]], *, may_repeat: bool = False) -> None:
        counts = Counter(_ids(found))
        missing = [name for name, event in self.events.items() if event.is_accepted and not counts[name]]
        foreign = [name for name in counts if name not in self.events]
        refused = [name for name, event in self.events.items() if counts[name] and not event.is_accepted and not event.is_unknown]
        repeated = [name for name, count in counts.items() if count > 1 and not may_repeat]
        changed = [
            event["id"] for event in found if event["id"] in self.events and _digest(event) != self.events[event["id"]].digest
        ]
        for what, names in (
            ("missing", missing), ("never sent", foreign), ("refused and yet there", refused),
            ("repeated", repeated), ("changed", changed),
        ):  # fmt: skip
            if names:
                raise LedgerError(f"{place}: {len(names)} events {what}, as {names[:3]}")

    def _check_order(self, place: str, found: list[dict[str, Any]]) -> None:
        last: dict[str, int] = {}
        for line in found:
            event = self.events[line["id"]]
            if event.is_accepted and event.is_in_order:
                if event.number < last.get(event.sender, -1):
                    raise LedgerError(f"{place}: {line['id']} stands behind a later event of its sender")
                last[event.sender] = event.number


class Load:
    """Senders that send batches until stopped. After a request without a 200 each one either tries again or goes on, by chance."""

    def __init__(self, server: Server, ledger: Ledger, *, senders: int = 3, batch: int = 40, pad: int = 0, seed: int = 1) -> None:
        self._server, self._ledger, self._batch, self._pad = server, ledger, batch, pad
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(f"s{seed}x{number}", seed)) for number in range(senders)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
            if thread.is_alive():
                raise LedgerError("a request was neither answered nor refused within 90 s")

    def _run(self, sender: str, seed: int) -> None:
        chance = random.Random(f"{sender}{seed}")
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        with httpx.Client(base_url=self._server.url, headers=headers, timeout=60) as client:
            while not self._stop.is_set():
                ids, body = self._ledger.make(sender, chance.randint(1, self._batch), self._pad)
                while self._ledger.send(client, ids, body) != 200:
                    self._stop.wait(0.05)
                    if self._stop.is_set() or chance.random() < 0.2:
                        self._ledger.abandon(ids)
                        break


def _digest(event: dict[str, Any]) -> str:
    """Over the members that the sender wrote, whatever the server added."""
    sent = {name: event.get(name) for name in _SENT_MEMBERS}
    return hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()


def _undrained(page: dict[str, Any]) -> str:
    """Why the page is not that of a drained, healthy server; empty when it is."""
    if not page["ready"] or page["reasons"]:
        return f"ready {page['ready']}, reasons {page['reasons']}"
    accepted = sum(row["accepted"] for row in page["tenants"].values())
    sealed = sum(row["sealed"] for row in page["tenants"].values())
    if accepted != sealed:
        return f"{sealed} of {accepted} sealed"
    for name, row in page["destinations"].items():
        settled = row["delivered"] + sum(row["filtered"].values()) + row["dead_lettered"]
        if row["pending"] or settled != accepted or row["dead_lettered"]:
            return f"{name}: {settled} of {accepted} settled, {row['pending']} pending, {row['dead_lettered']} dead-lettered"
    return ""


def _exported(server: Server) -> list[dict[str, Any]]:
    """By their index: an export is in tree order within a tenant, and all of ours are in one."""
    with server.http.stream("GET", "/v1/export", params={"query": OURS}, timeout=300) as answer:
        if answer.status_code != 200:
            raise LedgerError(f"export answers {answer.status_code}: {answer.read()[:500]!r}")
        return [json.loads(line) for line in answer.iter_lines() if line]


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    except ValueError as error:
        raise LedgerError(f"destination: a line is not whole: {error}") from error


def _ids(found: list[dict[str, Any]]) -> list[str]:
    return [event["id"] for event in found]


def _verify(server: Server, timeout_s: float) -> None:
    """Passes: exit 0. While the root log has yet to take in what was sealed last, it says 5, with no problem."""
    deadline = time.monotonic() + timeout_s
    while True:
        done = server.verify(check=None)
        if done.returncode == 0:
            return
        if done.returncode != 5 or time.monotonic() > deadline:
            raise LedgerError(f"verify: exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        time.sleep(0.5)
