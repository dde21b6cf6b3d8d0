"""A webhook receiver in its own process that can be told to fail: real HTTP, real signatures, its own idea of what arrived.

It checks each signature with code of its own, keeps what it accepted in memory, and obeys dials set over HTTP:

    POST /dials   {"status": 503, "headers": {"retry-after": "1"}, "times": 2, "body": "…"}   answer so, this many times
                  {"lose_reply": 1}          take the events, then close the connection without an answer
                  {"refuse_id": "…"}         422 for every cut that holds this event id
                  {"events_max": 3}          413 for cuts with more events
                  {"delay_s": 5}             answer late
    GET  /state   {"deliveries": [{"id", "events": [ids], "range", "headers"}], "requests": n, "bad_signatures": n}
    POST /…       everything else is a delivery
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes !!!").decode()


@dataclass
class _State:
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0
    bad_signatures: int = 0
    dials: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


STATE = _State()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        page = {"deliveries": STATE.deliveries, "requests": STATE.requests, "bad_signatures": STATE.bad_signatures}
        self._answer(200, json.dumps(page).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/dials":
            STATE.dials = json.loads(body)
            self._answer(200, b"{}")
            return
        with STATE.lock:
            STATE.requests += 1
        if not self._is_signed(body):
            STATE.bad_signatures += 1
            self._answer(401, b"bad signature")
            return
        self._deliver(json.loads(body))

    def _deliver(self, page: dict[str, Any]) -> None:
        dials = STATE.dials
        time.sleep(dials.get("delay_s", 0))
        if dials.get("times", 0) > 0:
            dials["times"] -= 1
            self._answer(dials["status"], dials.get("body", "").encode(), dials.get("headers", {}))
            return
        ids = [event["id"] for event in page["events"]]
        if dials.get("refuse_id") in ids:
            self._answer(422, b"one of these is not for me")
            return
        if len(ids) > dials.get("events_max", 1 << 30):
            self._answer(413, b"too many")
            return
        message_id = self.headers["webhook-id"]
        if ids and message_id not in [delivery["id"] for delivery in STATE.deliveries]:
            headers = {name.lower(): value for name, value in self.headers.items()}
            STATE.deliveries.append({"id": message_id, "events": ids, "range": page.get("range"), "headers": headers})
        if dials.get("lose_reply", 0) > 0:
            dials["lose_reply"] -= 1
            self.close_connection = True
            return
        self._answer(200, b"thanks")

    def _is_signed(self, body: bytes) -> bool:
        message = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        expected = "v1," + base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()
        return expected in self.headers["webhook-signature"].split(" ")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass
class WebhookReceiver:
    """The running receiver as a test sees it."""

    url: str
    _base: str

    def dial(self, **dials: Any) -> None:
        """Set all dials; none given means: accept everything."""
        request = urllib.request.Request(f"{self._base}/dials", json.dumps(dials).encode(), method="POST")
        urllib.request.urlopen(request, timeout=10).read()

    def state(self) -> dict[str, Any]:
        """What it received so far."""
        return json.loads(urllib.request.urlopen(f"{self._base}/state", timeout=10).read())

    def ids(self) -> list[str]:
        """Ids of the events it took, in order; a repeated webhook-id counts once."""
        return [event for delivery in self.state()["deliveries"] for event in delivery["events"]]


@contextmanager
def run_webhook_receiver() -> Iterator[WebhookReceiver]:
    """Start the process, wait for its port, and stop it at the end."""
    process = subprocess.Popen([sys.executable, str(Path(__file__).resolve())], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield WebhookReceiver(f"http://127.0.0.1:{port}/hook", f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
