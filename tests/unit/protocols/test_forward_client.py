"""The client's side of the forward protocol: against the server's side of ours, and against anything."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols import forward_hello
from tallystick.protocols.forward_client import ForwardRefusedError, Login, acknowledged, check_pong, is_helo, make_ping

LOGIN = Login("us", "a key that both know", "ann", "swordfish")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5) | st.binary(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def hello(key: str = LOGIN.shared_key, users: dict[str, str] | None = None) -> forward_hello.Hello:
    return forward_hello.Hello("them", key, b"nonce of 16 byte", b"auth salt" if users else b"", users or {})


@pytest.mark.parametrize("users", [None, {"ann": "swordfish"}])
@pytest.mark.parametrize("raw", [True, False])
def test_both_sides_of_ours_agree(users: dict[str, str] | None, raw: bool) -> None:
    """The server's digest of the client's PING is right, with and without users, and its HELO is known as one."""
    server = hello(users=users)
    helo = msgpack.unpackb(forward_hello.helo(server), raw=raw)
    assert is_helo(helo)
    ping = forward_hello.read_ping(make_ping(helo, LOGIN, b"salt"))
    assert ping is not None
    assert (ping.hostname, ping.user) == ("us", "ann" if users else "")
    check_pong(msgpack.unpackb(forward_hello.pong(server, ping, ""), raw=raw), helo, LOGIN, b"salt")
    assert ping.digest == forward_hello.shared_key_digest(server, ping, "us")


def test_a_refusal_says_why_and_a_stranger_is_found_out() -> None:
    """PONG with false carries the reason; one with true and a wrong digest comes from someone who does not know the key."""
    helo = msgpack.unpackb(forward_hello.helo(hello()))
    with pytest.raises(ForwardRefusedError, match="shared_key mismatch"):
        check_pong(["PONG", False, "shared_key mismatch", "", ""], helo, LOGIN, b"salt")
    with pytest.raises(ForwardRefusedError, match="does not know the shared key"):
        check_pong(["PONG", True, "", "them", "0" * 128], helo, LOGIN, b"salt")


@given(message=VALUES)
def test_anything_else_is_no_handshake_and_no_ack(message: Any) -> None:
    """Whatever a server says, it is a refusal or an ack, and no error of another kind."""
    helo = ["HELO", {"nonce": b"n"}]
    with contextlib.suppress(ForwardRefusedError):
        check_pong(message, helo, LOGIN, b"salt")
    assert isinstance(acknowledged(message), str)
    if is_helo(message):
        make_ping(message, LOGIN, b"salt")
