"""An HTTP server in a thread that stands for a product which cannot run in a test: it keeps requests and answers as dialled.

A product's own receiver says in `answer` what the product's documentation says. Dials that all have:

    script         answers to give instead, first one first
    lose_replies   so many requests take effect, and then the connection is closed without an answer
    bytes_max      413 for larger bodies, as sent
"""

from __future__ import annotations

import gzip
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import msgspec


@dataclass(frozen=True)
class Request:
    """``body`` is without its content coding; header names are in lower case; the last value of a repeated query name counts."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Said:
    """An answer; a body that is no bytes is sent as JSON."""

    status: int
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else msgspec.json.encode(self.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed while it was answered is part of a test, and no error here."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Receiver:
    """Base of the receivers; a context manager that listens on a free port of the loopback."""

    def __init__(self) -> None:
        self.script: list[Said] = []
        self.lose_replies = 0
        self.bytes_max = 1 << 60
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, request: Request) -> Said:
        """What the product would do and say. Called for one request at a time."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, request: Request, size: int) -> Said | None:
        """None: close the connection without a word."""
        with self._lock:
            self.requests.append(request)
            if self.script:
                return self.script.pop(0)
            if size > self.bytes_max:
                return Said(413)
            said = self.answer(request)
            if self.lose_replies > 0:
                self.lose_replies -= 1
                return None
            return said

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                """Quiet."""

            def _serve(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                is_gzip = self.headers.get("content-encoding") == "gzip"
                parts = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = gzip.decompress(raw) if is_gzip else raw
                said = receiver._take(Request(self.command, parts.path, query, headers, body), len(raw))
                if said is None:
                    self.close_connection = True
                    return
                self.send_response(said.status)
                page = said.encode()
                for name, value in {"content-type": "application/json", **said.headers, "content-length": str(len(page))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else page)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815 - as http.server names them

        return Handler
