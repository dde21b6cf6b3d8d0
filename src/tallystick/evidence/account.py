"""Entries of an account tree or of the root log: the leaf data, kept so that it can be served and checked.

    entries            the entries, each followed by LF: a JSON Lines file (leaf hash = SHA-256(0x00 ‖ line without LF))
    entries.index      per entry 16 bytes: end offset in `entries` (after its LF) u64 be | journal seq it came from, or 0

Both are append-only. As with the level files, a signed head says how many entries are in force; what lies beyond is
written over. The seq makes a second reading of the journal harmless: an entry with a seq at or below the last is here
already.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from tallystick.durable import make_dir, sync_data, sync_dir, write_all
from tallystick.errors import IntegrityError, NotFoundError

_ROW = struct.Struct(">QQ")


class AccountLog:
    """Appends entries and reads them by number. One writer; readers use their own object."""

    def __init__(self, directory: Path, count: int | None = None) -> None:
        """``count`` is the number of entries in force; None takes what the index holds."""
        self.dir = directory
        self._fds: tuple[int, int] | None = None
        self._is_writable = False
        self._is_dirty = False
        self._is_named = False
        self.count = self._stored_count() if count is None else count

    def append(self, entries: Sequence[bytes], seqs: Sequence[int] | None = None) -> None:
        """Add entries (no line breaks inside). ``seqs`` name the journal entry each came from. Durable after ``sync``."""
        end = self._end(self.count)
        rows = []
        at = end
        for entry, seq in zip(entries, seqs or [0] * len(entries), strict=True):
            at += len(entry) + 1
            rows.append(_ROW.pack(at, seq))
        data, index = self._open(writable=True)
        # A crash between the two writes leaves text that no row names; it is written over.
        write_all(data, b"".join(entry + b"\n" for entry in entries), end)
        write_all(index, b"".join(rows), self.count * _ROW.size)
        self._is_dirty = True
        self.count += len(entries)

    def sync(self) -> None:
        """Make the entries durable: text before index, so that a row never names text that is not there."""
        if not self._is_dirty or self._fds is None:
            return
        for fd in self._fds:
            sync_data(fd)
        if not self._is_named:  # also when the files were there: whoever made them may not have come so far
            sync_dir(self.dir)
        self._is_dirty, self._is_named = False, True

    def last_seq(self) -> int:
        """The journal seq of the last entry in force; 0 when there is none."""
        return self._rows(self.count - 1, 1)[0][1] if self.count else 0

    def entry(self, number: int) -> bytes:
        """One entry, without its LF. Raises NotFoundError beyond the last."""
        return self.entries(number, 1)[0]

    def entries(self, first: int, count: int) -> list[bytes]:
        """``count`` entries from ``first``. Raises NotFoundError beyond the last, IntegrityError when the files are cut."""
        if first < 0 or count < 1 or first + count > self.count:
            raise NotFoundError(f"there is no entry {first + count - 1} yet", place=str(self.dir))
        base = self._end(first)
        ends = [end for end, _ in self._rows(first, count)]
        data, _ = self._open()
        text = os.pread(data, max(0, ends[-1] - base), base)
        if not text.endswith(b"\n") or len(text) != ends[-1] - base:
            raise IntegrityError("the entries of a tree are cut", place=f"{self.dir / 'entries'}, offset {base + len(text)}")
        starts = [base, *ends[:-1]]
        return [text[start - base : end - base - 1] for start, end in zip(starts, ends, strict=True)]

    def rows(self, first: int, count: int) -> tuple[list[bytes], list[int]]:
        """As `entries`, with the journal seq that each came from: what `append` takes."""
        return self.entries(first, count), [seq for _, seq in self._rows(first, count)]

    def end(self) -> int:
        """Bytes of ``entries`` that the entries in force take. Raises IntegrityError when the index is cut."""
        return self._end(self.count)

    def close(self) -> None:
        """Release the descriptors."""
        if self._fds is not None:
            for fd in self._fds:
                os.close(fd)
        self._fds, self._is_writable = None, False

    def _end(self, number: int) -> int:
        return self._rows(number - 1, 1)[0][0] if number else 0

    def _rows(self, first: int, count: int) -> list[tuple[int, int]]:
        _, index = self._open()
        data = os.pread(index, count * _ROW.size, first * _ROW.size)
        if len(data) != count * _ROW.size:
            raise IntegrityError("the index of a tree's entries is cut", place=f"{self.dir / 'entries.index'}, offset {len(data)}")
        return list(_ROW.iter_unpack(data))

    def _stored_count(self) -> int:
        try:
            return (self.dir / "entries.index").stat().st_size // _ROW.size
        except FileNotFoundError:
            return 0

    def _open(self, *, writable: bool = False) -> tuple[int, int]:
        if self._fds is not None and (self._is_writable or not writable):
            return self._fds
        self.close()
        flags = os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY)
        if writable:
            make_dir(self.dir)
        try:
            data = os.open(self.dir / "entries", flags, 0o600)
            self._fds = (data, os.open(self.dir / "entries.index", flags, 0o600))
        except FileNotFoundError as error:
            raise IntegrityError("the entries of a tree are missing", place=str(self.dir)) from error
        self._is_writable = writable
        return self._fds
