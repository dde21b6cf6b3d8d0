"""The follower that watches producers' numbers: what is in the journal, in its order, is all that it knows.

One round

1. reads on; notes the number of each event that has one, of those that a filter took away, and of those in the quarantine (as far as
   the record as it was sent is an event in JSON). Records that were sent in again out of the quarantine were noted when they came first;
2. decides what has waited for the patience: by the clock of the journal while there is more to read, by the wall clock at its end;
3. saves position and state in one file (`journal.cursor`), now when something was decided, otherwise every `_SAVE_S`;
4. hands over what is owed to the accounts, and forgets it only then.

The intake does nothing for it, whatever the number of its workers, and a frame without `"producer":` in it costs one search in its text.
A crash at any step goes back to the last saved state and reads the same frames again; entries that were handed over already
have the same ids and are stored once. So no crash hides a gap or invents one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from tallystick.config import CompletenessSettings
from tallystick.delivery.inner_door import Door, Entry
from tallystick.errors import PushbackError, TerminalError, TransientError
from tallystick.event.model import Ingest, Producer, Source
from tallystick.event.stamp import REPLAYED
from tallystick.journal.cursor import Cursor
from tallystick.journal.entries import FilterCount, QuarantinedRecord
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry
from tallystick.sources.producer_metrics import producer_metrics
from tallystick.sources.producers import LedgerState, ProducerKey, ProducerLedger, Seen
from tallystick.telemetry import log, publish_status

ROLE: Final = "producers"

_MEMBER = b'"producer":'
_READ_BYTES = 1 << 20
_OWED_MAX = 1_000
_SAVE_S = 5.0
_STATUS_S = 1.0
_WAIT_S = 0.5


class _Line(msgspec.Struct):
    received_at: str
    source: Source
    producer: Producer | UnsetType = UNSET
    ingest: Ingest | UnsetType = UNSET


class _Sent(msgspec.Struct):
    producer: Producer | UnsetType = UNSET


_line = msgspec.json.Decoder(_Line)
_sent = msgspec.json.Decoder(_Sent)


class ProducerFollower:
    """One per data directory. ``run``, or ``step`` by hand."""

    def __init__(
        self,
        data_dir: Path,
        settings: CompletenessSettings,
        journal: JournalReader,
        door: Door,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = ProducerLedger(settings.producers, settings.patience.seconds)
        self._data_dir = data_dir
        self._settings = settings
        self._journal = journal
        self._door = door
        self._clock = clock
        self._tenants = TenantRegistry(data_dir)
        self._cursor = Cursor(data_dir, ROLE)
        self._position = self._cursor.load() or journal.oldest()
        if "ledger" in self._cursor.extra:
            self.ledger.restore(msgspec.convert(self._cursor.extra["ledger"], LedgerState))
        if self._cursor.is_damaged:
            log.error("cursor_damaged", role=ROLE, resumes_at=self._position.seq)
        self._reached = 0.0  # when the last entry that was read was received
        self._is_dirty = True  # a first cursor is saved at once: without one the journal keeps everything
        self._saved_at = self._published_at = -_SAVE_S
        self._reason = ""

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set. Raises TransientError and OSError; then begin anew."""
        try:
            while not stop.is_set():
                if not self.step():
                    stop.wait(_WAIT_S)
        finally:
            self._save_if(is_due=True)

    def step(self) -> bool:
        """One round; False at the journal's end. An account that takes nothing now is asked again in the next round."""
        is_moving = len(self.ledger.owed) < _OWED_MAX and self._read()
        is_decided = self.ledger.due(self._reached if is_moving else self._clock())
        self._is_dirty = self._is_dirty or is_decided
        # A crash before this: the frames since the last state are read again. After it: what is owed is handed over again.
        self._save_if(is_due=is_decided or time.monotonic() - self._saved_at >= _SAVE_S)
        self._hand_over()
        self._publish_if_due()
        return is_moving

    def _read(self) -> bool:
        items, position = self._journal.read(self._position, _READ_BYTES)
        for item in items:
            if isinstance(item, Frame):
                self._take(item)
        is_moving = position != self._position
        self._position = position
        self._is_dirty = self._is_dirty or is_moving
        return is_moving

    def _take(self, frame: Frame) -> None:
        if frame.type == FrameType.EVENTS:
            text = frame.text()
            if _MEMBER in text:
                self._take_lines(frame, text)
        elif frame.type == FrameType.FILTERED:
            for seq, record in enumerate(frame.records(), frame.first_seq):
                self._take_filtered(frame.handle, seq, msgspec.json.decode(record, type=FilterCount))
        elif frame.type == FrameType.QUARANTINED:
            for seq, record in enumerate(frame.records(), frame.first_seq):
                self._take_quarantined(frame.handle, seq, msgspec.json.decode(record, type=QuarantinedRecord))

    def _take_lines(self, frame: Frame, text: bytes) -> None:
        for seq, line in enumerate(text.split(b"\n"), frame.first_seq):
            if _MEMBER not in line:
                continue
            event = _line.decode(line)
            producer, source = event.producer, event.source
            if producer is UNSET or _is_replay(event):
                continue
            credential = source.credential if source.credential is not UNSET else ""
            self._note(frame.handle, credential, producer, Seen(seq, _seconds(event.received_at), source.name))

    def _take_filtered(self, handle: str, seq: int, record: FilterCount) -> None:
        for item in record.producers:
            seen = Seen(seq, _seconds(record.received_at), record.source)
            for first, last in item.ranges:
                for number in range(first, last + 1):
                    self._note(handle, item.credential, Producer(id=item.id, epoch=item.epoch, seq=number), seen)

    def _take_quarantined(self, handle: str, seq: int, record: QuarantinedRecord) -> None:
        if _MEMBER[:-1] not in record.data:
            return
        try:
            producer = _sent.decode(record.data).producer
        except (msgspec.MsgspecError, ValueError):
            return  # nothing in it can be believed
        if producer is not UNSET:
            self._note(handle, record.credential, producer, Seen(seq, _seconds(record.received_at), record.source))

    def _note(self, handle: str, credential: str, producer: Producer, seen: Seen) -> None:
        self._reached = max(self._reached, seen.at)
        self.ledger.note(ProducerKey(handle, credential, producer.id), producer.epoch, producer.seq, seen)

    def _save_if(self, *, is_due: bool) -> None:
        if is_due and self._is_dirty:
            self._cursor.save(self._position, {"ledger": msgspec.to_builtins(self.ledger.state())})
            self._is_dirty, self._saved_at = False, time.monotonic()

    def _hand_over(self) -> None:
        owed = self.ledger.owed[:100]
        if not owed:
            return
        entries = [Entry(self._name(item.handle), item.id, item.entry) for item in owed]
        try:
            asyncio.run(self._door.post(entries))
        except (PushbackError, TransientError) as error:
            self._reason = str(error)
            return
        except TerminalError as error:
            # Not to be expected: these are our own entries. Kept and shown rather than dropped.
            self._reason = str(error)
            log.error("gap_entries_refused", error=str(error))
            return
        self._reason = ""
        for item in owed:
            producer_metrics().found.labels(str(item.entry["reason"])).inc(int(item.entry["count"]))
        self.ledger.settled(len(owed))
        self._is_dirty = True

    def _name(self, handle: str) -> str:
        tenant = self._tenants.by_handle(handle)
        if tenant is None:
            self._tenants.reload()
            tenant = self._tenants.by_handle(handle)
        if tenant is None:
            raise TransientError(f"the tenant {handle} is in the journal and not yet in the register")
        return tenant.name

    def status(self) -> dict[str, Any]:
        """The role's page. ``found``: counts by tenant and reason since the installation began; ``recent``: the last entries."""
        ledger = self.ledger
        return {
            "reason": self._reason,
            "watched": len(ledger),
            "watched_max": self._settings.producers,
            "forgotten": ledger.forgotten,
            "owed": len(ledger.owed),
            "found": {self._name(handle): counts for handle, counts in ledger.totals.items()},
            "recent": [{"tenant": self._name(item.handle), **item.entry} for item in ledger.recent],
        }

    def _publish_if_due(self) -> None:
        if time.monotonic() - self._published_at >= _STATUS_S:
            self._published_at = time.monotonic()
            producer_metrics().watched.set(len(self.ledger))
            publish_status(self._data_dir, ROLE, self.status())


def _is_replay(event: _Line) -> bool:
    return event.ingest is not UNSET and event.ingest.flags is not UNSET and REPLAYED in event.ingest.flags


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
