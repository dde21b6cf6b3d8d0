"""The keys of people: found by a keyed hash of who they are, destroyed one by one (docs/formats/keys.md).

    keystore/subject-generations   generation keys of this family alone, each wrapped by the root key; the last is in use
    keystore/subjects/<page>       128 entries a page: skid → [lookup, SK, tenant's handle], AES-256-GCM under a generation key
    keystore/tombstones            lookups of erased people, each with the second at which it is forgotten

Who writes. The intake (each worker) adds people, the api's process erases and rotates. All of them change the files under one lock
(`keystore/subjects.lock`, flock) and read again what is there once they have it, so no entry of another process is lost, and a
process that dies lets the lock go. Readers look at the directory's time; a change of `change` in the register (an erasure, a rotation) has
them forget everything and read it anew, so that no process goes on with a key that is gone.

Crashes. A key is in both slots of its page before anybody seals with it. An erasure writes the tombstone first (no new key can be made
from then on), then the page without the entry, in both slots, then the register. Cut short, it is asked for again: `erase` does all three
whatever it finds. A rotation adds the new generation key first, then wraps page after page; cut short, pages name their generation, and
the next one finishes. A generation is struck from the register only when no page names it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.durable import StateFile, make_dir
from tallystick.errors import IntegrityError, KeysMissingError, NotFoundError
from tallystick.privacy.keys import KeyStore

_PAGE_KEYS = 128
_HEAD = 4 + 12
_SETTLED_NS = 100_000_000
"""A directory's time that is younger proves nothing: the file system's clock is coarse."""


class Subject(NamedTuple):
    """One person of one tenant: the id that stands in lines, and the key."""

    skid: bytes
    key: bytes


class _Generation(msgspec.Struct):
    number: int
    wrapped: bytes
    created_at: float
    retired_at: float = 0.0


class _Register(msgspec.Struct):
    """``change`` counts erasures and rotations; ``destroyed`` is the highest generation that is gone for good."""

    change: int = 0
    destroyed: int = 0
    generations: list[_Generation] = []


class _Entry(msgspec.Struct, array_like=True):
    lookup: bytes
    key: bytes
    handle: str


@dataclass(frozen=True, slots=True)
class Generations:
    """``current`` is in use; ``destroyed`` is the highest one that is gone, all before it too."""

    current: int
    destroyed: int


class SubjectsExceededError(Exception):
    """A tenant has as many people as it may."""


class SubjectKeys:
    """All people's keys, held in memory: about 400 bytes each. Thread-safe; one object per process."""

    def __init__(self, keys: KeyStore, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._store = keys.dir / "keystore"
        self._dir = self._store / "subjects"
        self._register_file = StateFile(self._store / "subject-generations")
        self._tombstone_file = StateFile(self._store / "tombstones")
        self._lock = threading.RLock()
        self._register = _Register()
        self._ciphers: dict[int, AESGCM] = {}
        self._pages: list[dict[bytes, _Entry]] = []
        self._by_lookup: dict[bytes, Subject] = {}
        self._by_skid: dict[bytes, bytes] = {}
        self._counts: dict[str, int] = {}
        self._tombstones: dict[bytes, float] = {}
        self._seen_ns = -1
        self._lookup_keys: dict[str, bytes] = {}

    def ensure(self, handle: str, names: Sequence[str], subjects_max: int) -> dict[str, Subject | None]:
        """The key of each person, made durably where there is none; None: erased, and too fresh to begin anew.

        Raises SubjectsExceededError, IntegrityError, OSError; nothing is half done then.
        """
        lookups = {name: self._lookup(handle, name) for name in names}
        with self._lock:
            self._refresh()
            if any(lookup not in self._by_lookup and not self._is_dead(lookup) for lookup in lookups.values()):
                with self._writing():
                    self._add(handle, lookups.values(), subjects_max)
            return {name: None if self._is_dead(lookup) else self._by_lookup[lookup] for name, lookup in lookups.items()}

    def find(self, handle: str, name: str) -> Subject | None:
        """The key of a person, if there is one."""
        with self._lock:
            self._refresh()
            return self._by_lookup.get(self._lookup(handle, name))

    def key_of(self, skid: bytes) -> bytes:
        """The key by the id that stands in lines. Raises NotFoundError: erased, or never ours."""
        with self._lock:
            self._refresh()
            key = self._by_skid.get(skid)
        if key is None:
            raise NotFoundError("no key of that person")
        return key

    def erase(self, handle: str, name: str, skid: bytes, tombstone_s: float) -> int:
        """Destroy a person's key; harmless when it is gone. The generation whose end makes it final. Raises OSError, IntegrityError."""
        lookup = self._lookup(handle, name)
        with self._lock, self._writing():
            now = self._clock()
            graves = {grave: until for grave, until in self._tombstones.items() if until > now}
            graves[lookup] = now + tombstone_s
            self._save(self._tombstone_file, msgspec.json.encode({grave.hex(): until for grave, until in graves.items()}))
            is_again = skid not in self._by_skid  # cut short before: the older slot of any page may still have it
            for number, page in enumerate(self._pages):
                if is_again or skid in page:
                    self._save_page(number, {one: entry for one, entry in page.items() if one != skid})
            last = self._register.generations[-1].number if self._register.generations else 0
            self._tell_change()
            return last

    def rotate(self, every_s: float, keep_s: float) -> Generations:
        """Wrap everything anew when the generation is old enough, and destroy those that were retired long enough ago."""
        with self._lock, self._writing():
            now, register = self._clock(), self._register
            if not register.generations:
                return Generations(0, register.destroyed)
            before = msgspec.json.encode(register)
            if now - register.generations[-1].created_at >= every_s:
                self._new_generation()
            current = register.generations[-1].number
            for number, page in enumerate(self._pages):
                if self._generation_of(number) != current:
                    self._save_page(number, page)
            for one in register.generations[:-1]:
                one.retired_at = one.retired_at or now
            gone = [one for one in register.generations[:-1] if now - one.retired_at >= keep_s]
            register.destroyed = max([register.destroyed, *(one.number for one in gone)])
            register.generations = [one for one in register.generations if one not in gone]
            if msgspec.json.encode(register) != before:
                self._tell_change()
            return Generations(current, register.destroyed)

    def generations(self) -> Generations:
        """As the register says now."""
        with self._lock:
            self._refresh()
            last = self._register.generations[-1].number if self._register.generations else 0
            return Generations(last, self._register.destroyed)

    def _lookup(self, handle: str, name: str) -> bytes:
        key = self._lookup_keys.get(handle)
        if key is None:
            key = self._lookup_keys[handle] = self._keys.derive(f"subject-lookup:{handle}")
        return hmac.digest(key, name.encode(), hashlib.sha256)

    def _is_dead(self, lookup: bytes) -> bool:
        return lookup not in self._by_lookup and self._tombstones.get(lookup, 0.0) > self._clock()

    def _add(self, handle: str, lookups: Iterable[bytes], subjects_max: int) -> None:
        new = [one for one in dict.fromkeys(lookups) if one not in self._by_lookup and not self._is_dead(one)]
        if self._counts.get(handle, 0) + len(new) > subjects_max:
            raise SubjectsExceededError(
                f"there are keys of {self._counts.get(handle, 0)} people; [privacy] subjects_max is {subjects_max}"
            )
        if not self._register.generations:
            self._new_generation()
        number = max(len(self._pages) - 1, 0)
        while new:
            page = dict(self._pages[number]) if number < len(self._pages) else {}
            taken = new[: _PAGE_KEYS - len(page)]
            for lookup in taken:
                page[secrets.token_bytes(16)] = _Entry(lookup, secrets.token_bytes(32), handle)
            if taken:
                self._save_page(number, page)
            new, number = new[len(taken) :], number + 1

    def _new_generation(self) -> None:
        number = max([self._register.destroyed, *(one.number for one in self._register.generations)]) + 1
        key = secrets.token_bytes(32)
        wrapped = self._keys.wrap_root(key, _generation_aad(number))
        self._register.generations.append(_Generation(number, wrapped, self._clock()))
        self._ciphers[number] = AESGCM(key)
        self._save(self._register_file, msgspec.json.encode(self._register))

    def _tell_change(self) -> None:
        """Have every process, this one too, forget what it holds."""
        self._register.change += 1
        self._save(self._register_file, msgspec.json.encode(self._register))
        make_dir(self._dir)
        os.utime(self._dir)  # readers look at this directory alone
        self._register, self._seen_ns = _Register(change=-1), -1

    # Files

    @contextmanager
    def _writing(self) -> Iterator[None]:
        make_dir(self._store)
        fd = os.open(self._store / "subjects.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self._seen_ns = -1
            self._refresh()
            yield
        finally:
            os.close(fd)

    def _refresh(self) -> None:
        try:
            changed_ns = self._dir.stat().st_mtime_ns
        except FileNotFoundError:
            changed_ns = 0
        if changed_ns == self._seen_ns:
            return
        try:
            self._reread()
        except KeysMissingError:  # a rotation has just begun, and the register was read before it
            self._reread()
        self._seen_ns = changed_ns if time.time_ns() - changed_ns > _SETTLED_NS else -1

    def _reread(self) -> None:
        payload = _load(self._register_file)
        register = msgspec.json.decode(payload, type=_Register) if payload else _Register()
        if register.change != self._register.change:
            self._ciphers.clear()
            self._pages, self._by_lookup, self._by_skid, self._counts = [], {}, {}, {}
        self._register = register
        for one in register.generations:
            if one.number not in self._ciphers:
                self._ciphers[one.number] = AESGCM(self._keys.unwrap_root(one.wrapped, _generation_aad(one.number)))
        graves = _load(self._tombstone_file)
        found = msgspec.json.decode(graves, type=dict[str, float]) if graves else {}
        self._tombstones = {bytes.fromhex(grave): until for grave, until in found.items()}
        number = max(len(self._pages) - 1, 0)
        while (page := self._read_page(number)) is not None:
            self._admit(number, page)
            number += 1

    def _admit(self, number: int, page: dict[bytes, _Entry]) -> None:
        self._pages[number:] = [page]
        for skid, entry in page.items():
            if skid not in self._by_skid:
                self._by_skid[skid] = entry.key
                self._by_lookup[entry.lookup] = Subject(skid, entry.key)
                self._counts[entry.handle] = self._counts.get(entry.handle, 0) + 1

    def _read_page(self, number: int) -> dict[bytes, _Entry] | None:
        payload = _load(StateFile(self._dir / f"{number:06d}"))
        if payload is None:
            return None
        generation = int.from_bytes(payload[:4], "big")
        cipher = self._ciphers.get(generation)
        if cipher is None:
            raise KeysMissingError(
                f"a page of people's keys is under generation {generation}, which is not there", place=str(self._dir)
            )
        try:
            text = cipher.decrypt(payload[4:_HEAD], payload[_HEAD:], _page_aad(generation, number))
        except InvalidTag as error:
            raise IntegrityError("a page of people's keys is damaged", place=f"{self._dir}/{number:06d}") from error
        return msgspec.msgpack.decode(text, type=dict[bytes, _Entry])

    def _save_page(self, number: int, page: dict[bytes, _Entry]) -> None:
        generation = self._register.generations[-1].number
        nonce = os.urandom(12)
        text = self._ciphers[generation].encrypt(nonce, msgspec.msgpack.encode(page), _page_aad(generation, number))
        make_dir(self._dir)
        self._save(StateFile(self._dir / f"{number:06d}"), generation.to_bytes(4, "big") + nonce + text)
        self._admit(number, page)
        self._seen_ns = -1

    def _generation_of(self, number: int) -> int:
        return int.from_bytes((_load(StateFile(self._dir / f"{number:06d}")) or bytes(4))[:4], "big")

    @staticmethod
    def _save(state: StateFile, payload: bytes) -> None:
        """Both slots: one damaged slot must lose no key, and bring none back."""
        state.save(payload)
        state.save(payload)


def _load(state: StateFile) -> bytes | None:
    payload = state.load()
    if payload is None and state.is_damaged():
        raise IntegrityError("a file of people's keys is damaged", place=str(state.path), hint="Restore it from its backup")
    return payload


def _generation_aad(number: int) -> bytes:
    return b"ts-subject-generation1" + number.to_bytes(4, "big")


def _page_aad(generation: int, number: int) -> bytes:
    return b"ts-subjects1\x00" + generation.to_bytes(4, "big") + number.to_bytes(4, "big")
