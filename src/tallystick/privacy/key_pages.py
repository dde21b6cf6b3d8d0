"""One family of named 32-byte keys, in encrypted pages of 128.

On disk, `<family>/<page, 6 digits>.{a,b}`, each a `StateFile` whose payload is the page's content wrapped by the key
store: a msgpack map from name to key, with AAD "ts-page1" ‖ 0 ‖ family ‖ 0 ‖ page u32 (the wrapping adds the generation).
Pages fill in order; a name is in one page only.

A key is destroyed by writing its page without it, in both slots. Processes that only read notice by the directory's time, and
forget what they held.

A page is saved twice, so both slots hold it: a key cannot be made again, so falling back to an older slot must not
lose one. A crash between the two leaves the newer slot whole; the next save of the page repairs the other.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tallystick.durable import StateFile, make_dir
from tallystick.errors import IntegrityError, NotFoundError
from tallystick.telemetry import log

_PAGE_KEYS = 128
_SETTLED_NS = 100_000_000
"""A directory's time that is younger proves nothing: the file system's clock is coarse, and others may write."""

Wrap = Callable[[bytes, bytes], bytes]


class KeyPages:
    """The keys of one family; written under a lock; readers re-read what was written since. Thread-safe."""

    def __init__(self, directory: Path, wrap: Wrap, unwrap: Wrap) -> None:
        self._dir = directory
        self._wrap = wrap
        self._unwrap = unwrap
        self._lock = threading.Lock()
        self._keys: dict[str, bytes] = {}
        self._pages = 0
        self._last: dict[str, bytes] = {}
        self._seen_ns = -1

    def get(self, name: str, *, create: bool = False) -> bytes:
        """The key of ``name``; made durably when absent and ``create``. Raises NotFoundError, IntegrityError."""
        with self._lock:
            self._refresh()
            key = self._keys.get(name)
            if key is None and create:
                with self._writing():
                    key = self._keys.get(name) or self._add(name)
        if key is None:
            raise NotFoundError("no such key", place=f"{self._dir.name} {name}")
        return key

    def names(self) -> list[str]:
        """The names of all keys. Raises IntegrityError."""
        with self._lock:
            self._refresh()
            return list(self._keys)

    def destroy(self, name: str) -> None:
        """Forget a key for good; harmless when it is gone. Raises OSError."""
        with self._lock, self._writing():
            for page in range(self._pages):
                content = self._read(page) or {}
                # A crash before the first save: the key is as it was. Between the two: the older slot still has it, and whoever
                # wanted it destroyed asks again, which writes every page.
                if content.pop(name, None) is not None or name not in self._keys:
                    self._save(page, content)
            self._keys.pop(name, None)
            self._last.pop(name, None)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One process at a time, which has read what the others wrote; a process that dies lets go."""
        make_dir(self._dir)
        fd = os.open(self._dir.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self._seen_ns = -1
            self._refresh()
            yield
        finally:
            os.close(fd)

    def _add(self, name: str) -> bytes:
        key = secrets.token_bytes(32)
        is_new_page = not self._pages or len(self._last) >= _PAGE_KEYS
        page = self._pages if is_new_page else self._pages - 1
        content = {name: key} if is_new_page else {**self._last, name: key}
        make_dir(self._dir)
        # A crash before the first save returned: no key, and nobody has used it. Between the two: rule in the header.
        self._save(page, content)
        self._keys[name] = key
        self._pages, self._last = page + 1, content
        return key

    def _save(self, page: int, content: dict[str, bytes]) -> None:
        state = StateFile(self._path(page))
        payload = self._wrap(msgspec.msgpack.encode(content), self._aad(page))
        state.save(payload)
        state.save(payload)
        self._seen_ns = -1

    def _changed_ns(self) -> int:
        """When a page was last written: each save renames a file in the directory."""
        try:
            return self._dir.stat().st_mtime_ns
        except FileNotFoundError:
            return -1

    def _refresh(self) -> None:
        """Read all pages again if any was written since: keys came, or were destroyed."""
        changed_ns = self._changed_ns()
        if changed_ns == self._seen_ns:
            return
        self._keys.clear()
        self._pages, self._last = 0, {}
        self._reread()
        self._seen_ns = changed_ns if time.time_ns() - changed_ns > _SETTLED_NS else -1

    def _reread(self) -> None:
        page = 0
        while (content := self._read(page)) is not None:
            self._keys.update(content)
            self._pages, self._last = page + 1, content
            page += 1
        if any(int(slot.stem) > page for slot in self._dir.glob("*.[ab]")):
            raise IntegrityError("a page of keys is missing", place=str(self._path(page)), hint="Restore it from its backup")

    def _read(self, page: int) -> dict[str, bytes] | None:
        state = StateFile(self._path(page))
        payload = state.load()
        if payload is None:
            if state.is_damaged():
                raise IntegrityError("a page of keys is damaged", place=str(state.path), hint="Restore it from its backup")
            return None
        if state.is_damaged():
            log.warning("key page has a damaged slot; the other one serves", path=str(state.path))
        return msgspec.msgpack.decode(self._unwrap(payload, self._aad(page)), type=dict[str, bytes])

    def _path(self, page: int) -> Path:
        return self._dir / f"{page:06d}"

    def _aad(self, page: int) -> bytes:
        return b"ts-page1\x00" + self._dir.name.encode() + b"\x00" + page.to_bytes(4, "big")
