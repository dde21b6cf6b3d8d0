"""C2SP signed notes (signed-note v1.0.0) with Ed25519 keys: text that carries its signatures.

    <text, ends with a line break>
                                                   one empty line
    — <key name> <base64 of key id[4] ‖ signature>       U+2014, one line a signature

The signature covers the text with its last line break, not the empty line. Key id = first four bytes of
SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key). Texts of keys, as Go's ``sumdb/note`` reads them:

    public     <name>+<8 hex of the key id>+<base64 of 0x01 ‖ public key>
    private    PRIVATE+KEY+<name>+<8 hex>+<base64 of 0x01 ‖ seed>

Signatures of unknown keys are ignored (witnesses and other algorithms add lines); a known key whose signature fails makes
the note invalid; at least one known key must have signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tallystick.errors import CheckpointError

_ED25519 = b"\x01"
_SIGNATURES_MAX = 100
_DASH = "— "


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name. ``text`` is the vkey form."""

    name: str
    key_id: bytes
    public: Ed25519PublicKey = field(compare=False)
    text: str


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: the key's name, its four-byte id, and the bytes after the id."""

    name: str
    key_id: bytes
    blob: bytes


def key_id(name: str, public_key: Ed25519PublicKey) -> bytes:
    """The four-byte key id."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public_key.public_bytes_raw()).digest()[:4]


def vkey(name: str, public_key: Ed25519PublicKey) -> str:
    """The text form of a public key. Raises CheckpointError for a name that a note cannot carry."""
    _check_name(name)
    data = base64.b64encode(_ED25519 + public_key.public_bytes_raw()).decode()
    return f"{name}+{key_id(name, public_key).hex()}+{data}"


@lru_cache(maxsize=4096)
def parse_vkey(text: str) -> VerifierKey:
    """Read a vkey. Raises CheckpointError when it is none, or when its id does not belong to name and key."""
    name, data = _split_key(text.strip(), "public key")
    public = Ed25519PublicKey.from_public_bytes(data)
    if vkey(name, public) != text.strip():
        raise CheckpointError("the id of the public key does not belong to its name and bytes", place=name)
    return VerifierKey(name, key_id(name, public), public, text.strip())


def private_key_text(name: str, key: Ed25519PrivateKey) -> str:
    """The text form of a private key, as Go's note tools read it."""
    _check_name(name)
    data = base64.b64encode(_ED25519 + key.private_bytes_raw()).decode()
    return f"PRIVATE+KEY+{name}+{key_id(name, key.public_key()).hex()}+{data}"


def parse_private_key(text: str) -> tuple[str, Ed25519PrivateKey]:
    """Name and key of a private key text. Raises CheckpointError; the message never holds the key."""
    head = "PRIVATE+KEY+"
    if not text.startswith(head):
        raise CheckpointError("this is no private key text", hint="It starts with PRIVATE+KEY+")
    name, data = _split_key(text.strip()[len(head) :], "private key")
    key = Ed25519PrivateKey.from_private_bytes(data)
    if private_key_text(name, key) != text.strip():
        raise CheckpointError("the id of the private key does not belong to its name and bytes", place=name)
    return name, key


def sign_note(text: str, signers: Sequence[tuple[str, Ed25519PrivateKey]]) -> str:
    """The note over ``text`` with one signature line per (name, key). Raises CheckpointError for text a note cannot carry."""
    _check_text(text)
    lines = []
    for name, key in signers:
        _check_name(name)
        blob = key_id(name, key.public_key()) + key.sign(text.encode())
        lines.append(f"{_DASH}{name} {base64.b64encode(blob).decode()}\n")
    return f"{text}\n{''.join(lines)}"


def split_note(note: str) -> tuple[str, list[Signature]]:
    """Text and signature lines, none of them checked. Raises CheckpointError when ``note`` is not built as a note."""
    cut = note.rfind("\n\n")
    if cut < 0 or not note.endswith("\n"):
        raise CheckpointError("this is no signed note: the empty line or the last line break is missing")
    text, block = note[: cut + 1], note[cut + 2 :]
    _check_text(text)
    lines = block.split("\n")[:-1]
    if not lines or len(lines) > _SIGNATURES_MAX:
        raise CheckpointError(f"a signed note has 1 to {_SIGNATURES_MAX} signature lines, this one {len(lines)}")
    return text, [_read_signature(line) for line in lines]


def open_note(note: str, vkeys: Iterable[str | VerifierKey]) -> str:
    """The text, once every signature by one of ``vkeys`` holds and there is at least one. Raises CheckpointError."""
    known = {}
    for entry in vkeys:
        key = parse_vkey(entry) if isinstance(entry, str) else entry
        known[key.name, key.key_id] = key
    text, signatures = split_note(note)
    checked = 0
    for signature in signatures:
        verifier = known.get((signature.name, signature.key_id))
        if verifier is None:
            continue
        try:
            verifier.public.verify(signature.blob, text.encode())
        except InvalidSignature as error:
            raise CheckpointError("a signature does not belong to the text", place=signature.name) from error
        checked += 1
    if not checked:
        names = ", ".join(sorted({signature.name for signature in signatures}))
        raise CheckpointError("no known key signed this note", place=names, hint="Check which public key belongs to this log")
    return text


def decode_base64(text: str, what: str) -> bytes:
    """Strict standard base64: padded, no stray character, no unused bit set. Raises CheckpointError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CheckpointError(f"{what} is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise CheckpointError(f"{what} is not canonical base64")
    return data


def _read_signature(line: str) -> Signature:
    name, _, data = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not name or "+" in name:
        raise CheckpointError("a signature line is not `— name base64`", place=line[:80])
    blob = decode_base64(data, "a signature line")
    if len(blob) < 5:
        raise CheckpointError("a signature line is too short", place=name)
    return Signature(name, blob[:4], blob[4:])


def _split_key(text: str, what: str) -> tuple[str, bytes]:
    name, _, rest = text.partition("+")
    identity, _, data = rest.partition("+")
    _check_name(name)
    raw = decode_base64(data, f"the {what}")
    if len(identity) != 8 or len(raw) != 33 or raw[:1] != _ED25519:
        raise CheckpointError(f"this {what} is no Ed25519 key text", place=name, hint="It reads name+8 hex digits+base64")
    return name, raw[1:]


def _check_name(name: str) -> None:
    if not name or "+" in name or any(character.isspace() for character in name):
        raise CheckpointError("a key name is empty, or holds white space or `+`", place=repr(name))


def _check_text(text: str) -> None:
    if not text.endswith("\n"):
        raise CheckpointError("the text of a note ends with a line break")
    if any(character < " " and character != "\n" for character in text) or "�" in text:
        raise CheckpointError("the text of a note holds a control or replacement character")
