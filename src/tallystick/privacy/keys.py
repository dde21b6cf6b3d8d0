"""The key store: who holds which key, in which file, and what a crash or damage does to it (docs/formats/keys.md).

    L0 root key       `root.key`, 0600, or a key service; only wraps and unwraps       provider (`root_key`)
    L1 generation     32 random bytes each, wrapped by L0; the store's base secret too  `keystore/generations`
    L2 families       epoch keys, signing keys: pages encrypted under a generation      `keystore/<family>/<page>`
    L2 file keys      journal segments, encrypted logs: wrapped here, kept in their own header

Rules

1. A key is durable, in both slots of its page, before anybody gets it: what it encrypts can always be opened again.
2. A family is written under its lock (`keystore/<family>.lock`, flock), by whoever needs a key of it first (epoch: the archiver, and
   intake for sealed members; signing: the sealer); who has the lock reads again what is there. Others read, and read again when they miss a name.
3. Nothing is ever made over what may exist: a page or generation that cannot be read is an IntegrityError or
   KeysMissingError, never a fresh start.
4. A wrapped key names its generation and a fingerprint of the generation key, so that "other keys" and "damaged" are
   told apart.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import struct
import threading
import time
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.durable import StateFile, make_dir
from tallystick.errors import IntegrityError, KeysMissingError, NotFoundError
from tallystick.privacy.key_pages import KeyPages
from tallystick.privacy.root_key import LocalRootKey, RootKey

_WRAP_HEAD = struct.Struct(">II")  # generation, fingerprint of its key
_NONCE_SIZE = 12


class _Generation(msgspec.Struct):
    number: int
    wrapped: bytes
    created_at: float


class _Register(msgspec.Struct):
    """Payload of `keystore/generations` (JSON): the base secret and all generation keys, each wrapped by the root key."""

    v: int
    base: bytes
    generations: list[_Generation]


class KeyStore:
    """All keys of one installation. Thread-safe; one object per process."""

    def __init__(self, keys_dir: Path, root: RootKey, register: _Register) -> None:
        self.dir = keys_dir
        self._root = root
        self._lock = threading.RLock()
        self._ciphers: dict[int, tuple[int, AESGCM]] = {}
        self._current = 0
        self._base = root.unwrap(register.base, b"ts-base1")
        self._admit(register)
        self._epoch = KeyPages(keys_dir / "keystore" / "epoch", self.wrap, self.unwrap)
        self._signing = KeyPages(keys_dir / "keystore" / "signing", self.wrap, self.unwrap)

    @classmethod
    def create(cls, keys_dir: Path) -> KeyStore:
        """Make the keys of a new installation, finish making them, or open them when they are whole.

        For directories without data only (`FORMAT` is written after this returned). Raises KeysMissingError over leftovers of
        other keys.
        """
        root_path = keys_dir / "root.key"
        if not root_path.exists() and any((keys_dir / "keystore").rglob("*.[ab]")):
            raise KeysMissingError(
                "the root key is missing beside its key store",
                place=str(root_path),
                hint="Put root.key back from its backup",
            )
        make_dir(keys_dir)
        state = StateFile(keys_dir / "keystore" / "generations")
        is_new = state.load() is None and not state.is_damaged()
        # A crash while the root key is made leaves a short file, or a whole one that has wrapped nothing: with no
        # register yet, the next start comes here again and makes it anew.
        root = LocalRootKey.create(root_path) if is_new else LocalRootKey.open(root_path)
        if is_new:
            make_dir(keys_dir / "keystore")
            register = _Register(1, root.wrap(secrets.token_bytes(32), b"ts-base1"), [])
            _add_generation(register, root)
            _save_twice(state, msgspec.json.encode(register))
        return cls(keys_dir, root, _read_register(keys_dir))

    @classmethod
    def open(cls, keys_dir: Path) -> KeyStore:
        """Open existing keys; writes nothing. Raises KeysMissingError when a part is not there."""
        root_path = keys_dir / "root.key"
        if not root_path.exists():
            raise KeysMissingError(
                "no root key", place=str(root_path), hint="Name the right key directory with --keys, or restore it from its backup"
            )
        return cls(keys_dir, LocalRootKey.open(root_path), _read_register(keys_dir))

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        """Encrypt a key under the current generation; ``aad`` says what it is for. 36 bytes longer than ``key``."""
        with self._lock:
            generation = self._current
            fingerprint, cipher = self._ciphers[generation]
        nonce = os.urandom(_NONCE_SIZE)
        head = _WRAP_HEAD.pack(generation, fingerprint)
        return head + nonce + cipher.encrypt(nonce, key, head + aad)

    def unwrap(self, blob: bytes, aad: bytes) -> bytes:
        """The key inside ``blob``. Raises KeysMissingError (another store's key) or IntegrityError (damaged, or other ``aad``)."""
        if len(blob) < _WRAP_HEAD.size + _NONCE_SIZE + 16:
            raise IntegrityError("a wrapped key is too short")
        generation, fingerprint = _WRAP_HEAD.unpack_from(blob)
        cipher = self._cipher(generation, fingerprint)
        nonce = blob[_WRAP_HEAD.size : _WRAP_HEAD.size + _NONCE_SIZE]
        try:
            return cipher.decrypt(nonce, blob[_WRAP_HEAD.size + _NONCE_SIZE :], blob[: _WRAP_HEAD.size] + aad)
        except InvalidTag as error:
            raise IntegrityError("a wrapped key is damaged or belongs to something else") from error

    def epoch_key(self, handle: str, retention_class: str, month: str, *, create: bool = False) -> bytes:
        """The 32-byte key of (tenant, class, month "yyyy-mm"). ``create`` is for the archiver, and intake that seals. Raises NotFoundError."""
        return self._epoch.get(f"{handle}/{retention_class}/{month}", create=create)

    def epoch_names(self) -> list[tuple[str, str, str]]:
        """(tenant, class, month) of every epoch key that there is."""
        found = (name.split("/") for name in self._epoch.names())
        return [(handle, retention_class, month) for handle, retention_class, month in found]

    def destroy_epoch_key(self, handle: str, retention_class: str, month: str) -> None:
        """Make everything under the key of (tenant, class, month) unreadable for good. For the archiver alone."""
        self._epoch.destroy(f"{handle}/{retention_class}/{month}")

    def signing_key(self, name: str, *, create: bool = False) -> Ed25519PrivateKey:
        """The Ed25519 key that signs as ``name``. ``create`` is for the sealer (and first start). Raises NotFoundError."""
        return Ed25519PrivateKey.from_private_bytes(self._signing.get(name, create=create))

    def has_signing_key(self, name: str) -> bool:
        """True when ``name`` has a signing key."""
        try:
            self._signing.get(name)
        except NotFoundError:
            return False
        return True

    def derive(self, purpose: str) -> bytes:
        """32 bytes that are always the same for this store and ``purpose``: HMAC-SHA256(base, "ts-derive1" ‖ 0 ‖ purpose)."""
        return hmac.digest(self._base, b"ts-derive1\x00" + purpose.encode(), hashlib.sha256)

    def wrap_root(self, key: bytes, aad: bytes) -> bytes:
        """Encrypt a generation key of another family by the root key."""
        return self._root.wrap(key, aad)

    def unwrap_root(self, blob: bytes, aad: bytes) -> bytes:
        """The key of `wrap_root`. Raises IntegrityError, KeysMissingError."""
        return self._root.unwrap(blob, aad)

    def _cipher(self, generation: int, fingerprint: int) -> AESGCM:
        with self._lock:
            if generation not in self._ciphers:
                self._admit(_read_register(self.dir))
            found = self._ciphers.get(generation)
        if found is None or found[0] != fingerprint:
            raise KeysMissingError(
                f"a key was wrapped by generation {generation} of another key store",
                place=str(self.dir),
                hint="Name the key directory that belongs to this data with --keys",
            )
        return found[1]

    def _admit(self, register: _Register) -> None:
        for generation in register.generations:
            if generation.number not in self._ciphers:
                key = self._root.unwrap(generation.wrapped, _generation_aad(generation.number))
                fingerprint = int.from_bytes(hmac.digest(key, b"ts-fingerprint1", hashlib.sha256)[:4], "big")
                self._ciphers[generation.number] = (fingerprint, AESGCM(key))
        self._current = max(self._ciphers)


def check_key_place(data_dir: Path, keys_dir: Path, *, is_named: bool) -> None:
    """Refuse a key directory that a copy of the data would include, or that would not outlive a container.

    ``is_named``: the operator chose ``keys_dir`` (option, environment or file), it is not the default beside the data.
    Raises KeysMissingError; writes nothing.
    """
    data, keys = data_dir.resolve(), keys_dir.resolve()
    if keys == data or data in keys.parents:
        raise KeysMissingError(
            "the key directory lies inside the data directory, so every copy of the data would carry its keys",
            place=str(keys_dir),
            hint="Name another place with --keys or [keys] dir",
        )
    if not is_named and os.path.ismount(data):
        raise KeysMissingError(
            "the data directory is a mount point, so keys beside it would lie on another, perhaps passing, volume",
            place=str(data_dir),
            hint="Name a key directory on a volume of its own with --keys or [keys] dir",
        )


def _generation_aad(number: int) -> bytes:
    return b"ts-generation1" + number.to_bytes(4, "big")


def _add_generation(register: _Register, root: RootKey) -> None:
    number = max((generation.number for generation in register.generations), default=0) + 1
    wrapped = root.wrap(secrets.token_bytes(32), _generation_aad(number))
    register.generations.append(_Generation(number, wrapped, time.time()))


def _read_register(keys_dir: Path) -> _Register:
    state = StateFile(keys_dir / "keystore" / "generations")
    payload = state.load()
    if payload is None:
        raise KeysMissingError(
            "the register of key generations is missing or damaged",
            place=str(state.path),
            hint="Restore the key directory from its backup",
        )
    return msgspec.json.decode(payload, type=_Register)


def _save_twice(state: StateFile, payload: bytes) -> None:
    """Fill both slots: keys cannot be rebuilt, so one damaged slot must lose none. A crash between leaves the newer one."""
    state.save(payload)
    state.save(payload)
