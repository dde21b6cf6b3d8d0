"""What is bounded for the whole installation, however many processes take requests in: connections, bodies in flight, quotas, failed
logins. With intake workers each is counted in a file under `run/`, volatile like all there, that they map (`holdings`, `buckets`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tallystick.buckets import Buckets, SharedBuckets
from tallystick.holdings import Holdings, SharedHoldings, forget
from tallystick.pipeline.context import Installation

_CONNECTIONS, _BODIES, _BUCKETS = "connections.held", "bodies.held", "buckets"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where each is counted; None: in this process alone."""

    connections: Holdings | None = None
    bodies: Holdings | None = None
    buckets: Buckets | None = None

    @classmethod
    def of(cls, installation: Installation, process: int) -> Bounds:
        """Those of process number ``process``: 0 is the writer, workers count from 1."""
        workers = installation.config.server.workers
        if workers == 1:
            return cls()
        run, key = installation.run_dir, installation.keys.derive("bounds")
        connections = SharedHoldings(run / _CONNECTIONS, process, workers + 1, key)
        bodies = SharedHoldings(run / _BODIES, process, workers + 1, key)
        return cls(connections, bodies, SharedBuckets(run / _BUCKETS, key))


def forget_holdings(run_dir: Path, process: int) -> None:
    """A process has ended: what it held is held no more."""
    for name in (_CONNECTIONS, _BODIES):
        forget(run_dir / name, process)
