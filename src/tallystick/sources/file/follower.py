"""All files of one source: which there are, which of them are new, moved, copied, emptied or gone, and what is to be read next.

    unborn ──first line──► followed ──renamed or deleted, and quiet for rotate_wait──► done
                              └──its inode holds other bytes──► displaced ──a copy is found──► followed, in the copy
                                                                    └──none within rotate_wait──► done, and a gap if bytes are missing

A look (`scan`) compares the names with what is open. When something moved, the directories are searched for names that rotation
gives (`app.log.1`, `app.log-20260301.gz`): for files that the register knows, to read the rest of them, and for such that were
written after what was read last, to read them whole. So nothing is missed that was rotated twice between two looks, or while
the server was down. Everything here blocks; one thread at a time calls it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tallystick.sources.file.names import Found, Inode, look_at, matching, rotated_names
from tallystick.sources.file.register import Entry, Register
from tallystick.sources.file.sample import Sample
from tallystick.sources.file.settings import FileSettings
from tallystick.sources.file.stream import ByteStream, DamagedFileError
from tallystick.sources.file.tail import Portion, RewrittenError, Tail
from tallystick.telemetry import log

BLOCK_BYTES = 1 << 18
PORTION_BYTES = 1 << 20
_FIRST_LINE_MAX = 1024
_LOOK_BACK = 1 << 16
_SEARCH_EVERY_S = 10.0


@dataclass(slots=True)
class Changes:
    """What was noticed since it was asked last; each is counted once."""

    rotated: int = 0
    rewritten: int = 0
    gaps: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class Follower:
    """``problems`` are paths that cannot be read now, each with the reason."""

    def __init__(
        self, settings: FileSettings, base_dir: Path, state_dir: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.problems: dict[str, str] = {}
        self.changes = Changes()
        self.tails: dict[str, Tail] = {}
        self._patterns = [str(base_dir / path) for path in settings.paths]
        self._excluded = [str(base_dir / path) for path in settings.exclude]
        self._register = Register(state_dir)
        self._clock = clock
        self._displaced: dict[str, tuple[Tail, float]] = {}
        self._dull: dict[Inode, tuple[int, int]] = {}
        self._searched_at = float("-inf")
        self._is_first = True
        if self._register.is_lost:
            log.error("the register of read files is damaged; files are read from their beginnings", directory=str(state_dir))

    def scan(self) -> None:
        """Look at all names. Raises OSError when the register cannot be saved."""
        now = self._clock()
        named = self._named()
        found = {one.inode: one for one in named}
        last = self._last_written()
        for tail in list(self.tails.values()):
            if tail.is_rewritten():
                self._displace(tail, now)
        has_moved = self._note_links({str(one.path): one.inode for one in named}) or self._is_first
        if self._register.is_new and self.settings.read_from == "end":
            self._skip_all(found.values())
        if has_moved:
            self._dull.clear()
        self._meet_all(found, known_only=True)
        if has_moved or self._displaced or now - self._searched_at >= _SEARCH_EVERY_S:
            self._searched_at = now
            self._search(found, last)
        self._meet_all(found, known_only=False)
        if self._is_first:
            self._report_gone(found)
            self._register.save()
            self._is_first = False
        self._close_idle()

    def read(self) -> Portion:
        """The next portion, from every file in turn; an empty one when nothing is to be read."""
        portion, now = Portion(), self._clock()
        behind: set[str] = set()  # paths of which an older file is not read to its end yet
        for tail in list(self.tails.values()):
            if portion.size >= PORTION_BYTES:
                break
            if tail.entry.path not in behind:
                self._read_tail(tail, portion, now)
            if not tail.is_at_end:
                behind.add(tail.entry.path)
        self._end_displaced(portion, now)
        return portion

    def settle(self, portion: Portion) -> None:
        """The portion is durable."""
        for tail in portion.tails:
            tail.settle()
            if tail.entry.is_done:
                self._drop(tail)

    def save(self) -> None:
        """Make durable what was settled. Raises OSError."""
        self._register.save()

    def take_changes(self) -> Changes:
        """What was noticed since the last call."""
        changes, self.changes = self.changes, Changes()
        return changes

    @property
    def unread_bytes(self) -> int:
        """Over all files, as far as known."""
        return sum(tail.unread_bytes for tail in list(self.tails.values()))

    def close(self) -> None:
        for tail in [*self.tails.values(), *(tail for tail, _ in self._displaced.values())]:
            tail.stream.close()

    # Names

    def _named(self) -> list[Found]:
        """Files that the patterns name, oldest change first."""
        paths = {path for pattern in self._patterns for path in matching(pattern)}
        found = [one for path in paths if not self._is_excluded(path) and (one := look_at(Path(path)))]
        return sorted(found, key=lambda one: (one.status.st_mtime_ns, str(one.path)))

    def _is_excluded(self, path: str) -> bool:
        return any(fnmatch(path, pattern) for pattern in self._excluded)

    def _note_links(self, places: dict[str, Inode]) -> bool:
        """Whether any file that is read lost its name since the last look."""
        has_moved = False
        for tail in self.tails.values():
            entry = tail.entry
            is_linked = places.get(entry.path) == tail.inode
            if tail.is_linked and not is_linked:
                tail.grew_at = self._clock()
                self.changes.rotated += 1
                has_moved = True
            tail.is_linked = is_linked
        return has_moved

    def _last_written(self) -> dict[str, int]:
        """Path → when the file that was read there last had been written last, as far as known."""
        last: dict[str, int] = {}
        for entry in self._register.entries:
            last[entry.path] = max(last.get(entry.path, 0), entry.modified_ns)
        return last

    # Meeting files

    def _meet_all(self, found: dict[Inode, Found], *, known_only: bool) -> None:
        """Open what is not open. ``known_only``: such as the register knows by inode, so that copies are judged after them."""
        open_now = {tail.inode for tail in self.tails.values()}
        by_inode: dict[Inode, Entry] = {(entry.device, entry.inode): entry for entry in self._register.entries}
        for one in found.values():
            if one.inode in open_now or self._dull.get(one.inode) == one.look:
                continue
            entry = by_inode.get(one.inode)
            if entry is not None and entry.is_done and (entry.size, entry.modified_ns) == one.look:
                continue
            if entry is not None or not known_only:
                self._meet(one, is_wanted=True)

    def _meet(self, one: Found, *, is_wanted: bool) -> None:
        """Follow the file when it is known and not read to its end, or when it is new and wanted."""
        try:
            stream = ByteStream(one.path)
        except OSError as error:
            self._complain(one, error)
            return
        tail = None
        try:
            tail = self._recognise(stream, one, is_wanted=is_wanted)
            self.problems.pop(str(one.path), None)
        except (DamagedFileError, OSError) as error:
            self._complain(one, error)
        if tail is None:
            self._dull[one.inode] = one.look
            stream.close()
        elif tail.entry.key in self._displaced:
            self._displaced.pop(tail.entry.key)[0].stream.close()
        if tail is not None:
            self.tails[tail.entry.key] = tail

    def _complain(self, one: Found, error: Exception) -> None:
        self._dull[one.inode] = one.look
        if self.problems.get(str(one.path)) != str(error):
            self.problems[str(one.path)] = str(error)
            log.warning("a file cannot be read", path=str(one.path), error=str(error))

    def _recognise(self, stream: ByteStream, one: Found, *, is_wanted: bool) -> Tail | None:
        """The tail of the entry that the file belongs to, or of a new one; None when there is nothing to read in it (yet)."""
        sample, now = Sample(stream), self._clock()
        entry = self._known(sample, one)
        if entry is not None and entry.key in self.tails:
            return None  # a copy of a file that is read: all of it is, or will be, read there
        if entry is not None:
            if entry.is_done and not stream.is_compressed and one.status.st_size <= entry.offset:
                return None
            if not stream.is_compressed:
                entry.device, entry.inode = one.inode
            stream = _again(stream)
            return Tail(stream, entry, self.settings, now)
        first = _first_line(sample.first)
        if first is None or not is_wanted:
            return None
        made = self._register.make(stream, str(one.path), first)
        self._register.save()
        return Tail(_again(stream), made, self.settings, now)

    def _known(self, sample: Sample, one: Found) -> Entry | None:
        """The entry that the file is: the newest of its inode that fits, or the newest that it is a copy of."""
        own = [entry for entry in reversed(self._register.entries) if entry.is_at(*one.inode)]
        for entry in own:
            if sample.begins(entry) and sample.continues(entry):
                return entry
        for entry in reversed(self._register.entries):
            if entry in own or not sample.may_be_copy(entry):
                continue
            tail = self.tails.get(entry.key)
            if tail is not None and tail.is_rewritten():
                self._displace(tail, self._clock())
                tail = None
            if tail is not None and not tail.stream.is_compressed:
                is_copy = sample.begins_as(tail.stream)
            else:
                is_copy = sample.begins(entry) and sample.continues(entry)
            if is_copy:
                return entry
        return None

    def _skip_all(self, found: Iterable[Found]) -> None:
        """First start with `read_from = "end"`: what is there counts as read, but for a line that is not whole yet."""
        for one in found:
            try:
                stream = ByteStream(one.path)
            except OSError as error:
                self._complain(one, error)
                continue
            self._skip(stream, one)
            stream.close()

    def _skip(self, stream: ByteStream, one: Found) -> None:
        first = stream.peek(0, _FIRST_LINE_MAX) if stream.is_compressed else _first_line(stream.peek(0, _FIRST_LINE_MAX))
        if first is None:
            return
        entry = self._register.make(stream, str(one.path), first)
        entry.size, entry.modified_ns = one.look
        if stream.is_compressed:
            entry.is_done = True
            return
        before = stream.peek(max(0, entry.size - _LOOK_BACK), min(entry.size, _LOOK_BACK))
        entry.offset = entry.size - (len(before) - before.rfind(b"\n") - 1)
        Tail(stream, entry, self.settings, self._clock()).settle()

    # Names that rotation gives

    def _search(self, found: dict[Inode, Found], last: dict[str, int]) -> None:
        """Files under rotated names: known ones with something unread, and unknown ones that are newer than what was read last."""
        open_now = {tail.inode for tail in self.tails.values()}
        for path, written_ns in last.items():
            for one in rotated_names(Path(path)):
                if one.inode in open_now or one.inode in found or self._dull.get(one.inode) == one.look:
                    continue
                self._meet(one, is_wanted=one.status.st_mtime_ns >= written_ns > 0)

    def _report_gone(self, found: dict[Inode, Found]) -> None:
        """At the start: entries whose file is nowhere. What it held behind the last offset is lost, if anything."""
        newest = {(entry.device, entry.inode): entry for entry in self._register.entries}
        for entry in self._register.entries:
            inode = entry.device, entry.inode
            if entry.is_done or entry.key in self.tails or (inode in found and newest[inode] is entry):
                continue
            entry.is_done = True
            if entry.size > entry.offset:
                self._add_gap(entry, "the file was gone at the start")
            else:
                log.warning("a file is gone; it had been read as far as it was known", path=entry.path, offset=entry.offset)

    def _add_gap(self, entry: Entry, why: str) -> None:
        facts = {"path": entry.path, "file": entry.key, "from_byte": entry.offset, "to_byte": entry.size, "why": why}
        self.changes.gaps.append((f"{entry.key}:{entry.offset}", facts))
        log.error("bytes of a file are missing", **facts)

    # Reading

    def _read_tail(self, tail: Tail, portion: Portion, now: float) -> None:
        try:
            tail.read(portion, BLOCK_BYTES, now)
        except RewrittenError:
            self._displace(tail, now)
            return
        except (DamagedFileError, OSError) as error:
            self._give_up(tail, error)
            return
        if not tail.is_at_end:
            return
        is_quiet = now - tail.grew_at >= self.settings.rotate_wait.seconds
        if tail.stream.is_compressed or (not tail.is_linked and is_quiet):
            tail.end(portion, now)

    def _displace(self, tail: Tail, now: float) -> None:
        """The inode holds other bytes: its new content is another file, and this one may live on in a copy."""
        log.info("a file was truncated or written anew", path=tail.entry.path, read=tail.stream.position)
        self.changes.rewritten += 1
        del self.tails[tail.entry.key]
        self._displaced[tail.entry.key] = (tail, now + self.settings.rotate_wait.seconds)
        self._dull.clear()
        self._searched_at = float("-inf")

    def _end_displaced(self, portion: Portion, now: float) -> None:
        for key, (tail, deadline) in list(self._displaced.items()):
            if now < deadline:
                continue
            tail.end(portion, now)
            entry = tail.entry
            if entry.size > tail.stream.position:
                self._add_gap(entry, "it was truncated before all of it was read, and no copy was found")
            self._displaced.pop(key)

    def _give_up(self, tail: Tail, error: Exception) -> None:
        """For now: a file that is still being compressed is whole at a later look."""
        path = tail.stream.path
        one = look_at(path)
        if one is not None:
            self._complain(one, error)
        self._drop(tail)

    def _drop(self, tail: Tail) -> None:
        tail.stream.close()
        self.tails.pop(tail.entry.key, None)

    def _close_idle(self) -> None:
        """Keep to `files_max`: files that are read to their end are opened again when they change."""
        extra = len(self.tails) - self.settings.files_max
        for tail in sorted(self.tails.values(), key=lambda one: one.grew_at):
            if extra <= 0:
                break
            if tail.is_linked and tail.is_idle:
                one = look_at(Path(tail.entry.path))
                if one is not None:
                    self._dull[one.inode] = (tail.stream.stat.st_size, tail.stream.stat.st_mtime_ns)
                self._drop(tail)
                extra -= 1


def _first_line(first: bytes) -> bytes | None:
    """What names a new file; None while its first line is not whole."""
    line, found, _ = first[:_FIRST_LINE_MAX].partition(b"\n")
    return line if found or len(first) >= _FIRST_LINE_MAX else None


def _again(stream: ByteStream) -> ByteStream:
    """The same open file from its beginning."""
    if not stream.is_compressed:
        stream.position = 0
        return stream
    other = ByteStream(stream.path)
    stream.close()
    return other
