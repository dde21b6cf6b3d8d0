"""The public listener: what a process needs that answers senders, whether it holds the journal itself or is a worker."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from typing import Any

import uvicorn

from tallystick.config import Config
from tallystick.errors import ConfigError
from tallystick.event.codec import EventReader, Limits
from tallystick.evidence.receipt import receipt_key_name
from tallystick.holdings import Holdings, SharedHoldings
from tallystick.http.accept import SharedListener
from tallystick.http.access import AccessKeys
from tallystick.http.host import HostCheck
from tallystick.http.limits import BodyReader
from tallystick.http.logins import LoginGuard
from tallystick.http.protocol import LimitedProtocol, limited_protocol
from tallystick.http.proxy import UnixProxy
from tallystick.journal.dedupe_digest import Digester
from tallystick.journal.entries import Appender
from tallystick.journal.tenants import TenantRegistry
from tallystick.pipeline.bounds import Bounds
from tallystick.pipeline.context import Installation
from tallystick.pipeline.reload import answer
from tallystick.query.evaluate import compile_query
from tallystick.sources.answer import ReceiptSigner
from tallystick.sources.doors import DoorParts
from tallystick.sources.front import Front
from tallystick.sources.intake import IntakeService
from tallystick.sources.plan import SourcePlan, build_plans
from tallystick.sources.quota import Quotas
from tallystick.sources.retention import ClassRules
from tallystick.sources.routes import build_routes
from tallystick.sources.sealing import Sealing
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
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


Take = Callable[[Config, Mapping[str, SourcePlan]], Awaitable[None]]


def take_on_signal(
    installation: Installation, role: str, check: Callable[[Config, Mapping[str, SourcePlan]], None], take: Take
) -> None:
    """At each SIGHUP, read the configuration that is staged: ``check`` it, ``take`` it, and say what came of it (`reload`).

    ``check`` raises ConfigError; then nothing is taken. ``take`` cannot fail any more. One at a time, in the order of the signals.
    """
    turn = asyncio.Lock()
    tasks: set[asyncio.Task[None]] = set()

    async def once() -> None:
        async with turn:
            assert installation.read_config is not None
            try:
                config = installation.read_config()
                plans = build_plans(config, compile_query, installation.keys.derive)
                check(config, plans)
            except ConfigError as error:
                answer(installation, role, str(error))
                return
            await take(config, plans)
            answer(installation, role)

    def on_signal() -> None:
        task = asyncio.get_running_loop().create_task(once())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the supervisor starts its children with it blocked


def build_service(
    installation: Installation, journal: Appender, tenants: TenantRegistry, bounds: Bounds, tallies: type[SourceTallies]
) -> IntakeService:
    """The way in, for the sources of the configuration."""
    config = installation.config
    plans = build_plans(config, compile_query, installation.keys.derive)
    return IntakeService(
        journal,
        tenants,
        plans,
        _reader(config),
        Digester(installation.keys.derive("dedupe")),
        config.hash,
        tallies((plan.name, plan.type) for plan in plans.values()),
        Quotas(config.limits, config.tenants, buckets=bounds.buckets),
        rules=ClassRules(config),
        sealing=Sealing(config, installation.keys, installation.server_name),
    )


def meet_config(service: IntakeService, config: Config, plans: Mapping[str, SourcePlan], installation: Installation) -> None:
    """From now on what comes in is worked on by ``plans``."""
    service.plans, service.rules = plans, ClassRules(config)
    service.sealing = Sealing(config, installation.keys, installation.server_name)
    service.reader = _reader(config)
    service.config_hash = config.hash
    service.tallies.meet((plan.name, plan.type) for plan in plans.values())
    service.quotas.meet(config.limits, config.tenants)


def _reader(config: Config) -> EventReader:
    return EventReader(Limits(config.limits.event.bytes, config.limits.depth, config.limits.events))


class Entrance:
    """The senders' doors on one listening socket. ``bounds``: what this process shares with others; ``role``: its name;
    ``not_ready``: why intake would refuse now.

    ``parts`` is what its doors have in common, for listeners beside it.
    """

    def __init__(
        self, installation: Installation, service: IntakeService, not_ready: Callable[[], list[str]], bounds: Bounds, role: str
    ) -> None:
        config = installation.config
        self._installation = installation
        self._not_ready = not_ready
        self._logins = LoginGuard(config.limits.failed_logins, "intake", service.record, buckets=bounds.buckets)
        self._keys = AccessKeys(installation.keys_dir, role)
        self._bodies = BodyReader(config.limits, service.turns, bounds.bodies)
        self._service = service
        self._proxy = UnixProxy(installation.run_dir / "api.sock")
        hosts = HostCheck(config.server)
        self.parts = self._make_parts(config)
        self._front = self._make_front(config, hosts)
        self._together = Together(self.parts, hosts)
        self._protocol = limited_protocol(config.limits, self._together, bounds.connections)
        self._server = _public_server(config, self._answer, self._protocol, bounds.connections)

    def check(self, config: Config, plans: Mapping[str, SourcePlan]) -> None:
        """Raises ConfigError when the certificate cannot be loaded, or a class's query cannot be read."""
        ClassRules(config)
        if config.server.tls is not None and self._server.config.ssl is not None:
            scratch = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            _load_certificate(scratch, config)

    def take(self, config: Config, plans: Mapping[str, SourcePlan]) -> None:
        """From now on every request meets ``config``, on the connections that are there too; the certificate is read again."""
        if config.server.tls is not None and self._server.config.ssl is not None:
            _load_certificate(self._server.config.ssl, config)
        meet_config(self._service, config, plans, self._installation)
        self._logins.meet(config.limits.failed_logins)
        self._bodies.meet(config.limits)
        self._protocol.table.meet(config.limits)
        hosts = HostCheck(config.server)
        self.parts = self._make_parts(config)
        self._front = self._make_front(config, hosts)
        self._together.hosts = hosts

    def _make_parts(self, config: Config) -> DoorParts:
        name = receipt_key_name(self._installation.server_name)
        key = self._installation.keys.signing_key(name)
        signer = ReceiptSigner(self._installation.server_name, key, config.seal.include_by.seconds)
        derive = self._installation.keys.derive
        return DoorParts(self._service, self._keys, self._bodies, signer, self._logins, derive, self._not_ready)

    def _make_front(self, config: Config, hosts: HostCheck) -> Front:
        return Front(
            build_routes(self.parts, self._service.plans),
            self._proxy,
            hosts,
            is_tls=config.server.tls is not None,
            pushback_delay_s=_PUSHBACK_DELAY_S,
        )

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        await self._front(scope, receive, send)

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Answer senders until ``stop``; requests in flight are answered first."""
        await serve_until(self._server, listener, stop)

    async def close(self) -> None:
        """Put on record what is not yet."""
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


def _load_certificate(context: ssl.SSLContext, config: Config) -> None:
    tls = config.server.tls
    assert tls is not None
    try:
        context.load_cert_chain(config.base_dir / tls.cert, config.base_dir / tls.key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"server.tls: the certificate or its key cannot be used: {error}", place=config.path) from error


def _public_server(
    config: Config, app: Callable[..., Awaitable[None]], protocol: type[LimitedProtocol], connections: Holdings | None
) -> Server:
    tls = config.server.tls
    options: dict[str, Any] = {}
    if tls is not None:
        options = {
            "ssl_certfile": str(config.base_dir / tls.cert),
            "ssl_keyfile": str(config.base_dir / tls.key),
            "ssl_ca_certs": str(config.base_dir / tls.client_ca) if tls.client_ca else None,
            "ssl_cert_reqs": 2 if tls.client_ca else 0,
        }
    shared = connections if isinstance(connections, SharedHoldings) else None
    return Server(app, shared, http=protocol, **options)


_QUIET: dict[str, Any] = {
    "interface": "asgi3",
    "loop": "uvloop",
    "lifespan": "off",
    "ws": "none",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
}


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers: a process may have several servers, and one order of stopping them.

    ``shared``: where connections are counted when several processes take them from one socket (`http.accept`).
    """

    def __init__(self, app: Callable[..., Awaitable[None]], shared: SharedHoldings | None = None, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, timeout_graceful_shutdown=_GRACE_S, **_QUIET, **options))
        self._shared = shared

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which would take every connection that it can get."""
        shared = self._shared
        if shared is None or not sockets:
            await super().startup(sockets)
            return
        loop, config = asyncio.get_running_loop(), self.config

        def make_protocol() -> asyncio.Protocol:
            kind: Any = config.http_protocol_class
            made: asyncio.Protocol = kind(config=config, server_state=self.server_state, app_state={}, _loop=loop)
            return made

        self.servers: list[Any] = [SharedListener(sockets[0], make_protocol, config.ssl, shared)]
        self.started = True

    def capture_signals(self) -> Any:
        """Leave the signals alone."""
        return nullcontext()
