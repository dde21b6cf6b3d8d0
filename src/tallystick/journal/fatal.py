"""Ending the process on the spot, when going on would mean to answer what nobody knows any more."""

from __future__ import annotations

import contextlib
import os
from typing import NoReturn

from tallystick.telemetry import log


def end_process(what: str, fault: BaseException) -> NoReturn:
    """As kill -9 would: nobody is answered, the supervisor starts the next life, and its recovery finds out what is on disk."""
    with contextlib.suppress(Exception):  # want of memory may be the fault
        log.critical(f"{what}; the process ends and recovers", error=repr(fault))
    os._exit(1)
