"""A set of data, and a file that it is read from anew whenever the file changes.

A set is immutable, and what it answered is remembered with it, so a new file brings new answers by one assignment, whatever other threads
do at that moment. Whatever is wrong with a changed file leaves the set before in force; the reason is logged once for each such file.

    file changes ──► look() sees another size, time or inode ──► load ──► in force
                                                                  └─ bad: the set before stays; log, counter
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from prometheus_client import Counter

from tallystick.errors import ConfigError
from tallystick.telemetry import log

_LOADED = Counter(
    "tallystick_enrich_files",
    "Changed files of enrichments: `taken`, or `refused` with the one before left in force, by transform.",
    ["transform", "outcome"],
)
_REMEMBERED_BYTES = 512
"""Longer values are looked up each time: strangers choose them, and the memory is bounded by their number."""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class BadFileError(Exception):
    """A file that cannot be used, with the reason in words."""


class DataSet:
    """What is known of values. ``find`` gives what is added for one; it is asked once for each value that is remembered.

    ``facts`` name the set and its date. ``until``: Unix seconds from which on the answers may be others (see `at`).
    """

    until = inf

    def __init__(self, name: str, date: str) -> None:
        self.facts = {"name": name, "date": date}

    def find(self, value: str) -> Any:
        """What is added for ``value``, as values for JSON; None: nothing."""
        raise NotImplementedError

    def at(self, now: float) -> DataSet:
        """The set as it is from ``now`` on, in Unix seconds."""
        return self


class _InForce(NamedTuple):
    """A set and its memory: JSON text of a value in an event → JSON text of what is added, or None."""

    data: DataSet
    answer: Callable[[bytes], bytes | None]


def _remembering(data: DataSet, memo: int) -> _InForce:
    def answer(value: bytes) -> bytes | None:
        first = value[:1]
        if first in (b"n", b"{", b"["):
            return None
        found = data.find(_decode(value) if first == b'"' else value.decode())
        return None if found is None else _encode(found)

    remembered = lru_cache(memo)(answer)
    return _InForce(data, lambda value: remembered(value) if len(value) <= _REMEMBERED_BYTES else answer(value))


class Answers:
    """What a set that never changes says. ``memo``: values remembered."""

    def __init__(self, data: DataSet, memo: int) -> None:
        self._memo = memo
        self._now = _remembering(data, memo)

    def answering(self, now: float) -> Callable[[bytes], bytes | None]:
        """From the JSON text of a value to that of what is added, for a batch that is worked on at ``now``, in Unix seconds."""
        if now >= self._now.data.until:
            self._take(self._now.data.at(now))
        return self._now.answer

    def look(self) -> None:
        """See whether there is something new."""

    def _take(self, data: DataSet) -> None:
        self._now = _remembering(data, self._memo)


class Content(NamedTuple):
    """A file as it was read: ``date`` is when it was changed, canonical; ``changed`` the same in Unix seconds."""

    path: Path
    data: bytes
    date: str
    changed: float


class WatchedFile(Answers):
    """What the set in a file says. Raises ConfigError when it is bad from the start."""

    def __init__(self, transform: str, path: Path, bytes_max: int, memo: int, load: Callable[[Content], DataSet]) -> None:
        self._transform = transform
        self._path = path
        self._bytes_max = bytes_max
        self._load = load
        self._seen: _State | None
        try:
            self._seen, data = self._read()
        except BadFileError as error:
            raise ConfigError(f"{path}: {error}") from error
        super().__init__(data, memo)

    def look(self) -> None:
        """Take the file again if it changed; a bad one is logged, and leaves the set before in force."""
        seen = _state(self._path)
        if seen == self._seen:
            return
        try:
            seen, data = self._read()
        except BadFileError as error:
            in_force = self._now.data.facts["date"]
            log.warning("enrich_file_refused", transform=self._transform, file=str(self._path), error=str(error), in_force=in_force)
            _LOADED.labels(self._transform, "refused").inc()
        else:
            self._take(data)
            log.info("enrich_file_taken", transform=self._transform, file=str(self._path), date=data.facts["date"])
            _LOADED.labels(self._transform, "taken").inc()
        self._seen = seen

    def _read(self) -> tuple[_State, DataSet]:
        """The file's state when it was opened, and what is in it: one that is written to meanwhile will be seen as changed."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_size > self._bytes_max:
                    raise BadFileError(f"it has {found.st_size} bytes, more than the {self._bytes_max} of `file_max`")
                data = file.read(self._bytes_max + 1)
        except OSError as error:
            raise BadFileError(f"it cannot be read: {error.strerror}") from error
        if len(data) > self._bytes_max:
            raise BadFileError(f"it has more than the {self._bytes_max} bytes of `file_max`")
        date = datetime.fromtimestamp(found.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            return _State.of(found), self._load(Content(self._path, data, date, found.st_mtime))
        except (BadFileError, ConfigError):
            raise
        except Exception as error:  # of a library, over a file that nobody thought of: no reason to stop looking for a better one
            raise BadFileError(f"{type(error).__name__}: {error}") from error


class _State(NamedTuple):
    """By which another file is told."""

    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> _State:
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


def _state(path: Path) -> _State | None:
    try:
        return _State.of(path.stat())
    except OSError:
        return None
