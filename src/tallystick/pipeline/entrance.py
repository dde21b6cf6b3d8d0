"""The public listener: what a process needs that answers senders, whether it holds the journal itself or is a worker."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import uvicorn

from tallystick.config import Config
from tallystick.event.codec import EventReader, Limits
from tallystick.evidence.receipt import receipt_key_name
from tallystick.http.access import AccessKeys
from tallystick.http.host import HostCheck
from tallystick.http.limits import BodyReader
from tallystick.http.logins import LoginGuard
from tallystick.http.protocol import limited_protocol
from tallystick.http.proxy import UnixProxy
from tallystick.http.small import SmallDoor
from tallystick.journal.dedupe import Digester
from tallystick.journal.entries import Appender
from tallystick.journal.tenants import TenantRegistry
from tallystick.pipeline.context import Installation
from tallystick.query.evaluate import compile_query
from tallystick.sources.answer import ReceiptSigner
from tallystick.sources.doors import DoorParts
from tallystick.sources.front import Front
from tallystick.sources.intake import IntakeService
from tallystick.sources.plan import build_plans
from tallystick.sources.quota import Quotas
from tallystick.sources.routes import build_routes
from tallystick.sources.tally import SourceTallies
from tallystick.sources.together import Together

_GRACE_S = 5
# A batch makes thousands of lists and dicts and no cycle; looking for cycles at Python's usual pace took one part in twenty-five.
_GC_THRESHOLDS = (50_000, 20, 20)
_PUSHBACK_DELAY_S = 0.2


def settle_memory() -> None:
    """What lives now lives as long as the process; the collector need not look at it again (and again, on the hot path)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def stop_on_signals() -> asyncio.Event:
    """Set by SIGTERM and SIGINT. Configuration is read at the start only, so SIGHUP is nothing."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return stop


def build_service(installation: Installation, journal: Appender, tenants: TenantRegistry) -> IntakeService:
    """The way in, for the sources of the configuration."""
    config = installation.config
    plans = build_plans(config, compile_query)
    return IntakeService(
        journal,
        tenants,
        plans,
        EventReader(Limits(config.limits.event.bytes, config.limits.depth, config.limits.events)),
        Digester(installation.keys.derive("dedupe")),
        config.hash,
        SourceTallies((plan.name, plan.type) for plan in plans.values()),
        Quotas(config.limits, config.tenants),
    )


class Entrance:
    """The senders' doors on one listening socket. ``role`` names this process; ``not_ready``: why intake would refuse now.

    ``parts`` is what its doors have in common, for listeners beside it.
    """

    def __init__(
        self, installation: Installation, service: IntakeService, not_ready: Callable[[], list[str]], role: str = "intake"
    ) -> None:
        config = installation.config
        self._logins = LoginGuard(config.limits.failed_logins, "intake", service.record)
        name = receipt_key_name(installation.server_name)
        parts = self.parts = DoorParts(
            service,
            AccessKeys(installation.keys_dir, role),
            BodyReader(config.limits, service.turns),
            ReceiptSigner(installation.server_name, installation.keys.signing_key(name), config.seal.include_by.seconds),
            self._logins,
            installation.keys.derive,
            not_ready,
        )
        hosts = HostCheck(config.server)
        front = Front(
            build_routes(parts, service.plans),
            UnixProxy(installation.run_dir / "api.sock"),
            hosts,
            is_tls=config.server.tls is not None,
            pushback_delay_s=_PUSHBACK_DELAY_S,
        )
        self._server = _public_server(config, front, Together(parts, hosts))

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Answer senders until ``stop``; requests in flight are answered first."""
        await serve_until(self._server, listener, stop)
        await self._logins.close()


async def serve_until(server: Server, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set. A server that ends by itself sets it."""
    serving = asyncio.create_task(server.serve([listener]))
    waiter = asyncio.create_task(stop.wait())
    await asyncio.wait([waiter, serving], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    server.should_exit = True
    await serving
    await waiter


def _public_server(config: Config, app: Callable[..., Awaitable[None]], small: SmallDoor) -> Server:
    tls = config.server.tls
    options: dict[str, Any] = {}
    if tls is not None:
        options = {
            "ssl_certfile": str(config.base_dir / tls.cert),
            "ssl_keyfile": str(config.base_dir / tls.key),
            "ssl_ca_certs": str(config.base_dir / tls.client_ca) if tls.client_ca else None,
            "ssl_cert_reqs": 2 if tls.client_ca else 0,
        }
    return Server(app, http=limited_protocol(config.limits, small), **options)


_QUIET: dict[str, Any] = {
    "loop": "uvloop",
    "lifespan": "off",
    "ws": "none",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
}


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers: a process may have several servers, and one order of stopping them."""

    def __init__(self, app: Callable[..., Awaitable[None]], **options: Any) -> None:
        super().__init__(uvicorn.Config(app, timeout_graceful_shutdown=_GRACE_S, **_QUIET, **options))

    def capture_signals(self) -> Any:
        """Leave the signals alone."""
        return nullcontext()
