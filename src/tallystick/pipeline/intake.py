"""The intake's process: the one writer of the journal, the inner door, the sources that run by themselves, and the public listener,
or, with `[server] workers` over 1, the door for the workers that hold it instead."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import uvloop

from tallystick.config import Config
from tallystick.evidence.heads import Heads
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.pipeline.context import Installation
from tallystick.pipeline.entrance import Entrance, Server, build_service, serve_until, settle_memory, stop_on_signals
from tallystick.pipeline.process import bind_tcp, bind_unix
from tallystick.plugin import Source, SourceContext
from tallystick.sources.doors import DoorParts
from tallystick.sources.inlet import Inlet
from tallystick.sources.inner_door import InnerDoor
from tallystick.sources.intake import IntakeService
from tallystick.sources.kind import load_kind
from tallystick.sources.runner import SourceRunner, run_sources
from tallystick.telemetry import log

_STALLED_S = 5.0


def run(installation: Installation) -> None:
    """Accept until told to stop; requests in flight are answered first."""
    listener = bind_tcp(installation.config.server.listen)  # before anything else: an address in use is a quick refusal
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


async def _serve(installation: Installation, journal: Journal, listener: socket.socket) -> None:
    journal.start()
    service = build_service(installation, journal, TenantRegistry(installation.data_dir))
    entrance = Entrance(installation, service, lambda: _not_ready(journal))
    runners = build_sources(installation.config, entrance.parts)
    inner = Server(InnerDoor(service, lambda: _status(journal, service, runners)), http="httptools")
    stop, inner_stop = stop_on_signals(), asyncio.Event()
    serving_inner = asyncio.create_task(serve_until(inner, bind_unix(installation.run_dir / "intake.sock"), inner_stop))
    serving_inner.add_done_callback(lambda _: stop.set())
    await asyncio.gather(entrance.serve(listener, stop), run_sources(runners, stop))
    inner_stop.set()
    await serving_inner
    await journal.close()


def _not_ready(journal: Journal) -> list[str]:
    status = journal.status()
    return [] if status["accepting"] else [str(status["reason"] or "the journal is closing")]


def _status(journal: Journal, service: IntakeService, runners: list[SourceRunner]) -> dict[str, Any]:
    """The intake's page for the api process: journal, readiness, and events accepted by each tenant."""
    accepted = journal.accepted()
    tenants = {tenant.name: accepted.get(tenant.handle, 0) for tenant in service.tenants.all()}
    reasons = _not_ready(journal)
    page = journal.status()
    late = [f"the disk has owed an answer for {page['stalled_seconds']:.0f} s"] if page["stalled_seconds"] > _STALLED_S else []
    return {
        **page,
        "ready": not reasons,
        "reasons": reasons + late,
        "accepted": tenants,
        "sources": _sources_page(service, runners),
    }


def build_sources(config: Config, parts: DoorParts) -> list[SourceRunner]:
    """A runner for each source that is no door of the HTTP listener. Opens nothing."""
    runners = []
    for plan in parts.service.plans.values():
        if plan.settings is None:
            continue
        kind = load_kind(plan.type)
        context = SourceContext(plan.name, config.base_dir, config.data_dir / "sources" / plan.name, config.limits)
        make: Callable[[], Source] | None = None
        if kind.source is not None:
            make = partial(kind.source, plan.settings, context)
        elif kind.listener is not None and kind.listener(parts, plan, context) is not None:
            make = cast("Callable[[], Source]", partial(kind.listener, parts, plan, context))
        if make is not None:
            runners.append(SourceRunner(plan.name, make, partial(Inlet, parts.service, plan)))
    return runners


def _sources_page(service: IntakeService, runners: list[SourceRunner]) -> dict[str, dict[str, Any]]:
    """What each source took in and, where it runs by itself, how it is."""
    page = service.tallies.page()
    for runner in runners:
        page[runner.name] |= runner.status()
    return page
