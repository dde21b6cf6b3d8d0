"""HTTP/1.1 by hand, for requests that no client library would send."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from support.server import ADMIN_KEY

AUTHORIZATION = f"Authorization: Bearer {ADMIN_KEY}"


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def head(method: str = "POST", target: str = "/v1/events", headers: Iterable[str] = (), *, key: str = AUTHORIZATION) -> bytes:
    """Request line and headers, with Host, the admin key and NDJSON as the type unless they are given."""
    lines = list(headers)
    names = {line.partition(":")[0].strip().lower() for line in lines}
    usual = ("Host: localhost", key, "Content-Type: application/x-ndjson")
    lines += [line for line in usual if line and line.partition(":")[0].lower() not in names]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


class RawConnection:
    """One TCP connection to a server on loopback."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)

    def send(self, data: bytes) -> None:
        """Send all of ``data``, or as much as the other side takes."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def send_aside(self, data: bytes) -> None:
        """The same in a thread: the answer may come before the other side has read everything."""
        threading.Thread(target=self.send, args=(data,), daemon=True).start()

    def answer(self, method: str = "POST") -> RawAnswer:
        """The next whole answer, 100 Continue skipped. Raises http.client.HTTPException or OSError when there is none."""
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        return RawAnswer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    def receive(self, size: int = 65_536) -> bytes:
        """What comes next; empty when the other side has closed."""
        try:
            return self.socket.recv(size)
        except ConnectionResetError:
            return b""

    def wait_closed(self, timeout_s: float) -> float:
        """Seconds until the other side closed; whatever it still sends is thrown away. Fails when it does not."""
        started = time.monotonic()
        self.socket.settimeout(timeout_s)
        try:
            while self.receive():
                assert time.monotonic() - started < timeout_s, "the server sends on and on"
        except TimeoutError:
            raise AssertionError(f"the connection is still open after {timeout_s} s") from None
        return time.monotonic() - started

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def exchange(port: int, data: bytes, method: str = "POST") -> RawAnswer:
    """Send ``data`` on a connection of its own and read the answer."""
    with RawConnection(port) as connection:
        connection.send_aside(data)
        return connection.answer(method)
