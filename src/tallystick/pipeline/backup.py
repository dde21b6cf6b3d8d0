"""Backups of an installation as its configuration wants them: one by hand, or one after another beside the running server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tallystick.archive.backup.key_file import read_recipients, seal_keys
from tallystick.archive.backup.ledger import ROLE, Ledger, LedgerFile, Pending
from tallystick.archive.backup.take import Backups, Taken
from tallystick.archive.store import ArchiveStore
from tallystick.config import Config
from tallystick.config.load import place_of
from tallystick.durable import RoleLock
from tallystick.errors import ConfigError, DestinationUnavailableError, LockedError
from tallystick.pipeline.context import Installation

_POLL_S = 0.2
HAND_WAIT_S = 600.0
"""How long a command line waits for a backup that the server is making."""


def check_backup(config: Config) -> None:
    """Raises ConfigError for recipients that are none, and for stores that would be part of what they keep. Opens nothing."""
    if config.backup_url is None:
        return
    try:
        read_recipients(config.backup.recipients)
    except ConfigError as error:
        raise ConfigError(error.message, place=place_of(config, "backup.recipients"), hint=error.hint) from error
    data, keys, own = config.data_dir, config.keys_dir, [config.backup_url, config.backup_keys_url or ""]
    for name, url in zip(("store", "keys_store"), own, strict=True):
        place = place_of(config, f"backup.{name}") if name == "store" or config.backup.keys_store else None
        if "://" not in url and any(_is_within(Path(url), part) or _is_within(part, Path(url)) for part in (data, keys)):
            raise ConfigError(
                f"[backup] {name} lies in the data or key directory, or around it",
                place=place,
                hint="Name a place of its own, best on another disk",
            )
        if url == config.archive_url.rstrip("/"):
            raise ConfigError(f"[backup] {name} is the archive's own store", place=place, hint="Name a place of its own")
    if own[1].startswith(own[0].rstrip("/") + "/") or own[0].startswith(own[1].rstrip("/") + "/") or own[0] == own[1]:
        raise ConfigError(
            "[backup] store and keys_store lie in one another",
            place=place_of(config, "backup.store"),
            hint="Keys are kept apart from data",
        )


def open_backups(installation: Installation) -> Backups:
    """The backups in the configured store. Raises ConfigError when none is configured."""
    config = installation.config
    if config.backup_url is None:
        raise ConfigError(
            "no backup store is configured", place=config.path or None, hint='Write [backup] store = "/mnt/backup/tallystick"'
        )
    store = ArchiveStore(config.backup_url, config.backup.options, what="backup")
    return Backups(store, installation.keys, installation.server_name)


def _is_within(path: Path, directory: Path) -> bool:
    return path == directory or directory in path.parents


@contextlib.contextmanager
def writing(installation: Installation, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the role: one writer of backups and of the ledger. Raises LockedError when another holds it for longer than ``wait_s``."""
    lock, deadline = RoleLock(installation.data_dir, ROLE), time.monotonic() + wait_s
    while True:
        try:
            lock.acquire()
            break
        except LockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)
    try:
        yield
    finally:
        lock.release()


def make_backup(installation: Installation, step: Callable[[str], None] = lambda _: None, *, wait_s: float = 0.0) -> Taken:
    """One backup now, with the keys when there are recipients; it is in the ledger and will be on record. Raises LockedError and what `Backups.take` raises."""
    config = installation.config
    backups = open_backups(installation)
    with writing(installation, wait_s):
        taken = backups.take(
            installation.data_dir,
            ArchiveStore.open(config),
            keep_s=config.backup.keep.seconds,
            key_backup=_key_backup(installation) if config.backup.recipients else None,
            step=step,
        )
        note = taken.note
        file = LedgerFile(installation.data_dir)
        ledger = file.load()
        fields = {
            "id": note.id,
            "at": note.at,
            "mark": note.mark,
            "root_size": note.root_size,
            "files": note.files,
            "bytes": note.bytes,
        }
        ledger.backup = {**fields, "written": taken.written}
        if note.keys != "-":
            ledger.keys = {"name": note.keys, "at": note.at}
        put_on_record(ledger, f"backup:{note.id}", {"type": "backup", **fields, "keys": note.keys != "-", "pruned": taken.pruned})
        file.save(ledger)
        if note.keys != "-":
            _prune_keys(installation, backups)
    return taken


def put_on_record(ledger: Ledger, identity: str, entry: dict[str, object]) -> None:
    """An entry for the account of `_tallystick`, to be handed over by the running server."""
    ledger.pending.append(Pending(identity, entry))


def key_store_of(config: Config) -> ArchiveStore:
    """Where key backups lie."""
    if config.backup_keys_url is None:
        raise ConfigError("no backup store is configured", hint='Write [backup] store = "/mnt/backup/tallystick"')
    return ArchiveStore(config.backup_keys_url, config.backup.options, what="backup")


def _key_backup(installation: Installation) -> Callable[[str, str], str]:
    store = key_store_of(installation.config)

    def make(identity: str, head: str) -> str:
        name = f"{identity}.age"
        recipients = installation.config.backup.recipients
        sealed = seal_keys(installation.keys_dir, installation.server_name, identity, head, recipients)
        store.put_new(name, sealed)
        if store.size(name) != len(sealed):
            raise DestinationUnavailableError("the key backup is not there after it was written", place=store.place(name))
        return name

    return make


def _prune_keys(installation: Installation, backups: Backups) -> None:
    """Key backups go with the data backup that they were made with: nothing that is erased stays readable for longer."""
    store = key_store_of(installation.config)
    needed = {item.note.keys for item in backups.listed() if item.note is not None}
    for path in list(store.list()):
        if path.endswith(".age") and path not in needed:
            store.delete(path)
