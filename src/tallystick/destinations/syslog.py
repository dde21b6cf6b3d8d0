"""Destination `syslog`: messages over TCP or TLS, framed by octet counting (RFC 6587, RFC 5425) or line feeds. Best effort.

Syslog acknowledges nothing: a write that succeeded has only reached our own kernel. What can be known is found out, once a cut:

1. connect, for this cut alone; write all of it.
2. has the other side closed meanwhile? Then it may not have read all: retry.
3. end our direction (TLS: close_notify, then FIN) and wait until the other side ends its own. A server reads to our end before it
   closes. One that closes with bytes unread resets the connection instead, or leaves bytes unacknowledged: retry.

So a delivered cut was read by the other side's process, or by a proxy before it. What it then does is not known: what lies in its memory
or queue when it ends is lost, and nobody tells us. With ``confirm = false``, for servers that do not close, the connection stays
open and a cut counts as delivered once it is in our kernel; what lies in either kernel when the connection breaks is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import ssl
import struct
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta, field

from tallystick.config import DestinationSettings, Duration, Size
from tallystick.destinations.encodings import EncodingSettings
from tallystick.destinations.encodings.syslog_frames import SyslogFrames
from tallystick.errors import ConfigError, DestinationUnavailableError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut
from tallystick.sources.remote import RemoteTlsSettings, check_tls, client_context, require_safe, rooted_tls


class SyslogSettings(EncodingSettings, frozen=True, kw_only=True):
    """`type = "syslog"`"""

    host: Annotated[str, Meta(description="Host or address.", min_length=1)]
    port: Annotated[Annotated[int, Meta(ge=1, le=65_535)] | None, Meta(description="Port; 6514 with TLS, else 514.")] = None
    encoding: Annotated[
        str, Meta(description="Form of the events: a name out of docs/encodings.md; others than `rfc5424` get a head.")
    ] = "rfc5424"
    framing: Annotated[
        Literal["octet-counting", "lf"], Meta(description="Length before each message, or a line feed behind it.")
    ] = "octet-counting"
    message_max: Annotated[
        Size, Meta(description="Largest message in bytes that the receiver takes whole; a larger event is dead-lettered.")
    ] = field(default_factory=lambda: Size("8KiB"))
    confirm: Annotated[
        bool, Meta(description="One connection a cut, delivered when the other side has read to its end and closed.")
    ] = True
    tls: Annotated[RemoteTlsSettings | None, Meta(description="TLS; `{}` with the system's CA certificates.")] = None
    insecure: Annotated[bool, Meta(description="Allow a connection in the clear to another machine.")] = False
    timeout: Annotated[Duration, Meta(description="Longest silence of the other side.")] = field(
        default_factory=lambda: Duration("30s")
    )

    def rooted(self, base_dir: Path) -> SyslogSettings:
        return msgspec.structs.replace(self, tls=rooted_tls(self.tls, base_dir))

    def check(self) -> None:
        require_safe(self.host, is_encrypted=self.tls is not None, insecure=self.insecure, place="host")
        check_tls(self.tls, Path())
        if self.message_max.bytes < 480:
            raise ConfigError("message_max: every receiver takes 480 bytes", hint="RFC 5424 6.1")


class SyslogDestination:
    """Messages at one server."""

    settings: ClassVar[type[DestinationSettings]] = SyslogSettings
    guarantee: ClassVar[str] = "best effort"
    window: ClassVar[int] = 4
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=1_000, max_bytes=1 << 20, max_age_s=1.0)
    answers: ClassVar[dict[str, str]] = {
        "read to the end and closed by the other side": "delivered",
        "closed or reset before its end, no end within timeout": "retry: the cut is sent again from its beginning",
        "with confirm = false: written to the kernel": "delivered",
        "an event over message_max, before anything is sent": "that event is dead-lettered as too_large, the others are sent",
        "certificate not trusted": "park",
        "no connection, connection lost, DNS or another TLS failure": "retry",
    }

    def __init__(self, name: str, settings: SyslogSettings) -> None:
        self.name = name
        self.encoder = SyslogFrames(settings.make_events(), is_counted=settings.framing == "octet-counting")
        self._address = (settings.host, settings.port or (514 if settings.tls is None else 6514))
        self._context = None if settings.tls is None else client_context(settings.tls, Path())
        self._timeout_s = settings.timeout.seconds
        self._message_max = settings.message_max.bytes
        self._is_confirmed = settings.confirm
        self._threads = ThreadPoolExecutor(self.window, thread_name_prefix=f"syslog-{name}")
        self._kept: list[socket.socket] = []

    def place(self, cut: Cut) -> str:
        return ""

    async def find(self, place: str, sha256: str) -> bool | None:
        return None

    async def send(self, cut: Cut) -> Answer:
        body, refused = self._fitting(cut)
        where = f"syslog:{self._address[0]}:{self._address[1]} {cut.handle}-{cut.name}"
        if len(refused) == len(cut.lines):
            return Answer(AnswerKind.REFUSED, reason="too_large", where=where, reply=refused[0])
        answer = await self._attempt(body)
        if answer.kind is AnswerKind.DELIVERED:
            return Answer(answer.kind, where=where, refused=refused, reason="too_large" if refused else "")
        return answer

    async def probe(self) -> Answer:
        """A connection, with its handshake, on which nothing is sent."""
        return await self._attempt(b"")

    async def close(self) -> None:
        for sock in self._kept:
            sock.close()
        self._kept.clear()
        self._threads.shutdown(wait=False)

    def _fitting(self, cut: Cut) -> tuple[bytes, dict[int, str]]:
        """The frames of events that the receiver takes whole, and what is said of the others."""
        messages = self.encoder.split(cut.body)
        large = {
            at: f"{len(message)} bytes, over message_max" for at, message in enumerate(messages) if len(message) > self._message_max
        }
        if not large:
            return cut.body, {}
        return self.encoder.frame([message for at, message in enumerate(messages) if at not in large]), large

    async def _attempt(self, body: bytes) -> Answer:
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._deliver, body)
        except ssl.SSLCertVerificationError as error:
            return Answer(AnswerKind.PARK, reason=f"certificate of {self._address[0]}: {error.verify_message}")
        except (OSError, DestinationUnavailableError) as error:
            return Answer(AnswerKind.RETRY, reason=f"{type(error).__name__}: {error}")
        return Answer(AnswerKind.DELIVERED)

    def _deliver(self, body: bytes) -> None:
        """Blocking. Raises OSError (ssl's errors are), or DestinationUnavailableError."""
        if self._is_confirmed:
            with contextlib.closing(self._connect()) as sock:
                sock.sendall(body)
                confirm_end(sock)
            return
        with self._kept_connection() as sock:
            if _is_ended(sock):
                raise DestinationUnavailableError("the other side closed the connection")
            sock.sendall(body)

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(self._address, timeout=self._timeout_s)
        if self._context is None:
            return sock
        try:
            return self._context.wrap_socket(sock, server_hostname=self._address[0])
        except BaseException:
            sock.close()
            raise

    @contextlib.contextmanager
    def _kept_connection(self) -> Iterator[socket.socket]:
        """One that is open already, if there is; kept for the next cut unless it failed."""
        sock = self._kept.pop() if self._kept else self._connect()
        try:
            yield sock
        except BaseException:
            sock.close()
            raise
        self._kept.append(sock)


def confirm_end(sock: socket.socket) -> None:
    """End our direction and wait for the other's end (steps 2 and 3). Raises OSError or DestinationUnavailableError.

    On Linux a process that closes a connection with bytes unread resets it; bytes that come after its close are answered by a reset
    as well. So an end that comes after ours, with all of our bytes acknowledged, means that they were read.
    """
    if _is_ended(sock):
        raise DestinationUnavailableError("the other side closed before it had read all")
    if isinstance(sock, ssl.SSLSocket):
        try:
            sock.unwrap()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError):
            pass  # it closed after our close_notify without one of its own, which TLS 1.3 allows and many do
    with contextlib.suppress(OSError):  # ended on both sides already
        sock.shutdown(socket.SHUT_WR)
    raw = socket.socket(fileno=sock.fileno())
    try:
        raw.settimeout(sock.gettimeout())
        while raw.recv(4_096):
            pass  # what a syslog server says is not for us
        if _unacknowledged(raw):
            raise DestinationUnavailableError("the other side closed before all bytes had reached it")
    finally:
        raw.detach()


def _is_ended(sock: socket.socket) -> bool:
    """Whether the other side has ended its direction already."""
    raw = socket.socket(fileno=sock.fileno())
    try:
        return raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    finally:
        raw.detach()


def _unacknowledged(sock: socket.socket) -> int:
    """Bytes that the other side's kernel has not acknowledged (SIOCOUTQ, which has the number of TIOCOUTQ)."""
    found: int = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    return found
