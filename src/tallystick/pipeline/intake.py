"""The intake's process: the public listener, the inner door, and the one writer of the journal."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import uvicorn
import uvloop

from tallystick.config import Config
from tallystick.event.codec import EventReader, Limits
from tallystick.evidence.heads import Heads
from tallystick.evidence.receipt import receipt_key_name
from tallystick.http.access import AccessKeys
from tallystick.http.host import HostCheck
from tallystick.http.limits import BodyReader
from tallystick.http.logins import LoginGuard
from tallystick.http.protocol import limited_protocol
from tallystick.http.proxy import UnixProxy
from tallystick.http.small import SmallDoor
from tallystick.journal.dedupe import Digester
from tallystick.journal.tenants import TenantRegistry
from tallystick.journal.writer import Journal
from tallystick.pipeline.context import Installation
from tallystick.pipeline.process import bind_tcp, bind_unix
from tallystick.plugin import SourceContext
from tallystick.query.evaluate import compile_query
from tallystick.sources.answer import ReceiptSigner
from tallystick.sources.doors import DoorParts
from tallystick.sources.front import Front
from tallystick.sources.inlet import Inlet
from tallystick.sources.inner_door import InnerDoor
from tallystick.sources.intake import IntakeService
from tallystick.sources.kind import load_kind
from tallystick.sources.plan import build_plans
from tallystick.sources.quota import Quotas
from tallystick.sources.routes import build_routes
from tallystick.sources.runner import SourceRunner, run_sources
from tallystick.sources.tally import SourceTallies
from tallystick.sources.together import Together
from tallystick.telemetry import log

_GRACE_S = 5
# A batch makes thousands of lists and dicts and no cycle; looking for cycles at Python's usual pace took one part in twenty-five.
_GC_THRESHOLDS = (50_000, 20, 20)
_PUSHBACK_DELAY_S = 0.2
_STALLED_S = 5.0


def run(installation: Installation) -> None:
    """Accept until told to stop; requests in flight are answered first."""
    listener = bind_tcp(installation.config.server.listen)  # before anything else: an address in use is a quick refusal
    journal = _open_journal(installation)
    for line in journal.recovered.damage:
        log.error("the journal is damaged", found=line)
    # What lives now lives as long as the process; the collector need not look at it again (and again, on the hot path).
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
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
    config = installation.config
    journal.start()
    plans = build_plans(config, compile_query)
    service = IntakeService(
        journal,
        TenantRegistry(installation.data_dir),
        plans,
        EventReader(Limits(config.limits.event.bytes, config.limits.depth, config.limits.events)),
        Digester(installation.keys.derive("dedupe")),
        config.hash,
        SourceTallies((plan.name, plan.type) for plan in plans.values()),
        Quotas(config.limits, config.tenants),
    )
    runners = build_sources(config, service)
    logins = LoginGuard(config.limits.failed_logins, "intake", service.record)
    front, together = _front(installation, service, logins)
    public = _listener(config, front, together)
    inner = _server(InnerDoor(service, lambda: _status(service, runners)), http="httptools")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    inner_socket = bind_unix(installation.run_dir / "intake.sock")
    servers = [asyncio.create_task(inner.serve([inner_socket])), asyncio.create_task(public.serve([listener]))]
    sources = asyncio.create_task(run_sources(runners, stop))
    waiter = asyncio.create_task(stop.wait())
    await asyncio.wait([waiter, *servers], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    public.should_exit = True
    await servers[1]
    await sources
    inner.should_exit = True
    await servers[0]
    await logins.close()
    waiter.cancel()
    await journal.close()


def _front(installation: Installation, service: IntakeService, logins: LoginGuard) -> tuple[Front, Together]:
    config = installation.config
    keys = AccessKeys(installation.keys_dir, "intake")
    bodies = BodyReader(config.limits, service.turns)
    name = receipt_key_name(installation.server_name)
    signer = ReceiptSigner(installation.server_name, installation.keys.signing_key(name), config.seal.include_by.seconds)
    parts = DoorParts(service, keys, bodies, signer, logins)
    hosts = HostCheck(config.server)
    front = Front(
        build_routes(parts, service.plans, lambda: _not_ready(service.journal)),
        UnixProxy(installation.run_dir / "api.sock"),
        hosts,
        is_tls=config.server.tls is not None,
        pushback_delay_s=_PUSHBACK_DELAY_S,
    )
    return front, Together(parts, hosts)


def _not_ready(journal: Journal) -> list[str]:
    status = journal.status()
    return [] if status["accepting"] else [str(status["reason"] or "the journal is closing")]


def _status(service: IntakeService, runners: list[SourceRunner]) -> dict[str, Any]:
    """The intake's page for the api process: journal, readiness, and events accepted by each tenant."""
    accepted = service.journal.accepted()
    tenants = {tenant.name: accepted.get(tenant.handle, 0) for tenant in service.tenants.all()}
    reasons = _not_ready(service.journal)
    page = service.journal.status()
    late = [f"the disk has owed an answer for {page['stalled_seconds']:.0f} s"] if page["stalled_seconds"] > _STALLED_S else []
    return {
        **page,
        "ready": not reasons,
        "reasons": reasons + late,
        "accepted": tenants,
        "sources": _sources_page(service, runners),
    }


def build_sources(config: Config, service: IntakeService) -> list[SourceRunner]:
    """A runner for each source that is no door of the HTTP listener. Opens nothing."""
    runners = []
    for plan in service.plans.values():
        make = load_kind(plan.type).source if plan.settings is not None else None
        if make is not None:
            context = SourceContext(plan.name, config.base_dir, config.data_dir / "sources" / plan.name, config.limits)
            runners.append(SourceRunner(plan.name, partial(make, plan.settings, context), partial(Inlet, service, plan)))
    return runners


def _sources_page(service: IntakeService, runners: list[SourceRunner]) -> dict[str, dict[str, Any]]:
    """What each source took in and, where it runs by itself, how it is."""
    page = service.tallies.page()
    for runner in runners:
        page[runner.name] |= runner.status()
    return page


def _listener(config: Config, app: Callable[..., Awaitable[None]], small: SmallDoor) -> _Server:
    tls = config.server.tls
    options: dict[str, Any] = {}
    if tls is not None:
        options = {
            "ssl_certfile": str(config.base_dir / tls.cert),
            "ssl_keyfile": str(config.base_dir / tls.key),
            "ssl_ca_certs": str(config.base_dir / tls.client_ca) if tls.client_ca else None,
            "ssl_cert_reqs": 2 if tls.client_ca else 0,
        }
    return _server(app, http=limited_protocol(config.limits, small), **options)


def _server(app: Callable[..., Awaitable[None]], **options: Any) -> _Server:
    return _Server(uvicorn.Config(app, timeout_graceful_shutdown=_GRACE_S, **_QUIET, **options))


_QUIET: dict[str, Any] = {
    "loop": "uvloop",
    "lifespan": "off",
    "ws": "none",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
}


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: this process has two servers and one order of stopping them."""

    def capture_signals(self) -> Any:
        """Leave the signals alone."""
        return nullcontext()
