"""What was read of which file: durable, and told by content, so that a file is known again after it was moved, copied or compressed.

Rules

1. An entry is saved before the first record of its file is handed to the intake, and its offset is saved only after a commit
   returned. A crash between the two means reading again from the last offset; ids are made of ``key`` and place, so what is read
   again is what was stored already, and the dedupe window merges it.
2. ``head`` and ``tail`` are digests of the first bytes of the file and of those before the place read last. A file is an entry's
   when both are found in it. Inode numbers are used again by file systems, names by everybody: neither is believed alone.
3. A file that begins as the entry's did but holds other bytes, or fewer, at its place was emptied or written anew: where what is
   new begins nobody can say. It gets a new entry with the next ``generation``, and so other ids, and is read from its beginning.
4. Entries of files that are gone stay (at most `GONE_MAX`), so that their copies and compressed forms are known as read.

When the register itself is lost (both of its copies damaged), files are read from the beginning; those that are as they were get
the same keys, because a key is a digest of inode, generation and first line.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from tallystick import durable
from tallystick.durable import StateFile
from tallystick.errors import IntegrityError
from tallystick.sources.file.stream import ByteStream

HEAD_BYTES = 1024
TAIL_BYTES = 256
GONE_MAX = 1000


class Entry(msgspec.Struct, omit_defaults=True):
    """One file, over all its names. ``offset``: everything before it is committed, and so are the lines at ``given`` behind it."""

    key: str
    path: str
    device: int
    inode: int
    generation: int
    offset: int
    size: int = 0
    modified_ns: int = 0
    head: str = ""
    head_size: int = 0
    tail: str = ""
    tail_size: int = 0
    tail_end: int = 0
    given: list[int] = []
    is_done: bool = False

    def is_at(self, device: int, inode: int) -> bool:
        return (self.device, self.inode) == (device, inode)


class _State(msgspec.Struct):
    version: int
    entries: list[Entry]


class Register:
    """All entries, newest last. One writer."""

    def __init__(self, directory: Path) -> None:
        """Raises IntegrityError when it is there and unreadable in both copies: see ``is_lost``."""
        self._file = StateFile(directory / "files")
        self._directory = directory
        payload = self._file.load()
        self.is_new = payload is None
        self.is_lost = payload is None and self._file.is_damaged()
        self.entries: list[Entry] = _decode(payload) if payload is not None else []

    def make(self, stream: ByteStream, path: str, first_line: bytes) -> Entry:
        """A new entry for a file that none is about."""
        status = stream.stat
        old = [entry.generation for entry in self.entries if entry.is_at(status.st_dev, status.st_ino)]
        generation = max(old, default=-1) + 1
        name = b"%d %d %d " % (status.st_dev, status.st_ino, generation) + first_line
        key = hashlib.sha256(name).hexdigest()[:20]
        entry = Entry(key, path, status.st_dev, status.st_ino, generation, 0, head=digest(first_line), head_size=len(first_line))
        self.entries.append(entry)
        return entry

    def save(self) -> None:
        """Durable when it returns. Raises OSError; then the last saved state holds, and less counts as read."""
        gone = [entry for entry in self.entries if entry.is_done]
        if len(gone) > GONE_MAX:
            dropped = {id(entry) for entry in gone[: len(gone) - GONE_MAX]}
            self.entries = [entry for entry in self.entries if id(entry) not in dropped]
        durable.make_dir(self._directory)
        self._file.save(msgspec.json.encode(_State(1, self.entries)))
        self.is_new = False


def digest(data: bytes) -> str:
    """Of a head or tail, as entries hold it."""
    return hashlib.sha256(data).hexdigest()[:32]


def _decode(payload: bytes) -> list[Entry]:
    try:
        state = msgspec.json.decode(payload, type=_State)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"the register of files is not readable: {error}") from error
    return state.entries


def facts_of(entry: Entry) -> dict[str, Any]:
    """What a gap says about its file."""
    return {"path": entry.path, "file": entry.key, "generation": entry.generation}
