"""Sealing of members under a person's key: the derivations, pure (docs/formats/sealed.md).

    K_es  = HMAC-SHA256(EK, "ts-kes1" ‖ SK)
    seed  = HMAC-SHA256(K_es, "ts-seed1" ‖ nonce)
    K_enc = HMAC-SHA256(seed, "enc")    K_com = HMAC-SHA256(seed, "com")
    commit = HMAC-SHA256(K_com, P)
    data   = AES-256-GCM(K_enc, 12 zero bytes, P, "ts-seal1" ‖ 0 ‖ origin ‖ 0 ‖ event id ‖ 0 ‖ skid)

Why a commitment beside an AEAD: AES-GCM does not commit to its key, so somebody who holds keys could make a second key under which the
same ciphertext reads otherwise. `commit` is in the leaf; whoever opens recomputes it. Without the keys it hides P, because K_com is
secret. The zero nonce is sound: K_enc is used once, as the 16 bytes of ``nonce`` are random for every group.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.errors import IntegrityError
from tallystick.event import SealedGroup

NONCE_SIZE = 16
_ZERO = bytes(12)


def epoch_subject_key(epoch_key: bytes, subject_key: bytes) -> bytes:
    """K_es, the same for all groups of a person in a month."""
    return _hmac(epoch_key, b"ts-kes1" + subject_key)


def plain_text(members: Mapping[str, bytes]) -> bytes:
    """P of JSON texts by pointer: sorted by the pointers' bytes, without spaces."""
    ordered = sorted(members, key=lambda pointer: pointer.encode())
    return msgspec.json.encode({pointer: msgspec.Raw(members[pointer]) for pointer in ordered})


def seal(kes: bytes, skid: bytes, plain: bytes, origin: str, event_id: str) -> SealedGroup:
    """One group under K_es, with a fresh nonce."""
    nonce = os.urandom(NONCE_SIZE)
    enc, com = _keys(kes, nonce)
    data = AESGCM(enc).encrypt(_ZERO, plain, _aad(origin, event_id, skid))
    return SealedGroup(v=1, subject=to_text(skid), nonce=to_text(nonce), commit=to_text(_hmac(com, plain)), data=to_text(data))


def open_sealed(kes: bytes, group: SealedGroup, origin: str, event_id: str) -> bytes:
    """P of a group. Raises IntegrityError when the tag fails or the commitment is another."""
    enc, com = _keys(kes, from_text(group.nonce))
    try:
        plain = AESGCM(enc).decrypt(_ZERO, from_text(group.data), _aad(origin, event_id, from_text(group.subject)))
    except (InvalidTag, ValueError) as error:
        raise IntegrityError("a sealed group does not open under its key", place=event_id) from error
    if not hmac.compare_digest(_hmac(com, plain), from_text(group.commit)):
        raise IntegrityError("a sealed group opens, but its commitment is to another text", place=event_id)
    return plain


def to_text(value: bytes) -> str:
    """Base64url without padding, as all of a group's members are written."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """The bytes of `to_text`. Raises IntegrityError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise IntegrityError("a member of a sealed group is not base64url") from error


def _keys(kes: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    seed = _hmac(kes, b"ts-seed1" + nonce)
    return _hmac(seed, b"enc"), _hmac(seed, b"com")


def _aad(origin: str, event_id: str, skid: bytes) -> bytes:
    return b"\x00".join((b"ts-seal1", origin.encode(), event_id.encode(), skid))


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, hashlib.sha256)
