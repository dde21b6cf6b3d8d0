"""The key store as an age file: what `DIR.keys` holds that cannot be made again, for people who keep their identities offline.

The plain text is one JSON object, so that `age --decrypt` and ten lines of anybody's code give the files back:

    {"v":1,"server":"…","backup":"…","files":{"root.key":"<base64>","keystore/generations.a":"<base64>",…}}

In it are the root key, the key store, hashed API keys, the root log's public key, and as ``heads`` the root head of the data backup that it
was made with. Not in it: `admin.key` and the times of last use. It is never in a data backup, and lies in a store of its own.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyrage

from tallystick.durable import make_dir, replace_file
from tallystick.errors import ConfigError, IntegrityError

_FILES = ("root.key", "access.a", "access.b", "root.vkey")
_PUBLIC = "root.vkey"


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    v: int
    server: str
    backup: str
    files: dict[str, bytes]


def read_recipients(texts: Sequence[str]) -> list[pyrage.x25519.Recipient]:
    """age recipients from their public keys. Raises ConfigError."""
    try:
        return [pyrage.x25519.Recipient.from_str(text) for text in texts]
    except pyrage.RecipientError as error:
        raise ConfigError(f"[backup] recipients: no age public key: {error}", hint="`age-keygen` makes a pair") from error


def seal_keys(keys_dir: Path, server: str, backup: str, head: str, recipients: Sequence[str]) -> bytes:
    """The key directory as an age file; ``head`` is the signed root head that it remembers in place of the present one."""
    paths = [keys_dir / name for name in _FILES] + sorted((keys_dir / "keystore").rglob("*.[ab]"))
    files = {str(path.relative_to(keys_dir)): path.read_bytes() for path in paths if path.is_file()}
    plain = _Plain(1, server, backup, {**files, "heads": head.encode()})
    return bytes(pyrage.encrypt(msgspec.json.encode(plain), read_recipients(recipients)))


def open_keys(sealed: bytes, identities: Path) -> tuple[str, dict[str, bytes]]:
    """Server name and files of a key backup. Raises ConfigError for an identity that does not fit, IntegrityError for another content."""
    try:
        plain = pyrage.decrypt(sealed, _read_identities(identities))
    except pyrage.DecryptError as error:
        raise ConfigError(
            f"the key backup does not open: {error}", place=str(identities), hint="Name the identity of a recipient"
        ) from error
    try:
        found = msgspec.json.decode(plain, type=_Plain)
    except (msgspec.DecodeError, binascii.Error) as error:
        raise IntegrityError("the key backup holds something else than keys") from error
    for name in found.files:
        parts = Path(name).parts
        if ".." in parts or Path(name).is_absolute() or (name not in (*_FILES, "heads") and parts[0] != "keystore"):
            raise IntegrityError("the key backup holds a file that does not belong there", place=name)
    if found.v != 1 or "root.key" not in found.files:
        raise IntegrityError("the key backup has no root key, or a form that this version does not know")
    return found.server, found.files


def write_keys(files: dict[str, bytes], directory: Path) -> None:
    """Make a key directory of them, durably. The caller gives it its name when it is whole."""
    make_dir(directory)
    for name, data in sorted(files.items()):
        make_dir((directory / name).parent)
        replace_file(directory / name, data, mode=0o644 if name == _PUBLIC else 0o600)


def _read_identities(path: Path) -> list[pyrage.x25519.Identity]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (UnicodeDecodeError, pyrage.IdentityError) as error:
        raise ConfigError("this is no file of age identities", place=str(path), hint="Lines AGE-SECRET-KEY-1…") from error
    if not found:
        raise ConfigError("the file holds no age identity", place=str(path))
    return found
