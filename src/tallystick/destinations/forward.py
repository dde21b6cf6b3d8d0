"""Destination `forward`: chunks for Fluentd, Fluent Bit or anything else that speaks the forward protocol; at least once.

One cut is one chunk, and is delivered when `{"ack": chunk}` comes back on its connection. Without it in time the connection is
closed and the same chunk, under the same name, goes over another one: a receiver that keeps the names it has seen stores it once.
A connection carries one chunk at a time.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgpack
import msgspec
from msgspec import Meta, field

from tallystick.config import DestinationSettings, Duration
from tallystick.destinations.encodings import EncodingSettings
from tallystick.destinations.encodings.forward_chunk import ForwardChunk, chunk_of
from tallystick.destinations.encodings.registry import find_encoding
from tallystick.errors import ConfigError, DestinationUnavailableError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut
from tallystick.protocols.forward_client import ForwardRefusedError, Login, acknowledged, check_pong, is_helo, make_ping
from tallystick.sources.remote import RemoteTlsSettings, check_tls, client_context, require_safe, rooted_tls

_MESSAGE_MAX = 64 << 10
"""Bytes of one message of the other side's."""
_SALT_BYTES = 16


class ForwardSettings(EncodingSettings, frozen=True, kw_only=True):
    """`type = "forward"`"""

    host: Annotated[str, Meta(description="Host or address.", min_length=1)]
    port: Annotated[int, Meta(description="Port.", ge=1, le=65_535)] = 24224
    tag: Annotated[str, Meta(description="Tag of each chunk; `{tenant}` in it is the events' tenant.", min_length=1)] = (
        "tallystick.{tenant}"
    )
    ack_timeout: Annotated[Duration, Meta(description="Send again what is not acknowledged by then.")] = field(
        default_factory=lambda: Duration("60s")
    )
    shared_key: Annotated[str | None, Meta(description="Shared key of the handshake. Absent: no handshake.")] = None
    username: Annotated[str | None, Meta(description="User, when the server asks for one; with `password`.")] = None
    password: Annotated[str | None, Meta(description="Password of `username`.")] = None
    hostname: Annotated[str | None, Meta(description="Our name in the handshake; this machine's when it is missing.")] = None
    tls: Annotated[RemoteTlsSettings | None, Meta(description="TLS; `{}` with the system's CA certificates.")] = None
    insecure: Annotated[bool, Meta(description="Allow a connection in the clear to another machine.")] = False

    def rooted(self, base_dir: Path) -> ForwardSettings:
        return msgspec.structs.replace(self, tls=rooted_tls(self.tls, base_dir))

    def check(self) -> None:
        require_safe(self.host, is_encrypted=self.tls is not None, insecure=self.insecure, place="host")
        check_tls(self.tls, Path())
        if (self.username is None) != (self.password is None):
            raise ConfigError("username and password belong together")
        if self.username is not None and self.shared_key is None:
            raise ConfigError("a user needs a shared_key: without it there is no handshake")

    def login(self) -> Login | None:
        """What the handshake proves; None for no handshake."""
        if self.shared_key is None:
            return None
        return Login(self.hostname or socket.gethostname(), self.shared_key, self.username or "", self.password or "")


class ForwardDestination:
    """Chunks at one server."""

    settings: ClassVar[type[DestinationSettings]] = ForwardSettings
    guarantee: ClassVar[str] = "at least once"
    window: ClassVar[int] = 4
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=2_000, max_bytes=1 << 20, max_age_s=1.0)
    answers: ClassVar[dict[str, str]] = {
        "ack of the chunk": "delivered",
        "no ack within ack_timeout, connection lost, no connection, DNS or TLS failure": "retry: the same chunk over a new connection",
        "another message than that ack": "retry: the same chunk over a new connection",
        "PONG with false, or with a wrong digest": "park",
        "HELO although there is no shared_key": "park",
        "certificate not trusted": "park",
    }

    def __init__(self, name: str, settings: ForwardSettings) -> None:
        self.name = name
        is_json = find_encoding(settings.encoding, settings.carries).shape == "json"
        self.encoder = ForwardChunk(settings.make_events(), settings.tag, is_json=is_json)
        self._address = (settings.host, settings.port)
        self._context = None if settings.tls is None else client_context(settings.tls, Path())
        self._login = settings.login()
        self._timeout_s = settings.ack_timeout.seconds
        self._kept: list[_Line] = []

    def place(self, cut: Cut) -> str:
        return ""

    async def find(self, place: str, sha256: str) -> bool | None:
        return None

    async def send(self, cut: Cut) -> Answer:
        chunk = chunk_of(cut.body)
        where = f"forward:{self._address[0]}:{self._address[1]} {cut.handle}-{cut.name} chunk {chunk}"
        return await self._attempt(cut.body, chunk, where)

    async def probe(self) -> Answer:
        """A connection with its handshakes; nothing is sent."""
        return await self._attempt(b"", "", f"forward:{self._address[0]}:{self._address[1]}")

    async def close(self) -> None:
        for line in self._kept:
            line.close()
        self._kept.clear()

    async def _attempt(self, body: bytes, chunk: str, where: str) -> Answer:
        line: _Line | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                line = self._kept_line() or await self._connect()
                if body:
                    await line.write(body)
                    _check_ack(await line.read(), chunk)
        except ForwardRefusedError as error:
            return _failed(line, AnswerKind.PARK, str(error))
        except ssl.SSLCertVerificationError as error:
            return _failed(line, AnswerKind.PARK, f"certificate of {self._address[0]}: {error.verify_message}")
        except TimeoutError:
            return _failed(line, AnswerKind.RETRY, f"no ack within {self._timeout_s:g} s")
        except (OSError, DestinationUnavailableError) as error:
            return _failed(line, AnswerKind.RETRY, f"{type(error).__name__}: {error}")
        except BaseException:
            _failed(line, AnswerKind.RETRY, "")
            raise
        self._kept.append(line)
        return Answer(AnswerKind.DELIVERED, where=where)

    def _kept_line(self) -> _Line | None:
        """A connection that is open already, and has not been closed from the other side."""
        while self._kept:
            line = self._kept.pop()
            if line.is_open:
                return line
            line.close()
        return None

    async def _connect(self) -> _Line:
        """A connection that is let in. It is closed when that fails."""
        host = self._address[0]
        reader, writer = await asyncio.open_connection(
            *self._address, ssl=self._context, server_hostname=host if self._context else None
        )
        line = _Line(reader, writer)
        try:
            if self._login is not None:
                await self._shake_hands(line, self._login)
        except BaseException:
            line.close()
            raise
        return line

    async def _shake_hands(self, line: _Line, login: Login) -> None:
        helo, salt = await line.read(), secrets.token_bytes(_SALT_BYTES)
        if not is_helo(helo):
            raise DestinationUnavailableError("the server does not begin with HELO")
        await line.write(make_ping(helo, login, salt))
        check_pong(await line.read(), helo, login, salt)


class _Line:
    """One connection, as messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        # raw: salts and nonces are bytes that some servers write as text
        self._unpacker = msgpack.Unpacker(raw=True, max_buffer_size=_MESSAGE_MAX)

    @property
    def is_open(self) -> bool:
        return not self._reader.at_eof() and not self._writer.is_closing()

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read(self) -> Any:
        """The next message. Raises DestinationUnavailableError when there is none, or no msgpack."""
        while True:
            try:
                return self._unpacker.unpack()
            except msgpack.OutOfData:
                data = await self._reader.read(_MESSAGE_MAX // 2)
            except (ValueError, msgpack.UnpackException) as error:
                raise DestinationUnavailableError(f"the other side does not speak the forward protocol: {error}") from error
            if not data:
                raise DestinationUnavailableError("the other side closed the connection")
            try:
                self._unpacker.feed(data)
            except msgpack.BufferFull as error:
                raise DestinationUnavailableError("the other side's message is too long") from error

    def close(self) -> None:
        self._writer.close()


def _check_ack(message: Any, chunk: str) -> None:
    if is_helo(message):
        raise ForwardRefusedError("the server asks for a shared key", hint="Set shared_key")
    if acknowledged(message) != chunk:
        raise DestinationUnavailableError(f"an answer that is no ack of {chunk}")


def _failed(line: _Line | None, kind: AnswerKind, reason: str) -> Answer:
    if line is not None:
        line.close()
    return Answer(kind, reason=reason)
