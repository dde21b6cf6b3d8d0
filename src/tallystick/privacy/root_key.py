"""The root key and who keeps it: an interface of three verbs, and the provider that uses a file.

A key service (KMS, Vault transit, PKCS#11) never gives its key out, so nothing above this file may ask for the key
itself: it can only have other keys wrapped and unwrapped, once per start.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.durable import sync_data, unlink, write_all, write_new
from tallystick.errors import KeysMissingError, StartError

_MAGIC = "tallystick-root-key/v1"
_NONCE_SIZE = 12


class RootKey(Protocol):
    """Wraps the few keys at the top of the key store."""

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        """Encrypt ``key``, bound to ``aad``."""
        ...

    def unwrap(self, blob: bytes, aad: bytes) -> bytes:
        """The inverse. Raises KeysMissingError when this is not the root key that wrapped it, or the blob is damaged."""
        ...

    def destroy(self) -> None:
        """Make everything under this key unreadable for ever."""
        ...


class LocalRootKey:
    """A root key in a file of mode 0600: two text lines, the format's name and 64 hexadecimal digits.

    A file cannot prove destruction (flash remnants, copies in memory): what certifies an erasure has to say so.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self.path = path
        self._cipher = AESGCM(key)

    @classmethod
    def create(cls, path: Path) -> LocalRootKey:
        """Make a new key durably, in place of one that has wrapped nothing."""
        unlink(path)
        # O_EXCL: of two processes that start at once, one fails. A crash inside leaves a short file, made anew next time.
        key = secrets.token_bytes(32)
        write_new(path, f"{_MAGIC}\n{key.hex()}\n".encode())
        return cls(path, key)

    @classmethod
    def open(cls, path: Path) -> LocalRootKey:
        """Read the key. Raises StartError when others may read the file, or it is no root key."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            text = os.read(fd, 4096)
        finally:
            os.close(fd)
        if mode & 0o077:
            raise StartError(
                f"the root key may be read by others (mode {mode:04o})", place=str(path), hint=f"Run: chmod 600 {path}"
            )
        lines = text.decode("ascii", "replace").split("\n")
        try:
            if len(lines) != 3 or lines[0] != _MAGIC or lines[2]:
                raise ValueError("not two lines")
            return cls(path, bytes.fromhex(lines[1]))
        except ValueError as error:
            raise KeysMissingError(
                "this file is no root key, or was cut short while it was made",
                place=str(path),
                hint="Restore it from its backup; only when no data was ever stored with it, remove it",
            ) from error

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, key, aad)

    def unwrap(self, blob: bytes, aad: bytes) -> bytes:
        try:
            return self._cipher.decrypt(blob[:_NONCE_SIZE], blob[_NONCE_SIZE:], aad)
        except (InvalidTag, ValueError) as error:
            raise KeysMissingError(
                "the root key does not open this key store",
                place=str(self.path),
                hint="Put back the root.key that belongs to it",
            ) from error

    def destroy(self) -> None:
        """Overwrite the file, then remove it. A crash in between leaves a file that opens nothing."""
        fd = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            write_all(fd, b"\0" * os.fstat(fd).st_size, 0)
            sync_data(fd)
        finally:
            os.close(fd)
        unlink(self.path)
