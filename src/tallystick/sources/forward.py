"""Source type `forward`: the Fluentd forward protocol v1, as Fluentd, Fluent Bit and the fluent-logger libraries speak it.

    socket ──messages──► slices of entries ──► feed ──batches──► decode, make events ──► intake ──durable──► {"ack": chunk}

1. With a `shared_key` nothing is read before the handshake (`protocols.forward_hello`); users add a name and password to it.
2. A message is cut into slices of entries, one at a time, as the feed has room for them; meanwhile its connection is not read.
   Messages that are not whole yet, or not cut to the end, are held as they came, and counted over all connections.
3. A chunk is acknowledged when all of its slices are durable, never before. Its entries have ids made of the chunk and their
   place in it: a chunk that is sent again because its acknowledgement was lost is acknowledged again, and stored once.
4. What is no message of the protocol, though whole, goes to the quarantine and is acknowledged; sent again it would be no better.
   What is no msgpack, or too large, ends the connection.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from msgspec import Meta, field

from tallystick.config import IngestLimits, Size
from tallystick.config.settings import Settings
from tallystick.errors import ConfigError
from tallystick.http.access import AuthError
from tallystick.http.logins import LoginGuard
from tallystick.plugin import Decoded, Intake, Record, Sender, SourceContext
from tallystick.protocols import forward, forward_hello
from tallystick.protocols.forward import ForwardSplitter
from tallystick.protocols.forward_hello import Hello
from tallystick.shared_bytes import SharedBytes
from tallystick.sources.feed import Feed, Piece
from tallystick.sources.forward_pieces import MessageCutter, decode_pieces
from tallystick.sources.intake import DEFAULT_TENANT
from tallystick.sources.kind import NATIVE, SourceKind
from tallystick.sources.listener import Connection, Listener, ListenSettings, TenantName
from tallystick.telemetry import log
from tallystick.transforms.forward import MAPPING, ForwardMapping

_KEY_MIN = 16


class ForwardUser(Settings, frozen=True):
    """`users.NAME = {…}` of a `forward` source."""

    password: Annotated[str, Meta(description="What the user proves its knowledge of.", min_length=1)]
    tenant: Annotated[TenantName | None, Meta(description="Tenant of what the user sends; absent: the source's.")] = None


class ForwardSettings(ListenSettings, frozen=True, kw_only=True):
    """`[sources.NAME]` with `type = "forward"`."""

    mapping: Annotated[
        str, Meta(description="`forward` moves what the envelope has a place for; another mapping reads each record as JSON.")
    ] = MAPPING
    keep_raw: Annotated[bool, Meta(description="Keep each record as JSON in `raw`, beside what became of it.")] = False
    shared_key: Annotated[
        str | None, Meta(description="Shared key of the handshake, at least 16 characters. Absent: no handshake.")
    ] = None
    hostname: Annotated[str, Meta(description="This server's name in the handshake.", min_length=1)] = "tallystick"
    users: Annotated[dict[str, ForwardUser], Meta(description="User name → password and tenant, asked for in the handshake.")] = (
        field(default_factory=dict)
    )
    waiting: Annotated[
        Size,
        Meta(
            description="Bytes of records received and not yet durable, counting 128 for each; and, apart, of unfinished messages."
        ),
    ] = field(default_factory=lambda: Size("64MiB"))
    message: Annotated[Size, Meta(description="One message (a chunk) as sent; a larger one ends the connection.")] = field(
        default_factory=lambda: Size("16MiB")
    )

    def check(self, base_dir: Path) -> None:
        """Raises ConfigError."""
        super().check(base_dir)
        if self.shared_key is not None and len(self.shared_key) < _KEY_MIN:
            raise ConfigError(f"`shared_key` has less than {_KEY_MIN} characters", place="shared_key")
        if self.users and self.shared_key is None:
            raise ConfigError("`users` needs a `shared_key`: without it there is no handshake", place="users")
        for name, user in self.users.items():
            if user.tenant is not None and (self.tenant is not None or self.clients):
                other = "tenant" if self.tenant is not None else "clients"
                raise ConfigError(f"`users.{name}.tenant` and `{other}` both name the tenant; keep one", place=f"users.{name}")
        if not 4_096 <= self.message.bytes <= self.waiting.bytes:
            raise ConfigError(f"message = {self.message.text!r} is not between 4KiB and `waiting`", place="message")

    @property
    def is_authenticated(self) -> bool:
        return self.shared_key is not None or super().is_authenticated

    @property
    def proofs(self) -> str:
        return "client_ca in tls, or a shared_key"


class ForwardConnection(Connection):
    """One TCP or TLS connection."""

    def __init__(self, door: ForwardDoor, listener: Listener, address: str) -> None:
        super().__init__(listener, address)
        self._door = door
        self._splitter = ForwardSplitter(door.settings.message.bytes)
        self._hello = door.new_hello()
        self._messages: deque[bytes] = deque()
        self._cutter = door.cutter(address, self.acknowledge)
        self._pieces: Iterator[Piece] = iter(())
        self._held = 0
        self._can_write = True
        self._deadline: asyncio.TimerHandle | None = None

    def opened(self) -> None:
        """With a shared key the server speaks first."""
        if self._hello is not None and self.transport is not None:
            self.transport.write(forward_hello.helo(self._hello))
            wait_s = self._door.settings.handshake_time.seconds
            self._deadline = self.listener.loop.call_later(wait_s, self.refuse, "handshake")

    def received(self, data: bytes) -> None:
        """Messages are queued for cutting; who has not shown that it knows the key has no more than one, and it is that."""
        messages = self._splitter.feed(data)
        if self._hello is not None and not self._is_let_in(self._hello, messages):
            return
        self._messages += messages
        if self._splitter.failure:
            self._pump()
            self.refuse(self._splitter.failure)
        elif self._hold():
            self._pump()
        else:
            self.refuse("overloaded")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._messages.clear()
        self._pieces = iter(())
        self._release()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The other side does not take its acknowledgements: it is not read until it does."""
        self._can_write = False
        self.set_reading(False)

    def resume_writing(self) -> None:
        """It does."""
        self._can_write = True
        self._pump()

    def resume(self) -> None:
        """There is room in the feed: first for what was received already."""
        self._pump()

    def _is_let_in(self, hello: Hello, messages: list[bytes]) -> bool:
        """The handshake's second half, with the first of ``messages``; nothing of another is taken before."""
        if not messages:
            if self._splitter.failure or self._splitter.waiting_bytes > forward_hello.PING_MAX:
                self.refuse("handshake")
            return False
        ping = forward_hello.read_ping(messages.pop(0))
        reason = "no PING" if ping is None else forward_hello.check_ping(hello, ping)
        if ping is not None and self.transport is not None:
            self.transport.write(forward_hello.pong(hello, ping, reason))
        if ping is None or reason:
            self._door.failed(self.peer, ping.user if ping is not None else "", reason)
            self.listener.count("login")
            if self.transport is not None:
                self.transport.close()
            return False
        if self._deadline is not None:
            self._deadline.cancel()
        self._hello = None
        self.sender = self._door.sender_of(ping.user) or self.sender
        return True

    def _pump(self) -> None:
        """Cut what was received into pieces while the feed takes them; read on when all of it is cut."""
        feed = self.listener.feed
        while not feed.is_paused(self):
            piece = next(self._pieces, None)
            if piece is None:
                if not self._messages:
                    break
                self._pieces = self._cutter.pieces(self._messages)
                continue
            feed.add(piece, self.sender, self)
        if not self._messages and not feed.is_paused(self):
            self._release()
            self._hold()
        self.set_reading(self._can_write and not feed.is_paused(self))

    def acknowledge(self, chunk: str) -> None:
        """All of the chunk is durable."""
        self._door.acknowledged += 1
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(forward.acknowledge(chunk))

    def _hold(self) -> bool:
        """Count what is held of unfinished messages; False when there is no room for it."""
        wanted = self._splitter.waiting_bytes + sum(map(len, self._messages))
        if wanted <= self._held:
            return True
        unfinished = self._door.unfinished
        if not unfinished.has_room(self.holder, wanted - self._held):
            return False
        unfinished.take(self.holder, wanted - self._held)
        self._held = wanted
        return True

    def _release(self) -> None:
        if self._held:
            self._door.unfinished.give(self.holder, self._held)
            self._held = 0


class ForwardDoor:
    """What all connections of one source share: settings, who may come in, and how messages are cut."""

    def __init__(self, settings: ForwardSettings, name: str, limits: IngestLimits, logins: LoginGuard) -> None:
        self.settings = settings
        self.unfinished = SharedBytes(settings.waiting.bytes)
        self.acknowledged = 0
        self._name = name
        self._limits = limits
        self._logins = logins
        self._passwords: Mapping[str, str] = {user: one.password for user, one in settings.users.items()}

    def cutter(self, peer: str, acknowledge: Callable[[str], None]) -> MessageCutter:
        """What cuts the messages of a new connection."""
        settings = self.settings
        return MessageCutter(self._name, self._limits, settings.message.bytes, settings.batch.bytes, peer, acknowledge)

    def new_hello(self) -> Hello | None:
        """The server's side of a new connection's handshake; None without a shared key."""
        if self.settings.shared_key is None:
            return None
        salt = secrets.token_bytes(forward_hello.SALT_BYTES) if self._passwords else b""
        nonce = secrets.token_bytes(forward_hello.SALT_BYTES)
        return Hello(self.settings.hostname, self.settings.shared_key, nonce, salt, self._passwords)

    def failed(self, address: str, user: str, reason: str) -> None:
        """A handshake that failed is a failed login: on record, without the secret."""
        log.warning("a forward client did not pass the handshake", source=self._name, peer=address, reason=reason)
        self._logins.failed(address, AuthError("handshake_failed", reason, user[:64]))

    def sender_of(self, user: str) -> Sender | None:
        """Who a user of the handshake is; None where there are no users."""
        known = self.settings.users.get(user)
        if known is None:
            return None
        return Sender(f"user:{user}", (known.tenant or self.settings.tenant or DEFAULT_TENANT,))


class ForwardSource:
    """See `plugin.Source`."""

    guarantee: ClassVar[str] = "at least once"
    acknowledges: ClassVar[str] = (
        "A chunk is acknowledged after fdatasync of all of its records; sent again within the dedupe window it is stored once. A message "
        "without a chunk is not acknowledged: best effort."
    )

    def __init__(self, settings: ForwardSettings, context: SourceContext) -> None:
        self._settings = settings
        self._context = context
        self._mapping = ForwardMapping(keep_raw=settings.keep_raw)
        self._feed: Feed | None = None
        self._listener: Listener | None = None
        self._door: ForwardDoor | None = None

    async def run(self, intake: Intake, stop: asyncio.Event) -> None:
        """See `plugin.Source`."""
        settings, name = self._settings, self._context.name
        commit = partial(self._commit_own if settings.mapping == MAPPING else self._commit_json, intake)
        feed = self._feed = Feed(name, intake, commit, settings.waiting.bytes, settings.batch.bytes)
        logins = LoginGuard(self._context.limits.failed_logins, f"source {name}", intake.record_own)
        self._door = ForwardDoor(settings, name, self._context.limits, logins)
        try:
            make = partial(ForwardConnection, self._door)
            self._listener = Listener(name, settings, self._context.base_dir, feed, make)
            await feed.run(stop)
            self._listener.stop_accepting()
            self._listener.end_reading()
            await feed.flush()
        finally:
            if self._listener is not None:
                await self._listener.close()
            await feed.close()
            await logins.close()

    def status(self) -> dict[str, Any]:
        """See `plugin.Source`."""
        page: dict[str, Any] = {"guarantee": self.guarantee, "reason": ""}
        if self._listener is not None:
            page |= self._listener.status()
        if self._feed is not None:
            page |= {"waiting_bytes": self._feed.waiting_bytes, "paused": self._feed.paused}
        if self._door is not None:
            page |= {"unfinished_bytes": self._door.unfinished.total, "chunks_acknowledged": self._door.acknowledged}
        return page

    async def _commit_own(self, intake: Intake, pieces: list[Piece], size: int, sender: Sender | None) -> None:
        await intake.commit_decoded(partial(decode_pieces, self._mapping, pieces), size, sender, pieces[0].peer)

    async def _commit_json(self, intake: Intake, pieces: list[Piece], size: int, sender: Sender | None) -> None:
        """For another mapping: it gets each record as JSON. What is no record goes to the quarantine all the same."""
        found = decode_pieces(ForwardMapping(keep_raw=True), pieces)
        records = [
            Record(str(event.raw).encode(), line, pieces[0].peer, event.id or "")
            for event, line in zip(found.events, found.lines, strict=True)
        ]
        if records:
            await intake.commit_records(records, sender)
        if found.faults:
            await intake.commit_decoded(lambda: Decoded(faults=found.faults), size, sender, pieces[0].peer)


KIND = SourceKind(
    ForwardSettings,
    lambda plan: f"source of type forward at {getattr(plan.settings, 'listen', '')}",
    source=ForwardSource,
    mappings=(NATIVE,),
    own_mapping=lambda _config, settings: ForwardMapping(keep_raw=settings.keep_raw),
)
