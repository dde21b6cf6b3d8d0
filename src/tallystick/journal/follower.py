"""The shared loop of all followers: read, handle, save the cursor; wait at the mark.

``handle(items, position)`` makes what it does durable before it returns; only then is the cursor saved, so a crash
repeats work and never skips any. It returns what to keep beside the cursor (or None to keep what is there). A
TransientError from it is retried with the same items, slower and slower, and is the role's reason in status meanwhile;
any other error ends the loop and the process, and the supervisor starts it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tallystick.errors import TransientError, UnreadableError
from tallystick.journal.cursor import Cursor, Position
from tallystick.journal.frame import Frame
from tallystick.journal.reader import DamagedSpan, JournalReader
from tallystick.journal.scan import BLOCK_BYTES
from tallystick.journal.segment import KeyWrapper
from tallystick.telemetry import log, publish_status

Items = list[Frame | DamagedSpan]
Handle = Callable[[Items, Position], dict[str, Any] | None]

_WAIT_S: Final = 0.25
_STATUS_S: Final = 1.0
_RETRY_S: Final = (0.1, 10.0)


class Follower:
    """One role's way through the journal. ``cursor_interval_s``: the cursor is saved at most that often (work since is repeated
    after a crash); 0 saves it after each batch."""

    def __init__(
        self,
        role: str,
        data_dir: Path,
        keys: KeyWrapper,
        handle: Handle,
        *,
        max_bytes: int = BLOCK_BYTES,
        cursor_interval_s: float = 0.0,
    ) -> None:
        self.role = role
        self.reader = JournalReader(data_dir, keys)
        self.cursor = Cursor(data_dir, role)
        self.position = self.cursor.load() or self.reader.oldest()
        self.reason: str | None = None
        self._data_dir = data_dir
        self._handle = handle
        self._max_bytes = max_bytes
        self._cursor_interval_s = cursor_interval_s
        self._saved = self.position
        self._saved_at = 0.0
        self._status_at = 0.0
        self._extra: dict[str, Any] = dict(self.cursor.extra)
        if self.cursor.is_damaged:
            log.error("cursor_damaged", role=role, resumes_at=self.position.seq)

    def run(self, stop: threading.Event) -> None:
        """Follow until ``stop`` is set. Saves the cursor before it returns or raises."""
        try:
            while not stop.is_set():
                if self.step(stop):
                    continue
                self._save_if_due()
                self._publish_if_due()
                if self.reader.wait(self.position, _WAIT_S, stop) and not self.step(stop):
                    stop.wait(_WAIT_S)  # there is more, but it cannot be reached: a segment is missing
        finally:
            self.save_cursor()
            self.reader.close()

    def step(self, stop: threading.Event | None = None) -> bool:
        """Read once and handle; False when there was nothing new."""
        try:
            items, position = self.reader.read(self.position, self._max_bytes)
        except UnreadableError as error:
            self.reason = str(error)
            log.warning("follower_waits", role=self.role, error=self.reason)
            self._publish()
            (stop or threading.Event()).wait(_WAIT_S)
            return False
        if items and not self._handle_until_done(items, position, stop or threading.Event()):
            return False
        moved = position != self.position
        self.position = position
        if items:
            self._save_if_due()
            self._publish_if_due()
        return moved

    def save_cursor(self) -> None:
        """Store the position durably when it has moved."""
        if self.position != self._saved:
            self.cursor.save(self.position, self._extra)
            self._saved = self.position
        self._saved_at = time.monotonic()

    def status(self) -> dict[str, Any]:
        """``lag``: entries between the position and the mark."""
        mark = self.reader.mark()
        return {"seq": self.position.seq - 1, "lag": max(0, mark.seq + 1 - self.position.seq), "reason": self.reason, **self._extra}

    def _handle_until_done(self, items: Items, position: Position, stop: threading.Event) -> bool:
        delay = _RETRY_S[0]
        while True:
            try:
                extra = self._handle(items, position)
            except TransientError as error:
                self.reason = str(error)
                log.warning("follower_waits", role=self.role, error=self.reason)
                self._publish()
                if stop.wait(delay):
                    return False
                delay = min(delay * 2, _RETRY_S[1])
                continue
            self.reason = None
            if extra is not None:
                self._extra = extra
            return True

    def _save_if_due(self) -> None:
        if time.monotonic() - self._saved_at >= self._cursor_interval_s:
            self.save_cursor()

    def _publish_if_due(self) -> None:
        if time.monotonic() - self._status_at >= _STATUS_S:
            self._publish()

    def _publish(self) -> None:
        self._status_at = time.monotonic()
        (self._data_dir / "run").mkdir(mode=0o700, exist_ok=True)
        publish_status(self._data_dir, self.role, self.status())
