"""The archiver's process: chunks, catalog, quarantine, merging, and retiring journal segments; beside them, in a thread of its own,
what watches producers' numbers, which like the archiver is in no hurry."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from tallystick.archive.archiver import NEEDED_BY, Archiver
from tallystick.archive.expiry import Record
from tallystick.delivery.inner_door import Entry, InnerDoor
from tallystick.durable import RoleLock
from tallystick.errors import TallystickError
from tallystick.journal.reader import JournalReader
from tallystick.pipeline.again import keep_trying
from tallystick.pipeline.context import Installation
from tallystick.pipeline.signals import stop_event
from tallystick.query.evaluate import compile_query
from tallystick.sources import producer_follower
from tallystick.sources.producer_follower import ProducerFollower
from tallystick.telemetry import log, publish_status

_PAUSE_S = 2.0
_ENTRIES_MAX = 32


def run(installation: Installation) -> None:
    """Archive until told to stop."""
    stop = stop_event()
    keep_trying("archiver", installation.data_dir, stop, lambda: _archive(installation, stop))


def _archive(installation: Installation, stop: threading.Event) -> None:
    lock = RoleLock(installation.data_dir, "archiver")
    lock.acquire()
    is_over = threading.Event()
    watcher = threading.Thread(target=_watch_producers, args=(installation, is_over), name="producers")
    watcher.start()
    try:
        needed_by = [*NEEDED_BY, producer_follower.ROLE]
        record = _recorder(installation)
        archiver = Archiver(installation.config, installation.keys, needed_by=needed_by, record=record, compile_query=compile_query)
        archiver.run(stop)
    finally:
        is_over.set()
        watcher.join()
        lock.release()


def _recorder(installation: Installation) -> Record:
    """Account entries go through the intake's inner door."""
    door = InnerDoor(installation.data_dir)

    def record(entries: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
        for start in range(0, len(entries), _ENTRIES_MAX):
            asyncio.run(door.post([Entry(*entry) for entry in entries[start : start + _ENTRIES_MAX]]))

    return record


def _watch_producers(installation: Installation, stop: threading.Event) -> None:
    """Begins anew from what is durable after any failure that has a name; one that has none shows as silence in status."""
    while not stop.is_set():
        config = installation.config
        journal = JournalReader(installation.data_dir, installation.keys, patience_s=config.journal.read_patience.seconds)
        try:
            ProducerFollower(installation.data_dir, config.completeness, journal, InnerDoor(installation.data_dir)).run(stop)
        except (OSError, TallystickError) as error:
            log.error("producers are watched again after a pause", error=str(error), seconds=_PAUSE_S)
            publish_status(installation.data_dir, producer_follower.ROLE, {"reason": str(error)})
            stop.wait(_PAUSE_S)
        finally:
            journal.close()
