"""What an installation remembers of its backups and drills: `DIR/backups/ledger.{a,b}`, a state file.

It is never needed to restore, and never backed up. ``pending`` are entries for the account tree of `_tallystick` that have not been handed
to the intake yet: a command line beside a stopped server leaves them for its next start. Each has an id that never changes, so one
that is handed over twice is stored once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tallystick.durable import StateFile, make_dir
from tallystick.errors import IntegrityError

ROLE = "backup"


class Pending(msgspec.Struct, frozen=True):
    """An account entry that waits for the intake."""

    id: str
    entry: dict[str, Any]


class Ledger(msgspec.Struct):
    """``backup``, ``keys``: the last of each, {} when there is none; ``drills``: the last report of each kind; ``since``: Unix seconds
    when backups were first configured."""

    since: float = 0.0
    backup: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    drills: dict[str, dict[str, Any]] = {}
    pending: list[Pending] = []


class LedgerFile:
    """Written by whoever holds the role lock `ROLE`; read by anybody."""

    def __init__(self, data_dir: Path) -> None:
        self._state = StateFile(data_dir / "backups" / "ledger")

    def load(self) -> Ledger:
        """What is remembered. Raises IntegrityError when it cannot be read."""
        payload = self._state.load()
        if payload is None:
            return Ledger()
        try:
            return msgspec.json.decode(payload, type=Ledger)
        except msgspec.DecodeError as error:
            raise IntegrityError("the ledger of backups cannot be read", place=str(self._state.path)) from error

    def save(self, ledger: Ledger) -> None:
        """Keep it durably. A crash before this returns leaves the ledger before: a backup that was made is in the store all the same."""
        make_dir(self._state.path.parent)
        self._state.save(msgspec.json.encode(ledger))
