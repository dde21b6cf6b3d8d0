"""Backups beside the running server, in a thread of the archiver's process: one each `[backup] schedule`, and what has to go on record.

A failed backup is tried again after a pause and is a reason in status meanwhile. A backup that the process's end interrupts is none; the next
start makes one when it is due. The time of the last one is the ledger's, so a restart makes none early.
"""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import datetime
from typing import Any

from tallystick.archive.backup.ledger import ROLE, Ledger, LedgerFile
from tallystick.delivery.inner_door import Entry, InnerDoor
from tallystick.errors import LockedError, TallystickError, TransientError
from tallystick.journal.tenants import SERVER_TENANT
from tallystick.pipeline.backup import make_backup, writing
from tallystick.pipeline.context import Installation
from tallystick.telemetry import log, publish_status

_LOOK_S = 1.0
_RETRY_S = 60.0


def watch_backups(installation: Installation, stop: threading.Event) -> None:
    """Until ``stop`` is set. Errors that have a name are the role's reason in status; they end nothing."""
    file = LedgerFile(installation.data_dir)
    schedule = installation.config.backup.schedule.seconds
    reason, not_before = "", 0.0
    while not stop.wait(_LOOK_S):
        try:
            ledger = file.load()
            if installation.config.backup_url is not None:
                if not ledger.since:
                    ledger = _begin(installation, file)
                if time.time() >= max(next_due(ledger, schedule), not_before):
                    make_backup(installation)
                    reason = ""
            _hand_over(installation, file)
        except LockedError:
            continue  # somebody makes one by hand
        except (OSError, TallystickError) as error:
            if not isinstance(error, TransientError) or str(error) != reason:
                log.error("no backup was made", error=str(error))
            reason = str(error)
            not_before = time.time() + min(_RETRY_S, schedule)
        publish_status(installation.data_dir, ROLE, {"reason": reason})


def next_due(ledger: Ledger, schedule_s: float) -> float:
    """The Unix second from which a backup is due; 0 when none was ever made."""
    return at_seconds(ledger.backup.get("at")) + schedule_s if ledger.backup else 0.0


def at_seconds(text: str | None) -> float:
    """The Unix second of an RFC 3339 time; 0 for none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _begin(installation: Installation, file: LedgerFile) -> Ledger:
    """Note when backups were first configured: what was never made is overdue from then on."""
    with writing(installation):
        ledger = file.load()
        ledger.since = ledger.since or time.time()
        file.save(ledger)
    return ledger


def _hand_over(installation: Installation, file: LedgerFile) -> None:
    """Entries that wait go into the account of the server's own tenant. One that was taken but not noted is told by its id and stored once."""
    if not file.load().pending:
        return
    with writing(installation):
        ledger = file.load()
        entries = [Entry(SERVER_TENANT, pending.id, pending.entry) for pending in ledger.pending]
        events = [_event(entry) for entry in entries]
        try:
            door = InnerDoor(installation.data_dir)
            asyncio.run(door.post_events(SERVER_TENANT, events))  # first: it makes the tenant where there is none yet
            asyncio.run(door.post(entries))
        except TransientError:
            return  # the intake is not there yet; they stay
        ledger.pending = []
        file.save(ledger)


def _event(entry: Entry) -> dict[str, Any]:
    """The same as an event of the server's own log, under the same id."""
    actor = {"type": "system", "id": "tallystick"}
    return {"id": entry.id, "action": f"tallystick.{entry.entry['type']}", "actor": actor, "metadata": entry.entry}
