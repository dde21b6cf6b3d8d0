"""Source type `syslog`: RFC 5424 and RFC 3164 over UDP, TCP and TLS.

    socket ──frames──► feed ──batches──► parse, make events ──► intake

Plain syslog has no acknowledgement: a sender takes what the kernel accepted for delivered. So this source reads only while there
is room to keep what it reads (`feed`), and what is lost all the same (datagrams that the kernel dropped, numbers that did not
come) goes on record as a gap. Who sends is told by the connection: client certificate or address, never by the hostname in a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import UNSET, Meta, Raw, field

from tallystick.config import Duration, Size
from tallystick.errors import ConfigError
from tallystick.event import Actor, Context, Event, Ingest
from tallystick.plugin import Carrier, Decoded, Fault, Intake, Record, Sender, SourceContext
from tallystick.protocols.sequence import SequenceTracker
from tallystick.protocols.syslog import SyslogMessage, parse
from tallystick.protocols.syslog_batch import ParsedBatch, parse_batch
from tallystick.protocols.syslog_frames import Framing, SyslogFramer
from tallystick.protocols.syslog_time import SyslogClock
from tallystick.sources.datagrams import Datagrams
from tallystick.sources.feed import Feed, Piece, pieces_of
from tallystick.sources.gaps import GapLog
from tallystick.sources.kind import NATIVE, SourceKind
from tallystick.sources.listener import Connection, Listener, ListenSettings
from tallystick.transforms import MapOptions, MapResult, find_mapping
from tallystick.transforms.map_record import RAW_BYTES_MAX

MAPPING = "syslog"
ACTION = "syslog.record"
UNTERMINATED = "syslog_unterminated"
TEXT_REPLACED = "text_replaced"
RAW_OMITTED = "raw_omitted"
TOO_LARGE = "record_too_large"

_encode = msgspec.json.Encoder().encode
_decode_raws = msgspec.json.Decoder(list[Raw]).decode
_Cut = tuple[Literal["cut"], int]


class SyslogSettings(ListenSettings, frozen=True, kw_only=True):
    """`[sources.NAME]` with `type = "syslog"`."""

    mapping: Annotated[
        str,
        Meta(description="`syslog` keeps what a message says; another mapping reads the message's text, without its header."),
    ] = MAPPING
    transport: Annotated[
        tuple[Literal["tcp", "udp"], ...],
        Meta(description="What to listen for. With `tls`, TCP is TLS; UDP never is.", min_length=1),
    ] = ("tcp", "udp")
    framing: Annotated[
        Framing, Meta(description="How messages over TCP and TLS end; `auto` tells from the first bytes of a connection.")
    ] = "auto"
    record: Annotated[Size, Meta(description="One message; of a longer one so much is kept, in the quarantine.")] = field(
        default_factory=lambda: Size("64KiB")
    )
    timezone: Annotated[
        str | None, Meta(description="Zone of times without one, as in `Europe/Berlin`; absent: UTC, and the event is flagged.")
    ] = None
    receive_buffer: Annotated[Size, Meta(description="The kernel's buffer for datagrams that wait to be read.")] = field(
        default_factory=lambda: Size("4MiB")
    )
    sequence: Annotated[bool, Meta(description="Record gaps in the `sequenceId` of RFC 5424 messages.")] = True
    sequence_patience: Annotated[Duration, Meta(description="How long a missing `sequenceId` may still come late.")] = field(
        default_factory=lambda: Duration("5s")
    )

    def check(self, base_dir: Path) -> None:
        """Raises ConfigError."""
        super().check(base_dir)
        self.zone()
        if not 480 <= self.record.bytes <= 2**20:
            raise ConfigError(f"record = {self.record.text!r} is not between 480B and 1MiB", place="record")

    def zone(self) -> tzinfo | None:
        """The zone of times without one. Raises ConfigError."""
        if self.timezone is None:
            return None
        try:
            return ZoneInfo(self.timezone)
        except (LookupError, OSError, ValueError) as error:
            raise ConfigError(f"there is no time zone {self.timezone!r}", place="timezone") from error

    @property
    def is_encrypted(self) -> bool:
        return self.tls is not None and "udp" not in self.transport


class SyslogDecoder:
    """Messages in, events out. Used by one commit at a time of each sender, perhaps in threads: it keeps nothing but its clock."""

    def __init__(self, settings: SyslogSettings) -> None:
        self._keep_raw = settings.keep_raw
        self._zone = settings.zone()
        self._watches_sequence = settings.sequence

    def decode(self, pieces: Sequence[Piece], numbers: list[tuple[str, int]]) -> Decoded:
        """The events of a batch; ``numbers`` gets (producer, sequenceId) of the messages that have one."""
        clock = SyslogClock(self._zone)
        clock.set_now(datetime.now(UTC))
        decoded = Decoded()
        records, peers, unterminated = decoded.contents, list[str](), list[int]()
        line = 0
        for piece in pieces:
            if type(piece.origin) is tuple:
                line += 1
                decoded.faults.append(_too_large(line, piece))
                continue
            if piece.origin == UNTERMINATED:
                unterminated += range(len(records), len(records) + len(piece.records))
            line += len(piece.records)
            records += piece.records
            peers += piece.origin if type(piece.origin) is list else [piece.peer] * len(piece.records)
        texts, replaced = _texts_of(records)
        batch = parse_batch(texts, clock)
        decoded.lines = list(range(1, line + 1)) if not decoded.faults else _lines_without(line, decoded.faults)
        decoded.events = _events_of(batch, peers)
        if self._watches_sequence:
            _note_numbers(batch.messages, peers, numbers)
        flags = {place: list(found) for place, found in batch.flags.items()}
        if self._keep_raw:
            _keep_raw(decoded, texts, flags)
        for place in replaced:
            flags.setdefault(place, []).append(TEXT_REPLACED)
        for place in unterminated:
            flags.setdefault(place, []).append(UNTERMINATED)
        for place, found in flags.items():
            decoded.events[place].ingest = Ingest(flags=found)
        return decoded


def _texts_of(records: Sequence[bytes]) -> tuple[list[str], list[int]]:
    """The records without what ends them, as text, and the places of those that are not quite what was sent."""
    joined = b"".join(records)
    try:
        texts = [record.decode() for record in records]
    except UnicodeDecodeError:
        texts = [record.decode("utf-8", "replace") for record in records]
        replaced = {place for place, (text, record) in enumerate(zip(texts, records, strict=True)) if text.encode() != record}
    else:
        replaced = set()
    if any(end in joined for end in (b"\n", b"\r", b"\0")):
        texts = [text.rstrip("\n\r\0") for text in texts]
        replaced |= {place for place, text in enumerate(texts) if "\0" in text}
        texts = [text.replace("\0", "\ufffd") for text in texts]
    return texts, sorted(replaced)


def _events_of(batch: ParsedBatch, peers: Sequence[str]) -> list[Event]:
    return [
        Event(
            action=ACTION,
            actor=Actor(type="system", id=message.hostname or peer or "unknown"),
            context=Context(ip=peer) if peer else UNSET,
            occurred_at=UNSET if moment is None else moment,
            severity=UNSET if severity is None else severity,
            metadata=metadata,
        )
        for message, moment, severity, peer, metadata in zip(
            batch.messages, batch.moments, batch.severities, peers, _decode_raws(_encode(batch.messages)), strict=True
        )
    ]


def _keep_raw(decoded: Decoded, texts: Sequence[str], flags: dict[int, list[str]]) -> None:
    """Each message as it was, unless that is too long for a second copy."""
    for place, (event, record, text) in enumerate(zip(decoded.events, decoded.contents, texts, strict=True)):
        if len(record) <= RAW_BYTES_MAX:
            event.raw = text
        else:
            flags.setdefault(place, []).append(RAW_OMITTED)


def _too_large(line: int, piece: Piece) -> Fault:
    kept = len(piece.records[0])
    return Fault(line, TOO_LARGE, f"the message has {piece.origin[1]} bytes; the first {kept} are kept", piece.records[0])


def _lines_without(count: int, faults: Sequence[Fault]) -> list[int]:
    bad = {fault.line for fault in faults}
    return [line for line in range(1, count + 1) if line not in bad]


def _note_numbers(messages: Sequence[SyslogMessage], peers: Sequence[str], numbers: list[tuple[str, int]]) -> None:
    for message, peer in zip(messages, peers, strict=True):
        data = message.structured_data
        if data is None or "meta" not in data:
            continue
        number = data["meta"].get("sequenceId")
        if type(number) is str and number.isascii() and number.isdigit() and len(number) <= 10:
            numbers.append((f"{peer} {message.hostname}", int(number)))


class SyslogConnection(Connection):
    """One TCP or TLS connection."""

    def __init__(self, settings: SyslogSettings, listener: Listener, address: str) -> None:
        super().__init__(listener, address)
        self._framer = SyslogFramer(settings.record.bytes, settings.framing)

    def received(self, data: bytes) -> None:
        """Messages go to the feed; a count that is none ends the connection."""
        self._hand_over(self._framer.feed(data), None)
        if self._framer.failure:
            self.refuse(self._framer.failure)

    def ended(self) -> None:
        """What the stream ended in the middle of is kept, with a flag."""
        rest = self._framer.end()
        self._hand_over([rest] if rest else [], UNTERMINATED)

    def _hand_over(self, records: list[bytes], origin: Any) -> None:
        pieces = [*pieces_of(records, self.holder, self.peer, origin)] if records else []
        if self._framer.cut:
            for cut in self._framer.cut:
                pieces += pieces_of([cut.head], self.holder, self.peer, ("cut", cut.size))
            self._framer.cut.clear()
        for piece in pieces:
            self.listener.feed.add(piece, self.sender, self)


class SyslogSource:
    """See `plugin.Source`."""

    guarantee: ClassVar[str] = "best effort"
    acknowledges: ClassVar[str] = (
        "Syslog has no acknowledgement. Over TCP and TLS reading stops while the journal is behind; kernel drops of datagrams and "
        "missing sequenceIds are on record as gaps."
    )

    def __init__(self, settings: SyslogSettings, context: SourceContext) -> None:
        self._settings = settings
        self._context = context
        self._decoder = SyslogDecoder(settings)
        self._clock = SyslogClock(settings.zone())
        self._tracker = SequenceTracker(settings.sequence_patience.seconds)
        self._hands_over_headers = (
            settings.mapping not in (MAPPING, NATIVE) and find_mapping(settings.mapping, context.base_dir).takes_syslog_header
        )
        self._feed: Feed | None = None
        self._listener: Listener | None = None
        self._datagrams: Datagrams | None = None
        self._gaps: GapLog | None = None

    async def run(self, intake: Intake, stop: asyncio.Event) -> None:
        """See `plugin.Source`."""
        settings, name = self._settings, self._context.name
        commit = partial(self._commit_own if settings.mapping == MAPPING else self._commit_text, intake)
        feed = self._feed = Feed(name, intake, commit, settings.waiting.bytes, settings.batch.bytes)
        watcher: asyncio.Task[None] | None = None
        try:
            if "tcp" in settings.transport:
                make = partial(SyslogConnection, settings)
                self._listener = Listener(name, settings, self._context.base_dir, feed, make)
            if "udp" in settings.transport:
                self._datagrams = Datagrams(name, settings.listen, feed, settings.receive_buffer.bytes)
            self._gaps = GapLog(intake, self._tracker, self._dropped, settings.listen)
            watcher = asyncio.create_task(self._gaps.run())
            await feed.run(stop)
            await self._finish(feed, self._gaps, watcher)
        finally:
            if watcher is not None:
                watcher.cancel()
            if self._listener is not None:
                await self._listener.close()
            if self._datagrams is not None:
                self._datagrams.close()
            await feed.close()

    def status(self) -> dict[str, Any]:
        """See `plugin.Source`."""
        page: dict[str, Any] = {"guarantee": self.guarantee, "reason": ""}
        if self._listener is not None:
            page |= self._listener.status()
        if self._datagrams is not None:
            page |= {"listen_udp": "{}:{}".format(*self._datagrams.address), "datagrams_dropped": self._datagrams.dropped}
        if self._feed is not None:
            page |= {"waiting_bytes": self._feed.waiting_bytes, "paused": self._feed.paused}
        if self._gaps is not None:
            page |= {"producers": len(self._tracker), "sequence_repeats": self._tracker.repeats, "gaps": self._gaps.recorded}
        return page

    async def _finish(self, feed: Feed, gaps: GapLog, watcher: asyncio.Task[None]) -> None:
        """The stop: nothing new, then what is held, then what is known to be missing."""
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        if self._listener is not None:
            self._listener.stop_accepting()
            self._listener.end_reading()
        if self._datagrams is not None:
            self._datagrams.close()
        await feed.flush()
        await gaps.record()

    def _dropped(self) -> int:
        if self._datagrams is None:
            return 0
        self._datagrams.look()
        return self._datagrams.dropped

    async def _commit_own(self, intake: Intake, pieces: list[Piece], size: int, sender: Sender | None) -> None:
        numbers: list[tuple[str, int]] = []
        await intake.commit_decoded(partial(self._decoder.decode, pieces, numbers), size, sender, pieces[0].peer)
        now = time.monotonic()
        for producer, number in numbers:
            self._tracker.note(producer, number, now)

    async def _commit_text(self, intake: Intake, pieces: list[Piece], size: int, sender: Sender | None) -> None:
        """For another mapping: it gets the message's text, or the whole record where none can be told or the mapping reads headers."""
        records: list[Record] = []
        for piece in pieces:
            for place, record in enumerate(piece.records):
                peer = piece.origin[place] if type(piece.origin) is list else piece.peer
                if not self._hands_over_headers:
                    record = parse(record.decode("utf-8", "replace"), self._clock).message.message.encode()
                records.append(Record(record, len(records) + 1, peer))
        await intake.commit_records(records, sender)


class SyslogMapping:
    """The same for records one by one, as they come back from the quarantine. See `transforms.RecordMapping`."""

    name = MAPPING

    def __init__(self, settings: SyslogSettings) -> None:
        self._decoder = SyslogDecoder(settings)

    def map_batch(
        self, records: Sequence[bytes], carriers: Sequence[Carrier] | None = None, options: MapOptions | None = None
    ) -> MapResult:
        """One event for each record."""
        peers = [carrier.peer for carrier in carriers] if carriers is not None else [""] * len(records)
        decoded = self._decoder.decode([Piece(list(records), 0, origin=peers)], [])
        return MapResult(decoded.events, decoded.contents, list(range(len(records))))


KIND = SourceKind(
    SyslogSettings,
    lambda plan: f"source of type syslog at {getattr(plan.settings, 'listen', '')}",
    source=SyslogSource,
    mappings=(NATIVE,),
    own_mapping=lambda _config, settings: SyslogMapping(settings),
)
