"""All signed heads of one installation in one append-only file, ``trees/heads``; one fdatasync a round.

    tallystick.heads/v1 <generation>
    <crc32c of the JSON, 8 hex digits> <JSON>          one line a round, LF at its end

    JSON: {"mark": durable seq the heads cover, "heads": [signed checkpoint, …],
           "rooted": [[tree, index of its `checkpoint` entry in the root log], …], "keys": [names introduced], "config": hash,
           "policy": index in the root log of a `policy` entry}

Rules

1. A line is a whole round or nothing: a line whose CRC fails is damage, text without LF at the end is a torn tail, which
   was never published and which the writer cuts off at its start.
2. Later lines win: the head of a tree is the last one; ``rooted`` names the trees whose head *at that line* is quoted in the
   root log.
3. Readers see a line only after it is synced: the writer then puts ``<generation> <length>`` into ``run/heads.mark``, which
   is volatile and made anew at its start. Without it readers see no head.
4. A file that has grown is replaced by one with the next generation that leads to the same state.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import msgspec

from tallystick.durable import append_all, make_dir, replace_file, replace_volatile, sync_data, sync_dir, truncate
from tallystick.errors import CheckpointError, IntegrityError
from tallystick.evidence.checkpoint import read_checkpoint
from tallystick.evidence.origin import ROOT, tree_name

_HEADER = b"tallystick.heads/v1 "
COMPACT_BYTES = 64 * 2**20


class Round(msgspec.Struct, omit_defaults=True):
    """One line of the file."""

    mark: int = 0
    heads: list[str] = []
    rooted: list[tuple[str, int]] = []
    keys: list[str] = []
    config: str = ""
    policy: int = -1


@dataclass(frozen=True, slots=True)
class Head:
    """A signed tree head. ``mark`` is the journal's durable seq when it was signed; ``note`` the signed checkpoint."""

    origin: str
    size: int
    root: bytes
    note: str
    mark: int


@dataclass(slots=True)
class HeadState:
    """What the lines so far lead to. Trees go by name (``origin.tree_name``)."""

    heads: dict[str, Head] = field(default_factory=dict)
    rooted: dict[str, tuple[Head, int]] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    config: str = ""
    policy: int = -1

    def apply(self, line: Round) -> None:
        """Take one round. Raises CheckpointError when a head in it cannot be read."""
        for note in line.heads:
            checkpoint = read_checkpoint(note)
            head = Head(checkpoint.origin, checkpoint.size, checkpoint.root, note, line.mark)
            self.heads[tree_name(head.origin)] = head
        for name, index in line.rooted:
            if name in self.heads:
                self.rooted[name] = (self.heads[name], index)
        self.keys.update(line.keys)
        self.config = line.config or self.config
        self.policy = max(self.policy, line.policy)

    def unrooted(self) -> list[Head]:
        """Heads that the root log does not quote yet, in the order of their trees' first heads."""
        return [
            head
            for name, head in self.heads.items()
            if name != ROOT and (name not in self.rooted or self.rooted[name][0].size < head.size)
        ]

    def lines(self) -> Iterator[Round]:
        """Rounds that lead to this state again."""
        quoted = list(self.rooted.items())
        for name, (head, index) in quoted:
            yield Round(head.mark, [head.note], [(name, index)])
        for name, head in self.heads.items():
            if name not in self.rooted or self.rooted[name][0] != head:
                yield Round(head.mark, [head.note])
        yield Round(keys=sorted(self.keys), config=self.config, policy=self.policy)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of the heads file that cannot be trusted: byte offsets, and why. ``is_torn``: an unfinished last one."""

    start: int
    end: int
    reason: str
    is_torn: bool = False


def encode_line(line: Round) -> bytes:
    """The bytes of one line."""
    body = msgspec.json.encode(line)
    return b"%08x %s\n" % (google_crc32c.value(body), body)


def read_lines(data: bytes, base: int) -> Iterator[Round | BadLine]:
    """The rounds in ``data``, which lies at offset ``base`` of the file and starts at a line."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        if end < 0:
            is_whole = isinstance(_read_line(data[at:-1]), Round)
            reason = "the line break after a round is damaged" if is_whole else "a round was not written to its end"
            yield BadLine(base + at, base + len(data), reason, is_torn=not is_whole)
            return
        found = _read_line(data[at:end])
        yield found if isinstance(found, Round) else BadLine(base + at, base + end + 1, found)
        at = end + 1


def heads_path(data_dir: Path) -> Path:
    """Where the file lies."""
    return data_dir / "trees" / "heads"


def _read_line(line: bytes) -> Round | str:
    crc, _, body = line.partition(b" ")
    if crc != b"%08x" % google_crc32c.value(body):
        return "the checksum of a round does not hold"
    try:
        return msgspec.json.decode(body, type=Round)
    except msgspec.DecodeError:
        return "a round cannot be read"


def _header(generation: int) -> bytes:
    return _HEADER + b"%d\n" % generation


def read_header(data: bytes, path: Path) -> tuple[int, int]:
    """The generation in the file's first line, and that line's length. Raises IntegrityError."""
    line, separator, _ = data[:64].partition(b"\n")
    if not separator or not line.startswith(_HEADER) or not line[len(_HEADER) :].isdigit():
        raise IntegrityError("the file of signed heads has a damaged first line", place=f"{path}, offset 0")
    return int(line[len(_HEADER) :]), len(line) + 1


class HeadsFile:
    """The sealer's side: appends rounds durably and publishes them."""

    def __init__(self, data_dir: Path, *, compact_bytes: int = COMPACT_BYTES, is_suspect: bool = False) -> None:
        """Read the file, or begin one. Raises IntegrityError, OSError; ``damaged`` lists lines that were passed over.

        ``is_suspect``: a write or sync of it failed, so that what is read may be in memory alone: it is written anew.
        """
        self._path = heads_path(data_dir)
        self._mark_path = data_dir / "run" / "heads.mark"
        self._mark_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._compact_bytes = compact_bytes
        self._is_stale = is_suspect
        self.state = HeadState()
        self.damaged: list[BadLine] = []
        self._fd = -1
        self._generation, self._size = self._load()
        self._open()
        try:
            # The writer before may have been killed between a write, or the renaming of a new file, and its sync.
            sync_data(self._fd)
            sync_dir(self._path.parent)
        except OSError:
            self.close()
            raise

    def append(self, line: Round) -> None:
        """Make one round durable. Not visible to readers before ``publish``. Raises OSError; then this object is of no more use."""
        # A crash before the sync returned leaves a torn or an unpublished line: the first is cut at the next start, the
        # second is a round that was signed and is simply kept. An error here leaves the file's end unknown: the next
        # `HeadsFile` reads what is there and writes it to a new file.
        data = encode_line(line)
        append_all(self._fd, data)
        sync_data(self._fd)
        self._size += len(data)
        self.state.apply(line)

    def publish(self) -> None:
        """Let readers see everything appended so far."""
        if self._is_stale or self._size > self._compact_bytes:
            self._compact()
        replace_volatile(self._mark_path, b"%d %d\n" % (self._generation, self._size))

    def close(self) -> None:
        """Let go of the file. Harmless twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _load(self) -> tuple[int, int]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            make_dir(self._path.parent)
            # A crash before this returns leaves no file or an empty one under its temporary name: the next start comes here.
            replace_file(self._path, _header(1))
            return 1, len(_header(1))
        generation, start = self._read_start(data)
        for found in read_lines(data[start:], start):
            if isinstance(found, Round):
                self.state.apply(found)
                continue
            if not found.is_torn:
                self.damaged.append(found)
            if found.end == len(data) and not data.endswith(b"\n"):
                self._cut(found.start)
                return generation, found.start
        return generation, len(data)

    def _read_start(self, data: bytes) -> tuple[int, int]:
        """As `read_header`; a damaged first line is listed, and makes a generation that no reader has seen."""
        try:
            return read_header(data, self._path)
        except IntegrityError as error:
            start = data.find(b"\n") + 1
            self.damaged.append(BadLine(0, start, error.message))
            self._is_stale = True  # the first publish writes the file anew
            return time.time_ns(), start

    def _cut(self, size: int) -> None:
        # A torn tail was never published; a last line that lost only its end is signed again as the same heads. A crash
        # while it is cut leaves it as it was, and the next start cuts again.
        fd = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            truncate(fd, size)
        finally:
            os.close(fd)

    def _compact(self) -> None:
        data = _header(self._generation + 1) + b"".join(map(encode_line, self.state.lines()))
        # A crash before the rename leaves the old file, after it the new one: both lead to the same state. Readers
        # compare the generation and read from the start again.
        replace_file(self._path, data)
        self.close()
        self._generation, self._size = self._generation + 1, len(data)
        self._open()
        self._compact_bytes = max(self._compact_bytes, 4 * len(data))
        self._is_stale = False

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)


class Heads:
    """A reader's side, for any process. ``refresh`` costs one small read when nothing is new."""

    def __init__(self, data_dir: Path, *, unpublished: bool = False) -> None:
        """``unpublished``: see every whole round in the file, for starts and offline use, when no sealer runs."""
        self._path = heads_path(data_dir)
        self._mark_path = data_dir / "run" / "heads.mark"
        self._unpublished = unpublished
        self._mark = b""
        self._generation = 0
        self._offset = 0
        self.state = HeadState()
        self.refresh()

    def refresh(self) -> bool:
        """Take in what was published since; True when there was something. Raises IntegrityError, CheckpointError."""
        mark = self._read_mark()
        if mark == self._mark and not self._unpublished:
            return False
        try:
            with self._path.open("rb") as file:
                generation, start = self._read_start(file.read(64))
                if not self._unpublished and mark.split()[:1] != [b"%d" % generation]:
                    return False  # the file was just replaced; its mark follows at once
                is_same = generation == self._generation
                offset, state = (self._offset, self.state) if is_same else (start, HeadState())
                file.seek(offset)
                data = file.read() if self._unpublished else file.read(int(mark.split()[1]) - offset)
        except FileNotFoundError:
            return False
        size = self._apply(state, data, offset)
        is_new = size != self._offset or not is_same
        self._generation, self._offset, self.state, self._mark = generation, size, state, mark
        return is_new

    def head(self, origin: str) -> Head | None:
        """The last head of a tree, or None when it has none."""
        found = self.state.heads.get(tree_name(origin))
        return found if found is not None and found.origin == origin else None

    def rooted(self, origin: str) -> tuple[Head, int] | None:
        """The last head that the root log quotes, and the index of that `checkpoint` entry."""
        found = self.state.rooted.get(tree_name(origin))
        return found if found is not None and found[0].origin == origin else None

    def sealed_size(self, handle: str) -> int:
        """How many events of a tenant the last head of its event tree covers."""
        found = self.state.heads.get(handle)
        return found.size if found is not None else 0

    def sealed_sizes(self) -> dict[str, int]:
        """`sealed_size` of every tenant that has a head, by handle."""
        return {name: head.size for name, head in self.state.heads.items() if name != ROOT and "/" not in name}

    def mark(self) -> int:
        """The highest journal seq that any head promises to be durable."""
        return max((head.mark for head in self.state.heads.values()), default=0)

    def _read_start(self, data: bytes) -> tuple[int, int]:
        """As `read_header`; at a start or offline, a damaged first line hides nothing behind it: verify names it."""
        try:
            return read_header(data, self._path)
        except IntegrityError:
            if not self._unpublished:
                raise
            return 0, data.find(b"\n") + 1

    def _read_mark(self) -> bytes:
        try:
            return self._mark_path.read_bytes()
        except FileNotFoundError:
            return b""

    @staticmethod
    def _apply(state: HeadState, data: bytes, base: int) -> int:
        """Apply the whole lines in ``data``; returns the offset behind them. Damaged lines are passed over: verify names them."""
        size = base
        for found in read_lines(data, base):
            if isinstance(found, BadLine):
                if not found.is_torn:
                    size = found.end
                continue
            state.apply(found)
        end = data.rfind(b"\n")
        return base + end + 1 if end >= 0 else size


def read_remembered(keys_dir: Path) -> str | None:
    """The last root head as the key directory remembers it (a signed note), or None."""
    try:
        return (keys_dir / "heads").read_text("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise CheckpointError("the remembered head is damaged", place=str(keys_dir / "heads")) from error


def remember(keys_dir: Path, note: str) -> None:
    """Put the last root head into the key directory, so that an older copy of the data is noticed."""
    # A crash before this returns leaves an older remembered head, which every later head extends: the next start writes it.
    replace_file(keys_dir / "heads", note.encode())
