"""One backup, and the end of old ones.

Steps, and what a crash in each leaves

    1 look       the store's notes and objects are listed; nothing is written
    2 pieces     pieces that the store has not yet           → pieces that no note leads to; the next backup uses them
    3 keys       the key store as an age file, if asked for  → a key backup that no note names; it opens all the same
    4 index      the list of files, as one more piece        → the same as 2
    5 note       signed, written last                        → no backup, or a whole one
    6 prune      notes past their time go first, then what no note leads to  → pieces without a note; the next prune takes them

A piece that an earlier backup of the same log holds is not read again: files that never change are known by path and size, files that
only grow by their whole pieces. Whether the earlier one is of the same log is asked of the root log: its head must be a prefix of ours.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.archive.backup.capture import Captured, ChangedMeanwhileError, Growth, Part, capture
from tallystick.archive.backup.objects import PIECE_BYTES, BackupStore, FileEntry, Index, Pieces, piece_lengths
from tallystick.archive.store import ArchiveStore
from tallystick.errors import CheckpointError, ConfigError, IntegrityError, NotFoundError
from tallystick.event.times import format_utc
from tallystick.evidence.backup_note import BackupNote, backup_key_name, open_backup, sign_backup
from tallystick.evidence.note import vkey
from tallystick.evidence.origin import ROOT, tree_dir
from tallystick.evidence.trees import TreeFiles
from tallystick.privacy.keys import KeyStore
from tallystick.telemetry import log

_ID = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}")
STEPS = ("look", "pieces", "keys", "index", "note", "prune")
KeyBackup = Callable[[str, str], str | None]
"""(backup id, signed root head) → name of the key backup, or None when keys are not backed up."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A backup that was made. ``written`` and ``pieces``: bytes and objects that were new to the store."""

    note: BackupNote
    written: int
    pieces: int
    pruned: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A note in the store; ``problem`` is why it counts for nothing."""

    path: str
    note: BackupNote | None
    problem: str = ""


class Backups:
    """The backups of one installation in one store. The caller holds the role lock ``backup`` while it writes."""

    def __init__(self, store: ArchiveStore, keys: KeyStore, server_name: str) -> None:
        self.store = BackupStore(store)
        self.pieces = Pieces(self.store, keys)
        self._keys = keys
        self._server_name = server_name

    def listed(self) -> list[Listed]:
        """Every note in the store, the oldest first; those that our key did not sign have a problem. Raises ConfigError before the key is made."""
        vkeys = [vkey(self._key_name, self._signing_key().public_key())]
        found = []
        for path, text in self.store.notes():
            try:
                note = open_backup(text, vkeys)
                problem = "" if path == f"backups/{note.id}.note" else "the note lies under another name than its own"
                found.append(Listed(path, None if problem else note, problem))
            except CheckpointError as error:
                found.append(Listed(path, None, error.message))
        return found

    def take(
        self,
        data_dir: Path,
        archive: ArchiveStore,
        *,
        keep_s: float,
        key_backup: KeyBackup | None = None,
        clock: Callable[[], float] = time.time,
        step: Callable[[str], None] = lambda _: None,
    ) -> Taken:
        """Make one backup. ``step`` is called as each of `STEPS` begins. Raises TransientError, IntegrityError, OSError: then there is none."""
        step("look")
        listed = self.listed()
        self._refuse_foreign(listed)
        known = self.store.sizes()
        with ExitStack() as held:
            captured = capture(data_dir, archive, held)
            before = self._earlier(data_dir, captured, listed)
            step("pieces")
            entries, written, count = [], 0, 0
            for part in captured.parts:
                entry, new_bytes, new_pieces = self._store_part(part, before.get(part.path), known)
                entries.append(entry)
                written, count = written + new_bytes, count + new_pieces
        now = clock()
        identity = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(4)}"
        step("keys")
        key_name = key_backup(identity, captured.root.note) if key_backup is not None else None
        step("index")
        index, index_bytes, index_digest = self.pieces.put_index(Index(1, PIECE_BYTES, entries), known)
        note = BackupNote(
            server=self._server_name,
            id=identity,
            at=format_utc(datetime.fromtimestamp(now, UTC)),
            mark=captured.mark,
            root_size=captured.root.size,
            root=captured.root.root,
            files=len(entries),
            bytes=sum(entry.size for entry in entries),
            index=index,
            index_bytes=index_bytes,
            index_sha256=index_digest,
            keys=key_name or "-",
        )
        step("note")
        self.store.put_note(note, sign_backup(note, self._key_name, self._signing_key()))
        step("prune")
        pruned = self.prune(keep_s, now)
        log.info("backup made", id=note.id, files=note.files, bytes=note.bytes, written=written, objects=count)
        return Taken(note, written, count, pruned)

    def prune(self, keep_s: float, now: float) -> int:
        """Delete backups older than ``keep_s`` seconds, never the newest, and the pieces that only they had; returns how many backups went.

        Notes that cannot be opened stay, and nothing is swept while one of ours cannot be read: its pieces may be all that is left.
        """
        ours = [item for item in self.listed() if item.note is not None]
        old = [item for item in ours[:-1] if item.note is not None and _age(item.note, now) > keep_s]
        for item in old:
            self.store.delete_note(item.path)
        needed: set[str] = set()
        try:
            for item in ours:
                if item.note is not None and item not in old:
                    needed |= self._names_of(item.note)
        except IntegrityError as error:
            log.error("a backup cannot be read; nothing is swept", error=str(error))
            return len(old)
        for name in self.store.sizes().keys() - needed:
            self.store.delete(name)
        for path in self.store.strays():
            self.store.store.delete(path)
        return len(old)

    def check(self, note: BackupNote, *, progress: Callable[[str], None] = lambda _: None) -> int:
        """Open every piece of a backup and compare it with its digest; returns the bytes. Raises IntegrityError with the file's name."""
        total = 0
        for entry in self.pieces.get_index(note).files:
            progress(entry.path)
            for (_, length), digest in zip(piece_lengths(entry.size), entry.pieces, strict=True):
                try:
                    total += len(self.pieces.get(digest, length))
                except IntegrityError as error:
                    raise IntegrityError(f"{error.message}: {entry.path}", place=error.place) from error
        return total

    @property
    def _key_name(self) -> str:
        return backup_key_name(self._server_name)

    def _signing_key(self) -> Ed25519PrivateKey:
        try:
            return self._keys.signing_key(self._key_name)
        except NotFoundError as error:
            raise ConfigError(
                "the key that signs backups is not made yet",
                place=str(self._keys.dir),
                hint="The next start of `tallystick up` makes it",
            ) from error

    def _refuse_foreign(self, listed: list[Listed]) -> None:
        """A store belongs to one installation: pruning would take the other's pieces for leftovers."""
        foreign = next((item for item in listed if item.note is None), None)
        if foreign is not None:
            raise ConfigError(
                f"the backup store holds a note that is not this installation's: {foreign.problem}",
                place=self.store.store.place(foreign.path),
                hint="Give each installation a store of its own, or remove the note if it was damaged",
            )

    def _earlier(self, data_dir: Path, captured: Captured, listed: list[Listed]) -> dict[str, FileEntry]:
        """The files of the newest backup whose root head ours extends, by path."""
        tree = TreeFiles(tree_dir(data_dir, ROOT), captured.root.size)
        try:
            for item in reversed(listed):
                note = item.note
                if note is None or note.root_size > captured.root.size or tree.root(note.root_size) != note.root:
                    continue
                try:
                    return {entry.path: entry for entry in self.pieces.get_index(note).files}
                except IntegrityError as error:
                    log.error("an earlier backup cannot be read; this one leans on an older one, or on none", error=str(error))
        finally:
            tree.close()
        return {}

    def _store_part(self, part: Part, before: FileEntry | None, known: dict[str, int]) -> tuple[FileEntry, int, int]:
        digests: list[str] = []
        written = count = 0
        for number, (offset, length) in enumerate(piece_lengths(part.size)):
            digest = _reusable(part, before, number, offset + length)
            if digest is None or not self.pieces.has(digest, length, known):
                data = part.read(offset, length)
                if len(data) != length:
                    raise ChangedMeanwhileError("a file became shorter while it was copied", place=part.path)
                digest, new = self.pieces.put(data, known)
                written, count = written + new, count + bool(new)
            digests.append(digest)
        return FileEntry(part.path, part.size, digests), written, count

    def _names_of(self, note: BackupNote) -> set[str]:
        digests = {digest for entry in self.pieces.get_index(note).files for digest in entry.pieces}
        return {note.index, *map(self.pieces.name, digests)}


def _reusable(part: Part, before: FileEntry | None, number: int, end: int) -> str | None:
    """The digest of a piece that cannot have changed since an earlier backup."""
    if before is None or part.growth is Growth.STATE or number >= len(before.pieces):
        return None
    if part.growth is Growth.FIXED:
        return before.pieces[number] if part.size == before.size else None
    is_whole = end % PIECE_BYTES == 0 and end <= before.size
    return before.pieces[number] if is_whole else None


def _made(note: BackupNote) -> datetime:
    return datetime.fromisoformat(note.at)


def _age(note: BackupNote, now: float) -> float:
    return now - _made(note).timestamp()


def newest(listed: list[Listed], to: str | None = None) -> BackupNote:
    """The newest backup, the one with id ``to``, or the newest made up to the time ``to`` (RFC 3339).

    Raises NotFoundError, ConfigError, IntegrityError when all of them are foreign or damaged.
    """
    notes = [item.note for item in listed if item.note is not None]
    if to is not None:
        is_id = _ID.fullmatch(to) is not None
        notes = [note for note in notes if (note.id == to if is_id else _made(note) <= _time(to))]
    if listed and not any(item.note for item in listed):
        raise IntegrityError(f"no backup in the store is of this installation: {listed[-1].problem}", place=listed[-1].path)
    if not notes:
        raise NotFoundError("there is no such backup", hint="`tallystick backup list` shows what there is")
    return notes[-1]


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is neither a backup's id nor a time", hint="Write 2026-11-25T10:00:00Z") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
