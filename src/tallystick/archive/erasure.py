"""Requests for the erasure of a person: what was asked, who agreed, how far it is.

The register is one state file, encrypted, under a lock. It holds the person's name only until the key is gone, and is saved to both slots, so
that no older slot keeps the name. Steps of one request, each repeated after a crash until the register says that it was done:

1. `entry`: affected events counted, holds asked, the account entry fixed       crash: counted anew
2. the entry is in the account tree (stored once per id)                        crash: handed over again, stored once
3. the key is destroyed                                                         crash: destroyed again, harmless
4. `erased_at`, `generation`; the name leaves the register
5. `final_at`: the last generation key that had wrapped the key is destroyed, and a second entry says so
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from tallystick.durable import StateFile, make_dir
from tallystick.errors import IntegrityError
from tallystick.privacy.keys import KeyStore

APPROVALS = 2
_AAD = b"ts-erasures1"
Basis = Literal["request", "consent-withdrawn", "objection", "unlawful", "legal-duty", "other"]


class Approval(msgspec.Struct, frozen=True):
    """An owner's word, and the key that it was given with."""

    owner: str
    by: str
    at: str


class Erasure(msgspec.Struct):
    """``subject`` is empty once the key is gone; ``skid`` stays. ``due_at``: Unix second, 0 before the second approval."""

    id: str
    tenant: str
    handle: str
    subject: str
    skid: str
    basis: Basis
    requested_by: str
    requested_at: str
    approvals: list[Approval] = []
    due_at: float = 0.0
    waiting_for: str = ""
    entry: dict[str, Any] | None = None
    generation: int = 0
    cancelled_by: str = ""
    erased_at: str = ""
    final_at: str = ""

    @property
    def state(self) -> Literal["requested", "approved", "erasing", "erased", "final", "cancelled"]:
        if self.cancelled_by:
            return "cancelled"
        if self.final_at:
            return "final"
        if self.erased_at:
            return "erased"
        if self.entry is not None:
            return "erasing"
        return "approved" if self.due_at else "requested"


class Erasures:
    """The register."""

    def __init__(self, data_dir: Path, keys: KeyStore) -> None:
        self._dir = data_dir
        self._keys = keys
        self._state = StateFile(data_dir / "cursors" / "erasures")

    def load(self) -> list[Erasure]:
        """The oldest first. Raises IntegrityError."""
        payload = self._state.load()
        if payload is None and self._state.is_damaged():
            raise IntegrityError("the register of erasures is damaged", place=str(self._state.path), hint="Restore it from a copy")
        return msgspec.json.decode(self._keys.unwrap(payload, _AAD), type=list[Erasure]) if payload else []

    def change(self, change: Callable[[list[Erasure]], None]) -> None:
        """Change it under the lock; durable when it returns. Raises OSError: then it is as it was, or changed."""
        with self._locked():
            erasures = self.load()
            change(erasures)
            make_dir(self._dir / "cursors")
            payload = self._keys.wrap(msgspec.json.encode(erasures), _AAD)
            self._state.save(payload)
            self._state.save(payload)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_dir(self._dir / "locks")
        fd = os.open(self._dir / "locks" / "erasures", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
