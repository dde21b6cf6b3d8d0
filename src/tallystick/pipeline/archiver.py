"""The archiver's process: chunks, catalog, quarantine, merging, and retiring journal segments; beside them, each in a thread of its own,
what watches producers' numbers, what judges alert rules, when there are any, and what makes backups."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tallystick.alerts import follower as alert_follower
from tallystick.alerts.follower import AlertFollower
from tallystick.alerts.library import load_rules
from tallystick.archive.archiver import NEEDED_BY, Archiver
from tallystick.archive.expiry import Record
from tallystick.delivery.inner_door import Entry, InnerDoor
from tallystick.durable import RoleLock
from tallystick.errors import TallystickError
from tallystick.journal.reader import JournalReader
from tallystick.pipeline.again import keep_trying
from tallystick.pipeline.backup_watch import watch_backups
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
    watching: dict[str, Watch] = {producer_follower.ROLE: _watch_producers}
    if installation.config.alerts.is_on:
        watching[alert_follower.ROLE] = _judge_rules
    threads = [
        threading.Thread(target=_keep_watching, args=(installation, role, watch, is_over), name=role)
        for role, watch in watching.items()
    ]
    # Not waited for: a backup that ends with the process is none, and the next one leans on what it has stored.
    backups = threading.Thread(target=watch_backups, args=(installation, is_over), name="backup", daemon=True)
    for thread in (*threads, backups):
        thread.start()
    try:
        needed_by = [*NEEDED_BY, *watching]
        record = _recorder(installation)
        archiver = Archiver(installation.config, installation.keys, needed_by=needed_by, record=record, compile_query=compile_query)
        archiver.run(stop)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
        lock.release()


def _recorder(installation: Installation) -> Record:
    """Account entries go through the intake's inner door."""
    door = InnerDoor(installation.data_dir)

    def record(entries: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
        for start in range(0, len(entries), _ENTRIES_MAX):
            asyncio.run(door.post([Entry(*entry) for entry in entries[start : start + _ENTRIES_MAX]]))

    return record


Watch = Callable[[Installation, JournalReader, threading.Event], None]


def _watch_producers(installation: Installation, journal: JournalReader, stop: threading.Event) -> None:
    data_dir = installation.data_dir
    ProducerFollower(data_dir, installation.config.completeness, journal, InnerDoor(data_dir)).run(stop)


def _judge_rules(installation: Installation, journal: JournalReader, stop: threading.Event) -> None:
    config, data_dir = installation.config, installation.data_dir
    AlertFollower(data_dir, load_rules(config), config.alerts.groups, journal, InnerDoor(data_dir)).run(stop)


def _keep_watching(installation: Installation, role: str, watch: Watch, stop: threading.Event) -> None:
    """Begins anew from what is durable after any failure that has a name; one that has none shows as silence in status."""
    while not stop.is_set():
        config = installation.config
        journal = JournalReader(installation.data_dir, installation.keys, patience_s=config.journal.read_patience.seconds)
        try:
            watch(installation, journal, stop)
        except (OSError, TallystickError) as error:
            log.error("a follower begins again after a pause", role=role, error=str(error), seconds=_PAUSE_S)
            publish_status(installation.data_dir, role, {"reason": str(error)})
            stop.wait(_PAUSE_S)
        finally:
            journal.close()
