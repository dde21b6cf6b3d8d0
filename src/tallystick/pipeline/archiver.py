"""The archiver's process: chunks, catalog, quarantine, merging, and retiring journal segments."""

from __future__ import annotations

from tallystick.archive.archiver import Archiver
from tallystick.durable import RoleLock
from tallystick.pipeline.context import Installation
from tallystick.pipeline.signals import stop_event


def run(installation: Installation) -> None:
    """Archive until told to stop."""
    stop = stop_event()
    lock = RoleLock(installation.data_dir, "archiver")
    lock.acquire()
    try:
        Archiver(installation.config, installation.keys).run(stop)
    finally:
        lock.release()
