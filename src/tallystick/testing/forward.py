"""A receiver that answers as a Fluentd `forward` input does: all modes of messages, acknowledgement, and the handshake.

Dials: ``acks`` False takes chunks without a word; ``is_up`` False closes each connection; ``shared_key`` asks for the handshake.
"""

from __future__ import annotations

import gzip
import hashlib
import secrets
import socket
import socketserver
import threading
from types import TracebackType
from typing import Any, Self

import msgpack

_NAME = "receiver"


class ForwardReceiver:
    """``entries`` are (tag, time, record) as they arrived; ``chunks`` the names of chunks, each as often as it came."""

    def __init__(self) -> None:
        self.acks = True
        self.is_up = True
        self.shared_key = ""
        self.entries: list[tuple[str, Any, dict[str, Any]]] = []
        self.chunks: list[str] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                receiver._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, sock: socket.socket) -> None:
        if not self.is_up:
            return
        messages = _messages(sock)
        if self.shared_key and not self._is_let_in(sock, messages):
            return
        for message in messages:
            chunk = self._take(message)
            if chunk and self.acks:
                sock.sendall(msgpack.packb({"ack": chunk}))

    def _is_let_in(self, sock: socket.socket, messages: Any) -> bool:
        nonce = secrets.token_bytes(16)
        sock.sendall(msgpack.packb(["HELO", {"nonce": nonce, "auth": "", "keepalive": True}]))
        ping: list[Any] = next(messages, [])
        if len(ping) != 6:
            return False
        _, hostname, salt, digest, _, _ = ping
        key = self.shared_key.encode()
        is_right: bool = digest == hashlib.sha512(salt + hostname.encode() + nonce + key).hexdigest()
        own = hashlib.sha512(salt + _NAME.encode() + nonce + key).hexdigest()
        sock.sendall(msgpack.packb(["PONG", is_right, "" if is_right else "shared_key mismatch", _NAME, own if is_right else ""]))
        return is_right

    def _take(self, message: list[Any]) -> str:
        """Keeps the entries of a message; its chunk's name, or empty."""
        tag, second, *rest = message
        option = rest[-1] if rest and isinstance(rest[-1], dict) else {}
        if isinstance(second, bytes):
            blob = gzip.decompress(second) if option.get("compressed") == "gzip" else second
            unpacker = msgpack.Unpacker(raw=False, timestamp=0)
            unpacker.feed(blob)
            entries = list(unpacker)
        elif isinstance(second, list):
            entries = second
        else:
            entries, option = [[second, rest[0]]], rest[1] if len(rest) > 1 else {}
        with self._lock:
            self.entries += [(tag, time, record) for time, record in entries]
            if option.get("chunk"):
                self.chunks.append(option["chunk"])
        return str(option.get("chunk") or "")


def _messages(sock: socket.socket) -> Any:
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
    while True:
        try:
            data = sock.recv(65_536)
        except OSError:
            return
        if not data:
            return
        unpacker.feed(data)
        yield from unpacker
