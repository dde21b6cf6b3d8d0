"""An intake worker: the public listener and all the work on a request, up to the frame's plaintext; the one writer does the rest.

Everything above the journal is what it is in one process (`pipeline.entrance`); in the journal's place stands a `RemoteJournal`. A worker
keeps no file and holds no lock, so any number may die at any time, and a new one begins at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from socket import socket

import uvloop

from tallystick.config import Config
from tallystick.journal.dedupe_digest import Digester
from tallystick.journal.remote import RemoteJournal, RemoteTenants
from tallystick.pipeline.bounds import Bounds
from tallystick.pipeline.context import Installation
from tallystick.pipeline.entrance import Entrance, build_service, settle_memory, stop_on_signals, take_on_signal
from tallystick.sources.plan import SourcePlan
from tallystick.sources.tally import TalliedByWriter


def run(installation: Installation, number: int, listener: socket) -> None:
    """Answer senders on ``listener`` until told to stop; requests in flight are answered first. ``number`` counts from 1."""
    settle_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(installation, number, listener))


async def _serve(installation: Installation, number: int, listener: socket) -> None:
    journal = RemoteJournal(installation.run_dir / "journal.sock", Digester(installation.keys.derive("dedupe")))
    journal.start()
    bounds = Bounds.of(installation, number)
    tenants = RemoteTenants(installation.data_dir, journal)
    service = build_service(installation, journal, tenants, bounds, TalliedByWriter)
    role = f"worker-{number}"
    entrance = Entrance(installation, service, journal.not_ready, bounds, role)

    async def take(config: Config, plans: Mapping[str, SourcePlan]) -> None:
        entrance.take(config, plans)

    take_on_signal(installation, role, entrance.check, take)
    await entrance.serve(listener, stop_on_signals())
    await entrance.close()
    await journal.close()
