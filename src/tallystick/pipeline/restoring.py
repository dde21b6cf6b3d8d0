"""`tallystick restore`: where the backup, its keys and the heads that are known come from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tallystick.archive.backup.key_file import open_keys, write_keys
from tallystick.archive.backup.restore import Restored, Target, check_empty, restore
from tallystick.archive.backup.take import Backups, Listed, newest
from tallystick.archive.store import ArchiveStore
from tallystick.errors import CheckpointError, ConfigError, IntegrityError, KeysMissingError
from tallystick.evidence.backup_note import BackupNote, read_backup
from tallystick.evidence.checkpoint import Checkpoint, open_checkpoint
from tallystick.evidence.heads import read_remembered
from tallystick.evidence.note import vkey
from tallystick.evidence.origin import root_origin
from tallystick.evidence.verify import Report
from tallystick.pipeline.key_scratch import key_scratch
from tallystick.pipeline.served import read_head
from tallystick.pipeline.verify import VerifyOptions, verify_directory
from tallystick.privacy.keys import KeyStore, check_key_place


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What the command line said. ``to``: a backup's id or a time; ``identity``: a file of age identities, for keys from the key store
    of the backups; ``heads``: a file with a signed root head that somebody has seen; ``is_last``: the operator
    says that nobody has seen a later one than the backup's."""

    store: str
    data: Path
    keys: Path
    to: str | None = None
    identity: Path | None = None
    keys_store: str | None = None
    heads: Path | None = None
    is_last: bool = False
    is_behind: bool = False
    options: dict[str, str] | None = None


def restore_backup(options: RestoreOptions, step: Callable[[str], None] = lambda _: None) -> Restored:
    """Restore into an empty place. Raises ConfigError, StartError, IntegrityError; then nothing was put in place."""
    data, keys = options.data.absolute(), options.keys.absolute()
    check_key_place(data, keys, is_named=True)
    check_empty(data)
    files = _key_files(options) if options.identity is not None else None
    with key_scratch(keys) as scratch:
        used = _keys_in_use(keys, files, scratch)
        store = KeyStore.open(used)
        backups = Backups(_open(options.store, options), store, _server_of(options))
        listed = backups.listed()
        note = newest(listed, options.to)
        known = _known_heads(used, options.heads, store, note.server)
        # A key directory that was not lost remembers the last head; one made of a backup remembers that of its backup.
        is_proven = used == keys or options.heads is not None or options.is_last
        known += tuple(Checkpoint(root_origin(item.server), item.root_size, item.root) for item in _notes(listed))
        target = Target(data, keys, files, known, is_proven, options.is_behind)

        def verify(directory: Path) -> Report:
            return verify_directory(VerifyOptions(directory, keys=_without_head(used, scratch)), lambda _: None)

        return restore(backups, note, store, target, verify, step=step)


def _notes(listed: list[Listed]) -> list[BackupNote]:
    return [item.note for item in listed if item.note is not None]


def _open(url: str, options: RestoreOptions) -> ArchiveStore:
    if "://" not in url and not Path(url).is_dir():
        raise ConfigError("there is no such backup store", place=url, hint="Name the [backup] store of the server that made it")
    return ArchiveStore(url, options.options or {}, what="backup")


def _server_of(options: RestoreOptions) -> str:
    """The server's name, as the newest note in the store has it; its signature is checked with that name's key."""
    store = _open(options.store, options)
    names = sorted(path for path in store.list("backups/") if path.endswith(".note"))
    for name in reversed(names):
        try:
            return read_backup(store.get(name).decode("utf-8", "replace")).server
        except CheckpointError:
            continue
    raise ConfigError("there is no backup in this store", place=options.store)


def _key_files(options: RestoreOptions) -> dict[str, bytes]:
    """The newest key backup that the identities open. Key backups hold all keys of earlier data backups but destroyed ones."""
    url = options.keys_store or options.store.rstrip("/") + ".keys"
    store = _open(url, options)
    names = sorted(path for path in store.list() if path.endswith(".age"))
    if not names or options.identity is None:
        raise KeysMissingError(
            "there is no key backup", place=url, hint="Name its place with --keys-store, or a key directory with --keys"
        )
    server, files = open_keys(store.get(names[-1]), options.identity)
    expected = _server_of(options)
    if server != expected:
        raise IntegrityError(f"the key backup is of the server {server!r}, the data backup of {expected!r}", place=url)
    return files


def _keys_in_use(keys: Path, files: dict[str, bytes] | None, scratch: Path) -> Path:
    """The key directory as it is, or one made of the key backup. One that is there already must be what the key backup would make."""
    if files is None:
        return keys
    if keys.exists() and any(keys.iterdir()):
        root = keys / "root.key"
        if not root.exists() or root.read_bytes() != files["root.key"]:
            raise KeysMissingError(
                "the key directory holds other keys than the key backup", place=str(keys), hint="Name an empty one"
            )
        return keys
    if keys.exists():
        keys.rmdir()
    write_keys(files, scratch / "restored")
    return scratch / "restored"


def _known_heads(keys: Path, seen: Path | None, store: KeyStore, server: str) -> tuple[Checkpoint, ...]:
    """The remembered head, and the one that somebody has seen. Raises CheckpointError unless our root key signed both."""
    origin = root_origin(server)
    root = vkey(origin, store.signing_key(origin).public_key())
    found = [text for text in (read_remembered(keys), read_head(seen) if seen is not None else None) if text is not None]
    return tuple(open_checkpoint(text, [root]) for text in found)


def _without_head(keys: Path, scratch: Path) -> Path:
    """A copy of the key directory that remembers nothing: whether the backup is behind is asked apart, by the guard."""
    copy = scratch / "for-verify"
    if not copy.exists():
        shutil.copytree(keys, copy, ignore=shutil.ignore_patterns("heads"))
    return copy
