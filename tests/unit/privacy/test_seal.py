"""Sealing against the formulas of docs/formats/sealed.md, written out here with `hmac` and `cryptography` alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from tallystick.errors import IntegrityError
from tallystick.event.codec import EventReader
from tallystick.privacy.members import put_back, take_out
from tallystick.privacy.seal import epoch_subject_key, open_sealed, plain_text, seal

EK, SK, SKID = b"e" * 32, b"s" * 32, b"i" * 16
ORIGIN = "log.example.com/log/abcdefghijklmnop"


def mac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()


def raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_group_opens_by_the_formulas_alone() -> None:
    """Every derivation, the associated data and the commitment are those of the format, not merely consistent with themselves."""
    plain = plain_text({"/context/ip": b'"10.0.0.1"', "/actor/name": b'"Ana"'})
    assert plain == b'{"/actor/name":"Ana","/context/ip":"10.0.0.1"}'
    group = seal(epoch_subject_key(EK, SK), SKID, plain, ORIGIN, "e1")
    seed = mac(mac(EK, b"ts-kes1" + SK), b"ts-seed1" + raw(group.nonce))
    aad = b"ts-seal1\x00" + ORIGIN.encode() + b"\x00e1\x00" + SKID
    assert AESGCM(mac(seed, b"enc")).decrypt(bytes(12), raw(group.data), aad) == plain
    assert raw(group.commit) == mac(mac(seed, b"com"), plain)
    assert (raw(group.subject), len(raw(group.nonce)), group.v) == (SKID, 16, 1)


@pytest.mark.parametrize(("origin", "event_id", "key"), [("x", "e1", SK), (ORIGIN, "e2", SK), (ORIGIN, "e1", b"t" * 32)])
def test_a_group_opens_nowhere_else(origin: str, event_id: str, key: bytes) -> None:
    """Bound to its log, its event and its person."""
    group = seal(epoch_subject_key(EK, SK), SKID, b"{}", ORIGIN, "e1")
    with pytest.raises(IntegrityError):
        open_sealed(epoch_subject_key(EK, key), group, origin, event_id)


def test_another_commitment_is_refused() -> None:
    """A text that decrypts is not given out unless it is the one that the leaf commits to."""
    kes = epoch_subject_key(EK, SK)
    group = seal(kes, SKID, b"{}", ORIGIN, "e1")
    group.commit = seal(kes, SKID, b"{}", ORIGIN, "e1").commit
    with pytest.raises(IntegrityError, match="commitment"):
        open_sealed(kes, group, ORIGIN, "e1")


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)
PATHS = ("actor.id", "actor.name", "actor.roles", "context.ip", "reason", "targets", "changes", "metadata.a", "metadata.b.c")


@given(
    name=TEXT,
    roles=st.lists(TEXT, max_size=3),
    deep=st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT, lambda one: st.lists(one, max_size=3)),
    paths=st.sets(st.sampled_from(PATHS), min_size=1),
)
def test_what_was_taken_out_comes_back(name: str, roles: list[str], deep: object, paths: set[str]) -> None:
    """For any event and any choice of members: nothing of them is left, and opening gives the line that was there before."""
    sent = {
        "id": "e1",
        "action": "user.login",
        "actor": {"type": "user", "id": name, "name": name, "roles": roles},
        "targets": [{"type": "doc", "id": name}],
        "reason": name,
        "context": {"ip": name, "session_id": "s"},
        "changes": [{"path": "/x", "op": "add", "after": deep}],
        "metadata": {"a": deep, "b": {"c": deep, "d": 1.50}},
    }
    event = EventReader().read(json.dumps([sent]).encode(), "array").events[0]
    before = msgspec.json.decode(msgspec.json.encode(event))
    members = take_out(event, sorted(paths), "sealed:x")
    assert len(members) == len(paths)
    after = msgspec.json.encode(event)
    for pointer in members:
        holder = msgspec.json.decode(after)
        for part in pointer.split("/")[1:-1]:
            holder = holder[part]
        assert holder.get(pointer.rpartition("/")[2]) in (None, "sealed:x")
    plain = msgspec.json.decode(plain_text(members), type=dict[str, msgspec.Raw])
    assert msgspec.json.decode(put_back(after, plain)) == before
