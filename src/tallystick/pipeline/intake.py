"""The intake's process: the one writer of the journal, the inner door, the sources that run by themselves, and the public listener,
or, with `[server] workers` over 1, the door for the workers that hold it instead."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

import uvloop

from tallystick.config import Config
from tallystick.evidence.heads import Heads
from tallystick.journal.door import JournalDoor
from tallystick.journal.entries import Append, Committed
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.pipeline.bounds import Bounds
from tallystick.pipeline.context import Installation
from tallystick.pipeline.entrance import (
    Entrance,
    Server,
    build_service,
    serve_until,
    settle_memory,
    stop_on_signals,
    take_on_signal,
)
from tallystick.pipeline.own_sources import OwnSources
from tallystick.pipeline.process import bind_tcp, bind_unix
from tallystick.sources.expected import ExpectedSources
from tallystick.sources.inner_door import InnerDoor
from tallystick.sources.intake import IntakeService
from tallystick.sources.plan import SourcePlan
from tallystick.sources.tally import SourceTallies
from tallystick.telemetry import log

_STALLED_S = 5.0


def run(installation: Installation) -> None:
    """Accept until told to stop; requests in flight are answered first."""
    server = installation.config.server
    # Before anything else: an address in use is a quick refusal. Workers share a socket that the supervisor has bound.
    listener = bind_tcp(server.listen) if server.workers == 1 else None
    journal = _open_journal(installation)
    for line in journal.recovered.damage:
        log.error("the journal is damaged", found=line)
    settle_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(installation, journal, listener))


def _open_journal(installation: Installation) -> Journal:
    config = installation.config
    heads = Heads(installation.data_dir, unpublished=True)
    return Journal.open(
        installation.data_dir,
        installation.keys,
        config.journal,
        config.data,
        known_sizes=heads.sealed_sizes(),
        known_seq=heads.mark(),
    )


async def _serve(installation: Installation, journal: Journal, listener: socket.socket | None) -> None:
    journal.start()
    bounds = Bounds.of(installation, 0)
    not_ready = partial(_not_ready, journal)
    service = build_service(installation, journal, TenantRegistry(installation.data_dir), bounds, SourceTallies)
    entrance = Entrance(installation, service, not_ready, bounds, "intake")
    sources = OwnSources(entrance.parts)
    expected = ExpectedSources(installation.data_dir / "sources", service.tallies)
    expected.meet(service.plans.values())
    door = JournalDoor(journal, service.tenants, not_ready, partial(_tally, service.tallies))
    wanted = installation.config.server.workers if listener is None else 0
    inner = Server(
        InnerDoor(service, lambda: _status(journal, service, sources, expected, wanted - door.connected)), http="httptools"
    )
    stop, inner_stop = stop_on_signals(), asyncio.Event()
    serving_inner = asyncio.create_task(serve_until(inner, bind_unix(installation.run_dir / "intake.sock"), inner_stop))
    serving_inner.add_done_callback(lambda _: stop.set())
    await sources.take(installation.config, service.plans)
    counting = asyncio.create_task(expected.run(stop))

    def check(config: Config, plans: Mapping[str, SourcePlan]) -> None:
        entrance.check(config, plans)
        sources.check(config, plans)

    async def take(config: Config, plans: Mapping[str, SourcePlan]) -> None:
        entrance.take(config, plans)
        expected.meet(plans.values())
        await sources.take(config, plans)

    take_on_signal(installation, "intake", check, take)
    if listener is not None:
        serving = asyncio.create_task(entrance.serve(listener, stop))
    else:
        serving = asyncio.create_task(door.serve(bind_unix(installation.run_dir / "journal.sock"), stop))
    await stop.wait()
    await asyncio.gather(serving, sources.stop(), counting)
    await entrance.close()
    inner_stop.set()
    await serving_inner
    await journal.close()


def _not_ready(journal: Journal) -> list[str]:
    status = journal.status()
    return [] if status["accepting"] else [str(status["reason"] or "the journal is closing")]


def _tally(tallies: SourceTallies, request: Append, done: Committed) -> None:
    """Count what was committed for a worker."""
    tallies.note(
        request.source,
        request.received_at,
        sum(tenant.accepted for tenant in done.tenants),
        sum(tenant.duplicates for tenant in done.tenants),
        sum(item.count for item in request.filtered),
        len(request.quarantined) + len(done.conflicts),
    )


def _status(
    journal: Journal, service: IntakeService, sources: OwnSources, expected: ExpectedSources, workers_away: int
) -> dict[str, Any]:
    """The intake's page for the api process: journal, readiness, and events accepted by each tenant."""
    accepted = journal.accepted()
    tenants = {tenant.name: accepted.get(tenant.handle, 0) for tenant in service.tenants.all()}
    reasons = _not_ready(journal)
    page = journal.status()
    late = [f"the disk has owed an answer for {page['stalled_seconds']:.0f} s"] if page["stalled_seconds"] > _STALLED_S else []
    away = [f"{workers_away} of the intake workers are not connected"] if workers_away > 0 else []
    rows = sources.page()
    for name, row in expected.page().items():
        rows[name] |= row
    return {
        **page,
        "ready": not reasons,
        "reasons": reasons + late + away,
        "accepted": tenants,
        "sources": rows,
    }
