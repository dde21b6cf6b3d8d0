"""Destination `nats`: messages in a JetStream stream, each with a name of its own, read back when an outcome is not known; exactly once.

    connect ──► read back what lies behind the cut settled last ──► cut ──► cut ──► …
       ▲                                                             │
       └─────── any error: what became of the messages is not known ◄┘

How exactly-once works: two nets, one for each side of time.

1. A message's name (`Nats-Msg-Id`) is `<tenant handle>:<index>`, the same for every attempt. Within its duplicate window the stream takes a name once. So
   what an attempt that has ended still has on its way, in some buffer, does no harm.
2. That window may have passed when the next attempt comes, after a long outage or a stop. So every connection begins with reading the
   stream's end back, from the sequence of the cut that was settled last (`Cut.after`), or without one, from the day before the first event
   came. Messages found there are not sent again.

A cut is done when each of its messages was acknowledged, or found. The messages of one cut are sent one behind the other without waiting. If the
server refuses one of them and takes a later one, the missing one comes with the next attempt, behind it.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import nats.errors
import nats.js.errors
from msgspec import Meta, field
from nats.aio.client import Client

from tallystick.config import DestinationSettings, Duration
from tallystick.destinations.encodings import EncodingSettings, records_of
from tallystick.destinations.nats_acks import Ack, AckError, Publisher
from tallystick.destinations.nats_end import MESSAGE_ID, StreamUnfitError, check_stream, find_messages
from tallystick.destinations.received import first_received
from tallystick.errors import ConfigError, DestinationUnavailableError, TallystickError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut
from tallystick.sources.nats_login import check_login, connect
from tallystick.sources.remote import RemoteTlsSettings, rooted_tls
from tallystick.telemetry import log

_BLOCK = 500
"""Messages on their way at once."""
_MARGIN = timedelta(days=1)
_HEADERS_ROOM = 512
"""Bytes for the names of the headers and their short values."""
_WHERE = re.compile(r"nats:(?P<stream>[^#]*)#(?P<first>\d+)-(?P<last>\d+)")
_PLACE = re.compile(
    r"nats:(?P<stream>[^#]*)#(?P<handle>\w+):(?P<first>\d+)-(?P<last>\d+)#count=(?P<count>\d+)#received=(?P<received>.*)"
)
_REFUSAL = re.compile(r"authorization|authentication|permissions violation|invalid user credentials", re.IGNORECASE)
_TOO_LARGE = {10054}
"""JetStream's error codes: message size exceeds maximum allowed."""
_PARKING = {10059, 10060, 10076, 10039}
"""Stream not found, expected another stream, JetStream not enabled, not enabled for the account."""


class NatsDestinationSettings(EncodingSettings, frozen=True, kw_only=True):
    """`type = "nats"`"""

    stream: Annotated[str, Meta(description="JetStream stream; it must be there.", pattern=r"\A[^\s.*>/\\]+\Z")]
    subject: Annotated[
        str, Meta(description="Subject of a message; `{tenant}` stands for the tenant.", pattern=r"\A[^\s*>.]+(\.[^\s*>.]+)*\Z")
    ] = "audit.{tenant}"
    servers: Annotated[tuple[str, ...], Meta(description="URLs, `nats://` or `tls://`, without credentials.", min_length=1)] = (
        "nats://127.0.0.1:4222",
    )
    domain: Annotated[str | None, Meta(description="JetStream domain.")] = None
    user: Annotated[str | None, Meta(description="User name.")] = None
    password: Annotated[str | None, Meta(description="Password of `user`.")] = None
    token: Annotated[str | None, Meta(description="Token, instead of a user.")] = None
    nkey: Annotated[str | None, Meta(description="NKey seed, instead of a user.")] = None
    credentials: Annotated[str | None, Meta(description="Path of a `.creds` file (JWT and seed), instead of a user.")] = None
    tls: Annotated[RemoteTlsSettings | None, Meta(description="TLS; `{}` with the system's CA certificates.")] = None
    insecure: Annotated[bool, Meta(description="Allow a connection in the clear to another machine.")] = False
    timeout: Annotated[
        Duration, Meta(description="Longest time for the acknowledgements of one cut, and for reading the stream's end back.")
    ] = field(default_factory=lambda: Duration("30s"))

    def rooted(self, base_dir: Path) -> NatsDestinationSettings:
        credentials = None if self.credentials is None else str(base_dir / self.credentials)
        return msgspec.structs.replace(self, tls=rooted_tls(self.tls, base_dir), credentials=credentials)

    def check(self) -> None:
        self.check_encoding()
        check_login(self, Path())
        if re.search(r"[{}]", self.subject.replace("{tenant}", "")):
            raise ConfigError("a subject knows only {tenant}", hint='As in subject = "audit.{tenant}"')
        if not 0.1 <= self.timeout.seconds <= 600:
            raise ConfigError("acknowledgements take up to ten minutes", hint='As in timeout = "30s"')


class RefusedError(TallystickError):
    """The server refuses a message for a reason that is not the message's."""

    code = "message_refused"

    def __init__(self, error: AckError) -> None:
        super().__init__(f"{error.err_code or error.code}: {error.description}")
        self.err_code = error.err_code


class NatsDestination:
    """One connection; cuts one after the other."""

    settings: ClassVar[type[DestinationSettings]] = NatsDestinationSettings
    guarantee: ClassVar[str] = "exactly once"
    window: ClassVar[int] = 1
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=2_000, max_bytes=4 << 20, max_age_s=0.1)
    answers: ClassVar[dict[str, str]] = {
        "acknowledged, also as duplicate": "delivered",
        "the end of the stream has the message": "delivered: an earlier attempt took effect",
        "10054, larger than the server's max_payload": "that event is dead-lettered as too_large, the others are delivered",
        "10039, 10059, 10060, 10076, no such stream or subject, window too short": "park",
        "login or permission refused": "park",
        "503, any other error, time-out, no connection, connection lost": "retry: connected anew, and the stream's end is read back",
    }

    def __init__(self, name: str, settings: NatsDestinationSettings) -> None:
        self.name = name
        self.encoder = settings.make_encoder()
        self._settings = settings
        self._prefix = f"$JS.{settings.domain}.API" if settings.domain else "$JS.API"
        self._connection: tuple[Client, Publisher] | None = None
        self._found: dict[str, int] = {}
        self._refusal = ""

    def place(self, cut: Cut) -> str:
        span = f"{cut.handle}:{cut.first_index}-{cut.last_index}"
        return f"nats:{self._settings.stream}#{span}#count={len(cut.indexes)}#received={first_received(cut).isoformat()}"

    async def find(self, place: str, sha256: str) -> bool | None:
        """Whether all messages of the cut are there; a cut anew keeps out those that are. Raises DestinationUnavailableError."""
        match = _PLACE.fullmatch(place)
        if match is None or match["stream"] != self._settings.stream:
            return None
        start = datetime.fromisoformat(match["received"]) - _MARGIN
        try:
            client = await connect(self._settings, self.name, Path(), self._on_error)
            try:
                found = await self._read_back(client, start)
            finally:
                await client.close()
        except (nats.errors.Error, nats.js.errors.Error, TallystickError, OSError, TimeoutError) as error:
            raise DestinationUnavailableError(str(error) or type(error).__name__) from error
        names = (f"{match['handle']}:{index}" for index in range(int(match["first"]), int(match["last"]) + 1))
        return sum(name in found for name in names) >= int(match["count"])

    async def send(self, cut: Cut) -> Answer:
        self._refusal = ""
        try:
            return await self._send(cut)
        except (nats.errors.Error, nats.js.errors.Error, TallystickError, OSError, TimeoutError) as error:
            await self.close()
            return answer_error(error, self._refusal)
        except BaseException:
            await self.close()  # cut short: what was on its way is not known
            raise

    async def probe(self) -> Answer:
        self._refusal = ""
        try:
            client = await connect(self._settings, self.name, Path(), self._on_error)
            try:
                await self._check(client)
            finally:
                await client.close()
        except (nats.errors.Error, nats.js.errors.Error, TallystickError, OSError, TimeoutError) as error:
            return answer_error(error, self._refusal)
        return Answer(AnswerKind.DELIVERED, where=f"nats:{self._settings.stream}")

    async def close(self) -> None:
        connection, self._connection, self._found = self._connection, None, {}
        if connection is not None:
            await connection[0].close()

    async def _send(self, cut: Cut) -> Answer:
        client, publisher = self._connection or await self._open(cut)
        names = [f"{cut.handle}:{index}" for index in cut.indexes]
        bodies = records_of(cut.body)
        places = {at: self._found.pop(name) for at, name in enumerate(names) if name in self._found}
        limit = client.max_payload - _headers_size(cut)
        refused = {
            at: f"larger than the server's max_payload: {len(body)} bytes" for at, body in enumerate(bodies) if len(body) > limit
        }
        missing = [at for at in range(len(names)) if at not in places and at not in refused]
        async with asyncio.timeout(self._settings.timeout.seconds):
            for begin in range(0, len(missing), _BLOCK):
                await self._publish(publisher, cut, missing[begin : begin + _BLOCK], names, bodies, places, refused)
        where = f"nats:{self._settings.stream}#{min(places.values())}-{max(places.values())}" if places else ""
        return Answer(AnswerKind.DELIVERED, reason="too_large" if refused else "", where=where, refused=refused)

    async def _open(self, cut: Cut) -> tuple[Client, Publisher]:
        """A new connection, and what lies at the end of the stream."""
        publisher = Publisher()
        client = await connect(self._settings, self.name, Path(), self._on_error, publisher.fail)
        try:
            await self._check(client)
            match = _WHERE.fullmatch(cut.after)
            is_ours = match is not None and match["stream"] == self._settings.stream
            start = int(match["last"]) + 1 if match is not None and is_ours else first_received(cut) - _MARGIN
            self._found = await self._read_back(client, start)
            await publisher.open(client)
        except BaseException:
            await client.close()
            raise
        self._connection = client, publisher  # only now: a connection that has not looked must not send
        return self._connection

    async def _read_back(self, client: Client, start: int | datetime) -> dict[str, int]:
        one = self._settings
        return await find_messages(client, self._prefix, one.stream, self._subject("*"), start, one.timeout.seconds)

    async def _check(self, client: Client) -> None:
        one = self._settings
        await check_stream(client, self._prefix, one.stream, self._subject("*"), one.timeout.seconds)

    async def _publish(
        self,
        publisher: Publisher,
        cut: Cut,
        positions: Sequence[int],
        names: Sequence[str],
        bodies: Sequence[bytes],
        places: dict[int, int],
        refused: dict[int, str],
    ) -> None:
        """Send these messages, wait for all their acknowledgements, and note them. Raises RefusedError for an error that is not about one event."""
        proof = {
            "Nats-Expected-Stream": self._settings.stream,
            "Tallystick-Log": cut.origin,
            "Tallystick-Range": f"{cut.first_index}-{cut.last_index}",
            "Tallystick-Checkpoint": _header(cut.checkpoint),
            "Content-Type": self.encoder.content_type,
        }
        subject = self._subject(cut.tenant)
        waiting = []
        for at in positions:
            headers = {MESSAGE_ID: names[at], "Tallystick-Index": str(cut.indexes[at]), **proof}
            waiting.append(await publisher.publish(subject, bodies[at], headers))
        acks = await self._acknowledged(waiting)
        for at, ack in zip(positions, acks, strict=True):
            if ack.error is None:
                places[at] = ack.seq
            elif ack.error.err_code in _TOO_LARGE:
                refused[at] = ack.error.description
            else:
                raise RefusedError(ack.error)

    async def _acknowledged(self, waiting: Sequence[asyncio.Future[Ack]]) -> list[Ack]:
        """A crash in here: some messages are in the stream, some are not; the next connection sees which."""
        return await asyncio.gather(*waiting)

    def _subject(self, tenant: str) -> str:
        return self._settings.subject.replace("{tenant}", tenant)

    async def _on_error(self, error: Exception) -> None:
        """What the server says beside its answers; a refused permission comes only here, and the message is never acknowledged."""
        text = str(error) or type(error).__name__
        if _REFUSAL.search(text):
            self._refusal = text
        log.warning("nats", destination=self.name, error=text)


def answer_error(error: BaseException, refusal: str) -> Answer:
    """Sort an error by the table above."""
    text = " ".join((str(error) or type(error).__name__).split())[:1000]
    is_parking = isinstance(error, StreamUnfitError) or getattr(error, "err_code", None) in _PARKING
    if refusal or is_parking or (not isinstance(error, DestinationUnavailableError) and _REFUSAL.search(text)):
        return Answer(AnswerKind.PARK, reason=refusal or text)
    return Answer(AnswerKind.RETRY, reason=text)


def _header(note: str) -> str:
    """A signed note as a header's value, which has no line feed: base64."""
    return base64.b64encode(note.encode()).decode()


def _headers_size(cut: Cut) -> int:
    """Bytes that a message's headers take at most; the server counts them too."""
    return len(_header(cut.checkpoint)) + len(cut.origin) + _HEADERS_ROOM
