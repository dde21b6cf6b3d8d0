"""The forward protocol's handshake: both sides prove that they know the shared key, neither shows it. Pure.

    server  [HELO, {nonce, auth, keepalive}]
    client  [PING, hostname, salt, SHA-512 hex of (salt ‖ hostname ‖ nonce ‖ shared key), user, SHA-512 hex of (auth ‖ user ‖ password)]
    server  [PONG, true or false, reason, hostname, SHA-512 hex of (salt ‖ hostname ‖ nonce ‖ shared key)]

``auth`` is a salt when users and passwords are asked for, else empty. Digests are compared in constant time, and an unknown user
costs as much as a wrong password.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import NamedTuple

import msgpack
import msgspec

SALT_BYTES = 16
PING_MAX = 4_096
_encode = msgspec.msgpack.Encoder().encode


class Hello(NamedTuple):
    """The server's side of one handshake: its name, the key, a fresh nonce, and a fresh salt when there are ``users`` (name → password)."""

    hostname: str
    shared_key: str
    nonce: bytes
    auth: bytes
    users: Mapping[str, str]


class Ping(NamedTuple):
    """What a client claims."""

    hostname: str
    salt: bytes
    digest: str
    user: str
    password_digest: str


def helo(hello: Hello) -> bytes:
    """The first message, the server's."""
    return _encode(["HELO", {"nonce": hello.nonce, "auth": hello.auth, "keepalive": True}])


def read_ping(message: bytes) -> Ping | None:
    """The client's message; None when it is none."""
    # Some clients write their salt as a text of random bytes, so nothing is read as UTF-8 before it must be.
    try:
        parts = msgpack.unpackb(message, raw=True)
    except (ValueError, msgpack.UnpackException):
        return None
    if not isinstance(parts, list) or len(parts) != 6 or parts[0] != b"PING" or not all(isinstance(part, bytes) for part in parts):
        return None
    try:
        hostname, digest, user, password_digest = (part.decode() for part in (parts[1], *parts[3:]))
    except UnicodeDecodeError:
        return None
    return Ping(hostname, parts[2], digest, user, password_digest)


def check_ping(hello: Hello, ping: Ping) -> str:
    """Why the client is not let in; empty when it is."""
    if not _is_same(ping.digest, shared_key_digest(hello, ping, ping.hostname)):
        return "shared key mismatch"
    if hello.users:
        password = hello.users.get(ping.user)
        wanted = password_digest(hello.auth, ping.user, "" if password is None else password)
        if not _is_same(ping.password_digest, wanted) or password is None:
            return "username/password mismatch"
    return ""


def pong(hello: Hello, ping: Ping, reason: str) -> bytes:
    """The server's answer; with a ``reason`` it is a refusal."""
    if reason:
        return _encode(["PONG", False, reason, "", ""])
    return _encode(["PONG", True, "", hello.hostname, shared_key_digest(hello, ping, hello.hostname)])


def shared_key_digest(hello: Hello, ping: Ping, hostname: str) -> str:
    """What the side called ``hostname`` proves its knowledge of the key with."""
    return hashlib.sha512(ping.salt + hostname.encode() + hello.nonce + hello.shared_key.encode()).hexdigest()


def password_digest(auth: bytes, user: str, password: str) -> str:
    """What a user proves its password with."""
    return hashlib.sha512(auth + user.encode() + password.encode()).hexdigest()


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
