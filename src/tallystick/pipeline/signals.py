"""Stopping: SIGTERM and SIGINT set an event that a role's loop looks at."""

from __future__ import annotations

import signal
import threading


def stop_event() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets. SIGHUP is ignored by roles that have nothing to reload."""
    stop = threading.Event()
    heed(stop)
    return stop


def heed(stop: threading.Event) -> None:
    """From now on signals set ``stop``."""

    def on_signal(_number: int, _frame: object) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
