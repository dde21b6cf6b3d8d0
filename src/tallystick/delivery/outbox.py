"""Puts what was delivered on record: receipts of settled cuts and signed statements go to the tenants' account trees.

The rows of `history` with ``receipt = 0`` are the queue of receipts, the `StatementBook` that of statements; both survive restarts. An
entry is marked as handed over only after the intake said "on disk"; a crash between the two hands it over again, under the same
id. A row whose cut is still open in the state is left alone: its numbers may change.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from tallystick.config import Config
from tallystick.delivery.history import SettledCut
from tallystick.delivery.inner_door import Door, delivery_entry, statement_entry
from tallystick.delivery.lane import Lane
from tallystick.delivery.retry import backoff_s
from tallystick.delivery.round import Sealed
from tallystick.delivery.settlement import VOIDED
from tallystick.delivery.statement import StatementBook
from tallystick.errors import TallystickError
from tallystick.evidence.statement import statement_key_name
from tallystick.privacy.keys import KeyStore
from tallystick.telemetry import log

ENTRIES = 500
_LOOK_S = 1.0
_RETRY_MAX_S = 30.0


class SealedSizes(Sealed, Protocol):
    """`Sealed` with what statements need beside it."""

    def sizes(self) -> dict[str, int]: ...

    def root_size(self) -> int: ...


class Outbox:
    """Shared by all lanes; ``run`` is one task per lane."""

    def __init__(self, config: Config, keys: KeyStore, door: Door, sealed: SealedSizes) -> None:
        self.trouble = ""
        self._interval_s = config.delivery.statement_interval.seconds
        self._server_name = config.server.name
        self._keys = keys
        self._door = door
        self._sealed = sealed

    async def run(self, lane: Lane, book: StatementBook) -> None:
        """Until cancelled; what the intake does not take now is offered again, ever slower."""
        failures, next_statement = 0, time.monotonic() + self._interval_s
        while True:
            try:
                is_more = await self.hand_over_receipts(lane)
                if time.monotonic() >= next_statement:
                    next_statement = time.monotonic() + self._interval_s
                    await self.issue_statements(lane, book)
                await self.hand_over_statements(lane, book)
                failures, self.trouble = 0, ""
                await asyncio.sleep(0.0 if is_more else _LOOK_S)
            except (OSError, TallystickError) as error:
                failures += 1
                if str(error) != self.trouble:
                    log.warning("delivery receipts cannot be handed over", destination=lane.name, reason=str(error))
                self.trouble = str(error)
                await asyncio.sleep(backoff_s(failures, _LOOK_S, _RETRY_MAX_S))

    async def hand_over_receipts(self, lane: Lane) -> bool:
        """Offer the oldest receipts; True when there may be more. Raises PushbackError, TerminalError, OSError."""
        rows: list[SettledCut] = await lane.in_thread(lane.history.unreceipted, ENTRIES)
        ready = [row for row in rows if row.id not in lane.state.cuts]
        entries = [delivery_entry(lane.name, row) for row in ready if row.outcome != VOIDED]
        if entries:
            await self._door.post(entries)
        if ready:
            await lane.in_thread(lane.history.mark_receipted, ready)
        return len(rows) == ENTRIES and bool(ready)

    async def issue_statements(self, lane: Lane, book: StatementBook) -> int:
        """Sign what changed; returns how many. Raises OSError, and the key store's error while the sealer has not made the key yet."""
        key = self._keys.signing_key(statement_key_name(self._server_name))
        as_of, sizes = self._sealed.root_size(), dict(self._sealed.sizes())
        return await lane.in_thread(book.issue, dict(lane.state.accounts), sizes, as_of, self._server_name, key)

    async def hand_over_statements(self, lane: Lane, book: StatementBook) -> None:
        """Put statements that are not there yet into the account trees."""
        waiting = book.unposted()[:ENTRIES]
        if not waiting:
            return
        await self._door.post([statement_entry(lane.name, one.tenant, one.digest, one.note) for one in waiting])
        for issued in waiting:
            issued.is_posted = True
        await lane.in_thread(book.save)
