"""The follower that judges rules: a thread of the archiver's process over the durable journal.

One round

1. reads on and gives each event to the engine; at the journal's end it asks what is due by the wall clock (a little late, so that an
   event that is being written is seen first), before that by the journal's own;
2. appends the alerts through the intake's inner door, and reads no further until all are durable;
3. saves position and state of all rules in one file (`journal.cursor`) every `_SAVE_S`.

A crash at any step goes back to the last saved state and judges the same events again. The alerts of these have the same ids and the
same content, and the intake stores a repeat once: each alert exactly once, and no setting or timing takes part in that. An alert whose
rule was reworded between crash and repeat comes with other content under its id; the one that is there stays.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from tallystick.alerts.engine import Alert, Engine, RuleState
from tallystick.alerts.metrics import alert_metrics
from tallystick.alerts.rule import Rule
from tallystick.errors import ConflictError, PushbackError, TerminalError, TransientError
from tallystick.journal.cursor import Cursor
from tallystick.journal.frame import Frame, FrameType
from tallystick.journal.reader import JournalReader
from tallystick.telemetry import log, publish_status

ROLE: Final = "alerts"

_READ_BYTES: Final = 1 << 20
_BATCH: Final = 500
_SAVE_S: Final = 5.0
_STATUS_S: Final = 1.0
_WAIT_S: Final = 0.25
_GRACE_S: Final = 2.0


class EventDoor(Protocol):
    """Where alerts go; returns when they are on disk."""

    async def post_events(self, tenant: str, events: list[dict[str, Any]]) -> None:
        """Raises PushbackError to be tried again, ConflictError and TerminalError when it never helps."""


class _Head(msgspec.Struct):
    action: str
    received_at: str


_head = msgspec.json.Decoder(_Head)
_whole = msgspec.json.Decoder(dict[str, Any])


class AlertFollower:
    """One per data directory. ``run``, or ``step`` by hand."""

    def __init__(
        self,
        data_dir: Path,
        rules: Sequence[Rule],
        groups_max: int,
        journal: JournalReader,
        door: EventDoor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.engine = Engine(rules, groups_max)
        self._rules = rules
        self._data_dir = data_dir
        self._journal = journal
        self._door = door
        self._clock = clock
        self._cursor = Cursor(data_dir, ROLE)
        self._position = self._cursor.load() or journal.oldest()
        self.engine.restore(msgspec.convert(self._cursor.extra.get("state", {}), dict[str, RuleState]))
        self._raised: dict[str, int] = dict(self._cursor.extra.get("raised", {}))
        if self._cursor.is_damaged:
            log.error("cursor_damaged", role=ROLE, resumes_at=self._position.seq)
        self._owed: list[Alert] = []
        self._reached = 0.0  # when the last event that was read was received
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
        """One round; False at the journal's end, and while alerts wait for an intake that takes nothing now."""
        is_moving = False
        if not self._owed:
            is_moving = self._read()
            self._owed += self.engine.due(self._reached if is_moving else self._clock() - _GRACE_S)
        self._hand_over()
        # A crash before this: the frames since the last state are judged again, and their alerts merged with those that are there.
        self._save_if(is_due=time.monotonic() - self._saved_at >= _SAVE_S)
        self._publish_if_due()
        return is_moving and not self._owed

    def _read(self) -> bool:
        items, position = self._journal.read(self._position, _READ_BYTES)
        for item in items:
            if isinstance(item, Frame) and item.type == FrameType.EVENTS:
                self._take(item)
        is_moving = position != self._position
        self._position = position
        self._is_dirty = self._is_dirty or is_moving
        return is_moving

    def _take(self, frame: Frame) -> None:
        for seq, line in enumerate(frame.lines(), frame.first_seq):
            head = _head.decode(line)
            self._reached = datetime.fromisoformat(head.received_at).timestamp()
            if self.engine.is_wanted(head.action):
                self._owed += self.engine.take(_whole.decode(line), self._reached, seq)

    def _hand_over(self) -> None:
        while self._owed:
            tenant, some = next((name, list(run)) for name, run in groupby(self._owed, key=lambda alert: alert.tenant))
            try:
                self._post(tenant, some[:_BATCH])
            except (PushbackError, TransientError) as error:
                self._reason = str(error)
                return
            self._reason = ""
            self._is_dirty = True
            for alert in self._owed[: len(some[:_BATCH])]:
                self._raised[alert.rule.name] = self._raised.get(alert.rule.name, 0) + 1
                alert_metrics().raised.labels(alert.rule.name).inc()
            del self._owed[: len(some[:_BATCH])]

    def _post(self, tenant: str, alerts: list[Alert]) -> None:
        """All of them, or one by one when there is one among them that is refused."""
        try:
            asyncio.run(self._door.post_events(tenant, [alert.event for alert in alerts]))
        except ConflictError:
            if len(alerts) > 1:
                self._post_each(tenant, alerts)
        except TerminalError as error:
            if len(alerts) > 1:
                self._post_each(tenant, alerts)
            else:
                # Not to be expected: these are our own events.
                log.error("alert_refused", rule=alerts[0].rule.name, tenant=tenant, id=alerts[0].event["id"], error=str(error))

    def _post_each(self, tenant: str, alerts: list[Alert]) -> None:
        for alert in alerts:
            self._post(tenant, [alert])

    def _save_if(self, *, is_due: bool) -> None:
        # With alerts still owed the state is ahead of what is durable: then the older one stays.
        if is_due and self._is_dirty and not self._owed:
            state = {name: msgspec.to_builtins(one) for name, one in self.engine.state().items()}
            self._cursor.save(self._position, {"state": state, "raised": self._raised})
            self._is_dirty, self._saved_at = False, time.monotonic()

    def status(self) -> dict[str, Any]:
        """The role's page. ``rules``: by name, what was raised since it was first read, and what its memory holds."""
        counts = self.engine.counts()
        return {
            "reason": self._reason,
            "seq": self._position.seq - 1,
            "lag": max(0, self._journal.mark().seq + 1 - self._position.seq),
            "rules": {rule.name: {"raised": self._raised.get(rule.name, 0), **counts[rule.name]} for rule in self._rules},
        }

    def _publish_if_due(self) -> None:
        if time.monotonic() - self._published_at >= _STATUS_S:
            self._published_at = time.monotonic()
            page = self.status()
            alert_metrics().lag.set(page["lag"])
            publish_status(self._data_dir, ROLE, page)
