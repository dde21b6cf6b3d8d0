"""Listening for protocols that are not HTTP: who may connect, how many, for how long, and as whom.

1. Off loopback a listener needs TLS and something that proves who sends (client certificates, or what the protocol has), or
   `insecure = true`; the configuration is refused otherwise, before any port opens.
2. Caps, in all and for one address, count from the accept on, before a TLS handshake costs anything; the newcomer past a cap is
   closed and counted. A handshake has `handshake_time`; a connection that brings nothing for `idle_time` is closed.
3. With `client_ca` every client shows a certificate; with `clients` only those named there get in, each as its tenant. Whom a
   certificate names is who sends, whatever its records say.
4. Connections are read in chunks of 64 KiB through one buffer, and only while the feed has room (`feed`).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

from msgspec import Meta, field
from prometheus_client import Counter as MetricCounter
from prometheus_client import Gauge

from tallystick.config import Duration, Size, TlsSettings
from tallystick.errors import ConfigError
from tallystick.plugin import Sender
from tallystick.sources.feed import CHUNK_BYTES, Feed
from tallystick.sources.intake import DEFAULT_TENANT
from tallystick.sources.kind import MappedSettings
from tallystick.sources.tls import TlsFiles, build_context, certificate_names
from tallystick.telemetry import log

_BACKLOG = 512
_BURST = 64
_REST_S = 1.0
_NO_MORE_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CONNECTIONS = Gauge(
    "tallystick_source_connections", "Open connections of a source's listener.", ["source"], multiprocess_mode="livesum"
)
_CLOSED = MetricCounter(
    "tallystick_source_connections_refused", "Connections that a source closed, and the reason.", ["source", "reason"]
)

TenantName = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9_-]{0,62}\Z")]


class ListenSettings(MappedSettings, frozen=True, kw_only=True):
    """What every source that listens by itself understands."""

    listen: Annotated[
        str, Meta(description="IP address and port. Off loopback it needs TLS and proof of who sends, or `insecure = true`.")
    ]
    insecure: Annotated[bool, Meta(description="Allow listening off loopback without TLS, or to anybody.")] = False
    tls: Annotated[TlsSettings | None, Meta(description="Certificate and key, and the CA of client certificates.")] = None
    clients: Annotated[
        dict[str, TenantName],
        Meta(
            description="Name in a client's certificate (DNS name, URI, mail address, address or common name) → its tenant; "
            "others are refused. Empty: every certificate of `client_ca` will do."
        ),
    ] = field(default_factory=dict)
    connections: Annotated[int, Meta(description="Open connections in all.", ge=1)] = 1_024
    connections_per_address: Annotated[int, Meta(description="Open connections from one address.", ge=1)] = 256
    handshake_time: Annotated[Duration, Meta(description="Time for a TLS handshake.")] = field(
        default_factory=lambda: Duration("10s")
    )
    idle_time: Annotated[Duration, Meta(description="Time a connection may bring nothing.")] = field(
        default_factory=lambda: Duration("1h")
    )
    waiting: Annotated[
        Size, Meta(description="Bytes of records received and not yet durable, counting 128 for each; past it nobody is read.")
    ] = field(default_factory=lambda: Size("32MiB"))
    batch: Annotated[Size, Meta(description="Bytes of records in one commit, counting 128 for each.")] = field(
        default_factory=lambda: Size("512KiB")
    )

    def check(self, base_dir: Path) -> None:
        """Raises ConfigError."""
        check_listen(self.listen, may_be_public=self.insecure or self.is_encrypted)
        if not (self.insecure or self.is_authenticated or split_address(self.listen)[0].is_loopback):
            raise ConfigError(
                f"listen = {self.listen!r} can be reached from outside, and anybody could write to it",
                place="listen",
                hint=f"Set {self.proofs}, or insecure = true if everybody who can reach it may",
            )
        if self.clients and (self.tls is None or self.tls.client_ca is None):
            raise ConfigError("`clients` needs tls with `client_ca`: without it nobody proves a name", place="clients")
        if self.clients and self.tenant is not None:
            raise ConfigError("`clients` and `tenant` both name the tenant; keep one of them", place="tenant")
        if self.batch.bytes < 1:
            raise ConfigError("`batch` would let nothing through", place="batch")
        if self.tls is not None:
            build_context(self.tls, base_dir)

    @property
    def is_encrypted(self) -> bool:
        """True when all that this source listens for comes over TLS."""
        return self.tls is not None

    @property
    def is_authenticated(self) -> bool:
        """True when nobody can write to this source without proving who it is."""
        return self.tls is not None and self.tls.client_ca is not None

    @property
    def proofs(self) -> str:
        """The settings that make senders prove who they are, for a hint."""
        return "client_ca in tls"


def check_listen(listen: str, *, may_be_public: bool) -> None:
    """Raises ConfigError for what is no address and port, and for one off loopback that may not be there (rule 1)."""
    host, _ = split_address(listen)
    if not host.is_loopback and not may_be_public:
        raise ConfigError(
            f"listen = {listen!r} can be reached from outside, and would be without TLS",
            place="listen",
            hint="Set tls = { cert, key }, or insecure = true if the network in between is trusted",
        )


def split_address(listen: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """Address and port of a `listen` setting; port 0 lets the kernel choose. Raises ConfigError."""
    host, separator, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
        if not separator or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise ValueError(port)
    except ValueError:
        raise ConfigError(f"{listen!r} is no IP address and port", place="listen", hint='As in "127.0.0.1:5514"') from None
    return address, int(port)


def bind(listen: str, kind: socket.SocketKind) -> socket.socket:
    """A non-blocking socket bound to a `listen` setting. Raises OSError that names the address."""
    host, port = split_address(listen)
    sock = socket.socket(socket.AF_INET6 if host.version == 6 else socket.AF_INET, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        sock.bind((str(host), port))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {listen}: {error.strerror}") from error
    sock.setblocking(False)
    return sock


class Connection(asyncio.BufferedProtocol):
    """One connection. A protocol says what becomes of what is ``received``, and overrides the other hooks where it must."""

    def __init__(self, listener: Listener, address: str) -> None:
        self.listener = listener
        self.holder = address
        self.peer = address
        self.sender: Sender | None = None
        self.last_at = listener.loop.time()
        self.transport: asyncio.Transport | None = None
        self.is_ending = False
        self._is_reading = True

    def received(self, data: bytes) -> None:
        """The next bytes of the stream."""
        raise NotImplementedError

    def opened(self) -> None:
        """The connection stands and its sender is known."""

    def ended(self) -> None:
        """No more bytes will come: the other side closed, or the server stops."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is; close it when it may not send."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's does not descend from it
        if self.listener.identify(self, self.transport):
            self.listener.feed.join(self)
            self.opened()

    def get_buffer(self, sizehint: int) -> memoryview:
        """One buffer serves all connections: it is emptied before anything else is read."""
        return self.listener.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.last_at = self.listener.loop.time()
        if self.transport is not None and not self.transport.is_closing():
            self.received(bytes(self.listener.buffer[:nbytes]))

    def eof_received(self) -> bool:
        self.ended()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.listener.left(self)

    def pause(self) -> None:
        """See `feed.Reader`."""
        self.set_reading(False)

    def resume(self) -> None:
        """See `feed.Reader`."""
        self.set_reading(True)

    def set_reading(self, is_reading: bool) -> None:
        """Read on, or not."""
        if self.transport is None or self.transport.is_closing() or is_reading == self._is_reading:
            return
        if is_reading and self.is_ending:
            return
        self._is_reading = is_reading
        if is_reading:
            self.last_at = self.listener.loop.time()
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def refuse(self, reason: str) -> None:
        """Close for a reason that is counted; nothing more of it is read."""
        self.listener.count(reason)
        if self.transport is not None:
            self.transport.abort()


class Listener:
    """One listening TCP socket and its connections. ``make`` gives the protocol of a new one."""

    def __init__(
        self, name: str, settings: ListenSettings, base_dir: Path, feed: Feed, make: Callable[[Listener, str], Connection]
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.feed = feed
        self.buffer = memoryview(bytearray(CHUNK_BYTES))
        self.refused: Counter[str] = Counter()
        self._name = name
        self._settings = settings
        self._make = make
        self._tls = TlsFiles(settings.tls, base_dir) if settings.tls is not None else None
        self._open: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._total = 0
        self._handshakes: set[asyncio.Task[None]] = set()
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._gauge = _CONNECTIONS.labels(name)
        self._sock = bind(settings.listen, socket.SOCK_STREAM)
        self._sock.listen(_BACKLOG)
        self.loop.add_reader(self._sock.fileno(), self._accept)
        if not (settings.is_encrypted and settings.is_authenticated) and not split_address(settings.listen)[0].is_loopback:
            log.warning("listening off loopback without TLS or proof, as insecure = true says", source=name, listen=settings.listen)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._sock.getsockname()[:2]
        return host, port

    def status(self) -> dict[str, Any]:
        """Facts for the source's page."""
        host, port = self.address
        return {
            "listen": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "connections": self._total,
            "connections_refused": dict(self.refused),
            "reason": f"tls: {self._tls.problem}" if self._tls is not None and self._tls.problem else "",
        }

    def count(self, reason: str) -> None:
        """One more connection was closed for ``reason``."""
        self.refused[reason] += 1
        _CLOSED.labels(self._name, reason).inc()

    def identify(self, connection: Connection, transport: asyncio.Transport) -> bool:
        """Set the connection's sender; False when it may not send, and then it is closed."""
        self._open.add(connection)
        if self._sweep_handle is None:
            self._sweep_handle = self.loop.call_later(self._sweep_s, self._sweep)
        tls = self._settings.tls
        if tls is None or tls.client_ca is None:
            return True
        names = certificate_names(transport.get_extra_info("peercert") or {})
        clients = self._settings.clients
        name = next((name for name in names if not clients or name in clients), None)
        if name is None:
            log.warning("a client certificate names nobody who may send", source=self._name, names=names[:8])
            connection.refuse("client_unknown")
            return False
        tenant = clients.get(name) or self._settings.tenant or DEFAULT_TENANT
        connection.sender = Sender(f"cert:{name}", (tenant,))
        return True

    def left(self, connection: Connection) -> None:
        """The connection is gone."""
        self.feed.leave(connection)
        self._open.discard(connection)
        self._uncount(connection.peer)

    async def close(self) -> None:
        """Accept nobody any more, and end all connections."""
        self.stop_accepting()
        for task in self._handshakes:
            task.cancel()
        if self._handshakes:
            await asyncio.wait(self._handshakes)
        for connection in list(self._open):
            if connection.transport is not None:
                connection.transport.close()
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        self._gauge.set(0)

    def stop_accepting(self) -> None:
        """Close the listening socket."""
        if self._sock.fileno() >= 0:
            self.loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def end_reading(self) -> None:
        """Read nothing more from anybody; what a connection holds of an unfinished record is its own to deal with."""
        for connection in list(self._open):
            connection.is_ending = True
            connection.pause()
            connection.ended()

    def _accept(self) -> None:
        """Take some of those who wait. Past a cap they are closed at once."""
        for _ in range(_BURST):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_MORE_FILES:
                    log.error("no connection can be accepted", source=self._name, error=error.strerror)
                    self.loop.remove_reader(self._sock.fileno())
                    self.loop.call_later(_REST_S, self._accept_again)
                    return
                continue  # whoever it was is gone already
            peer = str(address[0])
            if self._total >= self._settings.connections or self._by_address[peer] >= self._settings.connections_per_address:
                self.count("too_many")
                sock.close()
                continue
            sock.setblocking(False)
            self._by_address[peer] += 1
            self._total += 1
            self._gauge.set(self._total)
            task = self.loop.create_task(self._begin(sock, peer))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _accept_again(self) -> None:
        if self._sock.fileno() >= 0:
            self.loop.add_reader(self._sock.fileno(), self._accept)

    async def _begin(self, sock: socket.socket, peer: str) -> None:
        """The handshake, if there is one; from then on the connection goes by itself."""
        options: dict[str, Any] = {}
        if self._tls is not None:
            options = {"ssl": self._tls.context(), "ssl_handshake_timeout": self._settings.handshake_time.seconds}
        connection = self._make(self, peer)
        try:
            await self.loop.connect_accepted_socket(lambda: connection, sock, **options)
        except (OSError, ssl.SSLError) as error:  # TimeoutError and ConnectionError are OSErrors
            if connection.transport is None:  # else `left` has been told, or will be
                self.count("handshake" if self._tls is not None else "lost")
                log.info("a connection did not come about", source=self._name, peer=peer, error=str(error) or type(error).__name__)
                sock.close()
                self._uncount(peer)
        except asyncio.CancelledError:
            if connection.transport is None:
                sock.close()
                self._uncount(peer)
            raise

    def _uncount(self, peer: str) -> None:
        self._total -= 1
        self._gauge.set(self._total)
        self._by_address[peer] -= 1
        if not self._by_address[peer]:
            del self._by_address[peer]

    @property
    def _sweep_s(self) -> float:
        return min(_REST_S, self._settings.idle_time.seconds / 4)

    def _sweep(self) -> None:
        """Close who has been silent for too long. Who is not read at the moment is not silent."""
        oldest = self.loop.time() - self._settings.idle_time.seconds
        for connection in [one for one in self._open if one.last_at < oldest and not self.feed.is_paused(one)]:
            connection.refuse("idle")
        self._sweep_handle = self.loop.call_later(self._sweep_s, self._sweep) if self._open else None
