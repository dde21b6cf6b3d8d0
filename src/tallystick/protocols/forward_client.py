"""The client's side of the forward protocol: the handshake and the acknowledgement. Pure; messages are plain values.

    server  [HELO, {nonce, auth, keepalive}]
    client  [PING, hostname, salt, SHA-512 hex of (salt ‖ hostname ‖ nonce ‖ shared key), user, SHA-512 hex of (auth ‖ user ‖ password)]
    server  [PONG, true or false, reason, hostname, SHA-512 hex of (salt ‖ hostname ‖ nonce ‖ shared key)]
    client  [tag, entries, {chunk, …}]
    server  {ack: chunk}

The server's side is `forward_hello`.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, NamedTuple

import msgspec

from tallystick.errors import TerminalError

_encode = msgspec.msgpack.Encoder().encode


class ForwardRefusedError(TerminalError):
    """The other side does not let us in, or is not who it should be."""

    code = "forward_refused"


class Login(NamedTuple):
    """What a client proves: its own name, the key, and a user when the server asks for one."""

    hostname: str
    shared_key: str
    username: str = ""
    password: str = ""


def is_helo(message: Any) -> bool:
    """Whether a server begins a handshake with it."""
    return isinstance(message, list) and len(message) == 2 and message[0] in ("HELO", b"HELO") and isinstance(message[1], dict)


def make_ping(helo: Any, login: Login, salt: bytes) -> bytes:
    """The answer to a HELO."""
    nonce, auth = _option(helo, "nonce"), _option(helo, "auth")
    digest = _digest(salt, login.hostname.encode(), nonce, login.shared_key.encode())
    password = _digest(auth, login.username.encode(), login.password.encode()) if auth else ""
    return _encode(["PING", login.hostname, salt, digest, login.username if auth else "", password])


def check_pong(pong: Any, helo: Any, login: Login, salt: bytes) -> None:
    """Raises ForwardRefusedError when we are refused, or the server does not know the key either."""
    if not isinstance(pong, list) or len(pong) != 5 or pong[0] not in ("PONG", b"PONG"):
        raise ForwardRefusedError("the answer to PING is no PONG")
    if pong[1] is not True:
        raise ForwardRefusedError(f"the server refuses us: {_text(pong[2])[:200]}")
    expected = _digest(salt, _bytes(pong[3]), _option(helo, "nonce"), login.shared_key.encode())
    if not hmac.compare_digest(expected.encode(), _bytes(pong[4])):
        raise ForwardRefusedError("the server does not know the shared key")


def acknowledged(message: Any) -> str:
    """The chunk that a server acknowledges, or empty when it said something else."""
    if not isinstance(message, dict):
        return ""
    return _text(message.get("ack", message.get(b"ack", "")))


def _option(helo: Any, name: str) -> bytes:
    options = helo[1]
    return _bytes(options.get(name, options.get(name.encode(), b"")))


def _digest(*parts: bytes) -> str:
    return hashlib.sha512(b"".join(parts)).hexdigest()


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
