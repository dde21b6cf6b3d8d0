"""Followers on a failing disk: their work is begun anew from what is durable, until it goes well or they are told to stop.

Without this each ENOSPC or EIO would end the process, and status would know no more than that. What a role holds in memory
is worth nothing after a failed write or sync, so all of it is let go; how a role takes up its files again is the same
whether its process was killed or its disk was full.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tallystick.errors import TransientError
from tallystick.pipeline.signals import heed
from tallystick.telemetry import log, publish_status

_PAUSE_S: Final = (1.0, 10.0)
_STEADY_S: Final = 30.0


def keep_trying(role: str, data_dir: Path, stop: threading.Event, work: Callable[[], None]) -> None:
    """Call ``work`` until it returns or ``stop`` is set. OSError and TransientError from it are the role's reason in status meanwhile."""
    pause_s = _PAUSE_S[0]
    while True:
        began = time.monotonic()
        try:
            return work()
        except (OSError, TransientError) as error:
            if time.monotonic() - began > _STEADY_S:
                pause_s = _PAUSE_S[0]
            log.error("role waits and begins anew", role=role, error=str(error), seconds=pause_s)
            publish_status(data_dir, role, {"reason": str(error)})
        heed(stop)  # the work may have had signal handlers of its own
        if stop.wait(pause_s):
            return None
        pause_s = min(pause_s * 2, _PAUSE_S[1])
