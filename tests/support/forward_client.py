"""A client of the forward protocol, written after the specification with the msgpack library."""

from __future__ import annotations

import gzip
import hashlib
import socket
import struct
from typing import Any

import msgpack


def event_time(seconds: int, nanos: int = 0) -> msgpack.ExtType:
    return msgpack.ExtType(0, struct.pack(">II", seconds, nanos))


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def packed_forward(tag: str, entries: list[tuple[Any, Any]], chunk: str | None = None, *, compressed: bool = False) -> bytes:
    """One PackedForward or CompressedPackedForward message."""
    blob = b"".join(pack(list(entry)) for entry in entries)
    option: dict[str, Any] = {"size": len(entries)}
    if compressed:
        # Fluentd appends to compressed chunks, so one may have several members.
        middle = len(blob) // 2
        blob = gzip.compress(blob[:middle]) + gzip.compress(blob[middle:])
        option["compressed"] = "gzip"
    if chunk is not None:
        option["chunk"] = chunk
    return pack([tag, blob, option])


class ForwardClient:
    """One blocking connection."""

    def __init__(self, address: tuple[str, int], timeout_s: float = 10.0) -> None:
        self.sock = socket.create_connection(address, timeout=timeout_s)
        self._unpacker = msgpack.Unpacker(raw=False)

    def __enter__(self) -> ForwardClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self) -> Any:
        """The next value from the server; ConnectionError when it closed."""
        while True:
            try:
                return self._unpacker.unpack()
            except msgpack.OutOfData:
                data = self.sock.recv(65_536)
                if not data:
                    raise ConnectionError("the server closed the connection") from None
                self._unpacker.feed(data)

    def ack(self) -> str:
        """The chunk that the server acknowledges next."""
        return str(self.receive()["ack"])

    def shake_hands(self, shared_key: str, user: str = "", password: str = "", hostname: str = "client.example.com") -> list[Any]:
        """The client's side of the handshake; the server's PONG."""
        kind, options = self.receive()
        assert kind == "HELO"
        salt = b"0123456789abcdef"
        nonce = options["nonce"]
        digest = hashlib.sha512(salt + hostname.encode() + nonce + shared_key.encode()).hexdigest()
        password_digest = hashlib.sha512(options["auth"] + user.encode() + password.encode()).hexdigest()
        self.send(pack(["PING", hostname, salt, digest, user, password_digest]))
        pong: list[Any] = self.receive()
        if pong[1]:
            assert pong[4] == hashlib.sha512(salt + pong[3].encode() + nonce + shared_key.encode()).hexdigest()
        return pong
