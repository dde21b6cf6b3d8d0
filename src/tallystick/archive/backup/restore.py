"""A backup put together again: everything is proven in a scratch directory before anything gets its name.

Steps, and what a crash in each leaves

    1 choose    note and index are opened; the target must be empty               nothing written
    2 files     every piece, against its digest, into ``<DATA>.restoring``        a scratch directory; the next restore removes it
    3 catalog   made anew from the chunks                                         the same
    4 verify    everything recomputed; the heads are those that the note names    the same
    5 guard     no head signed later than the backup may be known                 the same
    6 keys      with a key backup: the key directory gets its name                keys without data; the same restore goes on with them
    7 data      the data directory gets its name, in one step                     everything, or what 6 left

The guard: a log that went back in time and is signed again is a second log under the same name, and nobody could tell which was the true one. So
when the key directory, or a head named by the operator, shows that more was signed than the backup holds, nothing is put in place unless
``is_behind`` asks for it: then the data can be read and verified, and the sealer refuses to sign (`evidence.root_log`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from tallystick.archive.backup.key_file import write_keys
from tallystick.archive.backup.objects import FileEntry, piece_lengths
from tallystick.archive.backup.take import Backups
from tallystick.archive.reader import ChunkSource
from tallystick.archive.rebuild import rebuild_catalog
from tallystick.archive.store import ArchiveStore
from tallystick.durable import append_all, make_dir, rename, replace_file, sync_dir, sync_file, write_new
from tallystick.errors import CheckpointError, FormatRefusedError, IntegrityError
from tallystick.evidence.backup_note import BackupNote
from tallystick.evidence.checkpoint import Checkpoint
from tallystick.evidence.heads import Heads
from tallystick.evidence.origin import ROOT, tree_dir
from tallystick.evidence.sealer import RESTORED
from tallystick.evidence.trees import TreeFiles
from tallystick.evidence.verify import Report
from tallystick.privacy.keys import KeyStore

STEPS = ("choose", "files", "catalog", "verify", "guard", "keys", "data")
_MARKER = "RESTORING"
_PLACES = frozenset(
    {"archive", "cursors", "dead-letters", "dedupe", "journal", "quarantine", "reviews", "salvage", "sources", "trees"}
)
_SINGLE = frozenset({"FORMAT", "tenants.a", "tenants.b"})
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a restore goes. ``key_files``: the key directory's files when they come from a key backup; ``known``: root heads that were
    signed, from the key directory, from other backups or from somebody who has seen one; ``is_proven``: the last head is among them, or
    the operator says that none is known; ``is_behind``: put it in place even when one of them is later than the backup."""

    data_dir: Path
    keys_dir: Path
    key_files: dict[str, bytes] | None = None
    known: tuple[Checkpoint, ...] = ()
    is_proven: bool = True
    is_behind: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put in place. ``behind``: why nothing more will be signed, or empty; ``report`` is verify's."""

    note: BackupNote
    bytes: int
    report: Report
    behind: str = ""


def check_empty(path: Path) -> None:
    """Raises FormatRefusedError when something is there already."""
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise FormatRefusedError(
            "there is something already; nothing is overwritten", place=str(path), hint="Name an empty directory"
        )


def restore(
    backups: Backups,
    note: BackupNote,
    keys: KeyStore,
    target: Target,
    verify: Callable[[Path], Report],
    *,
    step: Step = lambda _: None,
) -> Restored:
    """Put a backup in place. Raises IntegrityError, CheckpointError, FormatRefusedError, OSError; then the target is as it was."""
    step("choose")
    check_empty(target.data_dir)
    scratch = scratch_of(target.data_dir)
    _clear(scratch)
    total = unpack(backups, note, keys, scratch, step)
    step("verify")
    report = verify(scratch)
    if report.problems:
        problem = report.problems[0]
        raise IntegrityError(
            f"the backup does not verify: {problem.message}", place=problem.place, hint="Take an earlier one with --to"
        )
    step("guard")
    behind = _behind(scratch, note, target.known)
    if behind and not target.is_behind:
        raise CheckpointError(
            f"{behind}, so the restored log could not go on without contradicting it",
            place=f"backup {note.id}",
            hint="Restore a newer backup; or --behind puts this one in place for reading, and nothing more is signed",
        )
    if not target.is_proven and not target.is_behind:
        raise CheckpointError(
            "nothing shows that no head was signed after this backup",
            place=f"backup {note.id}",
            hint="Name the last head that anybody has seen with --heads, or say with --last that nobody has seen a later one",
        )
    _note_restore(scratch, note, target)
    step("keys")
    if target.key_files is not None and not target.keys_dir.exists():
        _place_keys(target.key_files, target.keys_dir)
    step("data")
    (scratch / _MARKER).unlink()
    sync_dir(scratch)
    rename(scratch, target.data_dir)
    return Restored(note, total, report, behind)


def unpack(backups: Backups, note: BackupNote, keys: KeyStore, directory: Path, step: Step = lambda _: None) -> int:
    """Steps 2 and 3: the files of a backup, each piece against its digest, and the catalog; returns the bytes. Raises IntegrityError."""
    step("files")
    make_dir(directory)
    write_new(directory / _MARKER, b"a restore that has not come to its end\n")
    total = 0
    for entry in backups.pieces.get_index(note).files:
        total += _write(backups, entry, directory)
    step("catalog")
    store = ArchiveStore(str(directory / "archive"))
    catalog = rebuild_catalog(directory / "catalog.sqlite", note.server, keys, ChunkSource(store, keys), int(time.time()))
    catalog.close()
    _check_root(directory, note)
    return total


def scratch_of(data_dir: Path) -> Path:
    """Where a restore is put together: beside the target, so that a rename is enough."""
    return data_dir.with_name(data_dir.name + ".restoring")


def _clear(scratch: Path) -> None:
    """Remove what an earlier restore left; anything else of that name is somebody's."""
    if not scratch.exists():
        return
    if any(scratch.iterdir()) and not (scratch / _MARKER).exists() and not (scratch / RESTORED).exists():
        raise FormatRefusedError("there is something already, and no restore has left it", place=str(scratch), hint="Move it away")
    shutil.rmtree(scratch)


def _write(backups: Backups, entry: FileEntry, directory: Path) -> int:
    path = directory / checked_path(entry.path)
    make_dir(path.parent)
    with path.open("xb", buffering=0) as file:
        for (_, length), digest in zip(piece_lengths(entry.size), entry.pieces, strict=True):
            append_all(file.fileno(), backups.pieces.get(digest, length))
        sync_file(file.fileno())
    path.chmod(0o600)
    sync_dir(path.parent)
    return entry.size


def checked_path(name: str) -> PurePosixPath:
    """A path of the index. Raises IntegrityError unless it names a place that a backup has."""
    path = PurePosixPath(name)
    is_known = name in _SINGLE or (len(path.parts) > 1 and path.parts[0] in _PLACES)
    if not is_known or path.is_absolute() or ".." in path.parts or str(path) != name or "\0" in name:
        raise IntegrityError("the backup names a file that does not belong into a data directory", place=repr(name))
    return path


def _check_root(directory: Path, note: BackupNote) -> None:
    head = Heads(directory, unpublished=True).state.heads.get(ROOT)
    if head is None or (head.size, head.root) != (note.root_size, note.root):
        raise CheckpointError("the root head in the backup is not the one that its note names", place=f"backup {note.id}")


def _behind(directory: Path, note: BackupNote, known: tuple[Checkpoint, ...]) -> str:
    """Why the backup does not cover a head that was signed; empty when it covers all that are known. Raises CheckpointError for a fork."""
    later = max((head.size for head in known), default=0)
    if later > note.root_size:
        return f"a root head over {later} entries was signed, and the backup ends at {note.root_size}"
    tree = TreeFiles(tree_dir(directory, ROOT), note.root_size)
    try:
        if any(tree.root(head.size) != head.root for head in known):
            raise CheckpointError("a root head that was signed is not in this backup's log", place=f"backup {note.id}")
    finally:
        tree.close()
    return ""


def _note_restore(directory: Path, note: BackupNote, target: Target) -> None:
    """What the sealer puts into the root log before anything else: that this log was put back, and how far."""
    # The scratch directory has no name yet: a crash here leaves what every crash before the last step leaves.
    fields = {"backup": note.id, "made": note.at, "root_size": note.root_size, "heads_known": len(target.known)}
    replace_file(directory / RESTORED, msgspec.json.encode(fields))


def _place_keys(files: dict[str, bytes], keys_dir: Path) -> None:
    scratch = scratch_of(keys_dir)
    if scratch.exists():
        shutil.rmtree(scratch)  # of an earlier restore: key files are written nowhere else under this name
    write_keys(files, scratch)
    rename(scratch, keys_dir)
