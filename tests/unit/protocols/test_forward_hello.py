"""The handshake: who knows the key gets in, whoever does not learns nothing."""

from __future__ import annotations

import hashlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.forward_client import pack
from tallystick.protocols.forward_hello import Hello, check_ping, helo, pong, read_ping

HELLO = Hello("audit.example.com", "a shared key, long", b"n" * 16, b"", {})
WITH_USERS = HELLO._replace(auth=b"a" * 16, users={"edge": "swordfish"})


def ping(hello: Hello = HELLO, key: str = HELLO.shared_key, user: str = "", password: str = "", salt: Any = b"s" * 16) -> bytes:
    raw = salt.encode() if isinstance(salt, str) else salt
    digest = hashlib.sha512(raw + b"client" + hello.nonce + key.encode()).hexdigest()
    secret = hashlib.sha512(hello.auth + user.encode() + password.encode()).hexdigest()
    return pack(["PING", "client", salt, digest, user, secret])


def verdict(hello: Hello, message: bytes) -> str:
    found = read_ping(message)
    assert found is not None
    return check_ping(hello, found)


def test_the_first_message() -> None:
    """A nonce, a salt when users are asked for, and that the connection may be kept."""
    assert msgpack.unpackb(helo(WITH_USERS)) == ["HELO", {"nonce": b"n" * 16, "auth": b"a" * 16, "keepalive": True}]


def test_who_knows_the_key_gets_in_and_learns_that_the_server_knows_it() -> None:
    """The server proves its knowledge with the client's own salt."""
    found = read_ping(ping())
    assert found is not None
    assert check_ping(HELLO, found) == ""
    proof = hashlib.sha512(b"s" * 16 + b"audit.example.com" + b"n" * 16 + HELLO.shared_key.encode()).hexdigest()
    assert msgpack.unpackb(pong(HELLO, found, "")) == ["PONG", True, "", "audit.example.com", proof]


def test_a_wrong_key_is_refused_without_a_proof() -> None:
    """The refusal says why and proves nothing."""
    message = ping(key="another key")
    assert verdict(HELLO, message) == "shared key mismatch"
    found = read_ping(message)
    assert found is not None
    assert msgpack.unpackb(pong(HELLO, found, "shared key mismatch")) == ["PONG", False, "shared key mismatch", "", ""]


@pytest.mark.parametrize(
    ("user", "password", "is_in"), [("edge", "swordfish", True), ("edge", "wrong", False), ("nobody", "", False), ("", "", False)]
)
def test_users_prove_their_password(user: str, password: str, is_in: bool) -> None:
    """An unknown user with an empty password is none."""
    assert (verdict(WITH_USERS, ping(WITH_USERS, user=user, password=password)) == "") is is_in


def test_an_old_proof_does_not_fit_another_nonce() -> None:
    """A recorded PING is worth nothing on another connection."""
    assert verdict(HELLO._replace(nonce=b"m" * 16), ping()) == "shared key mismatch"


def test_a_salt_may_be_a_text_of_any_bytes() -> None:
    """As Fluent Bit writes it."""
    raw = b"\xff\xfe" * 8
    digest = hashlib.sha512(raw + b"client" + HELLO.nonce + HELLO.shared_key.encode()).hexdigest()
    message = b"\x96" + pack("PING") + pack("client") + b"\xb0" + raw + pack(digest) + pack("") + pack("")
    assert verdict(HELLO, message) == ""


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(message: bytes) -> None:
    """Garbage is no PING."""
    assert read_ping(message) is None


@pytest.mark.parametrize(
    "parts", [["PING"], ["PONG", "a", "b", "c", "d", "e"], ["PING", 1, 2, 3, 4, 5], ["PING", "a", "b", "c", "d", None]]
)
def test_what_looks_like_one_and_is_none(parts: list[Any]) -> None:
    """Wrong length, name or types."""
    assert read_ping(pack(parts)) is None
