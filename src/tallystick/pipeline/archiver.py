"""The archiver's process: chunks, catalog, quarantine, merging, and retiring journal segments."""

from __future__ import annotations

import threading

from tallystick.archive.archiver import Archiver
from tallystick.durable import RoleLock
from tallystick.pipeline.again import keep_trying
from tallystick.pipeline.context import Installation
from tallystick.pipeline.signals import stop_event


def run(installation: Installation) -> None:
    """Archive until told to stop."""
    stop = stop_event()
    keep_trying("archiver", installation.data_dir, stop, lambda: _archive(installation, stop))


def _archive(installation: Installation, stop: threading.Event) -> None:
    lock = RoleLock(installation.data_dir, "archiver")
    lock.acquire()
    try:
        Archiver(installation.config, installation.keys).run(stop)
    finally:
        lock.release()
