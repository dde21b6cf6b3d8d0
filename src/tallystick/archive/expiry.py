"""Expiry: lets go of chunks whose period is over, and leaves a certificate for each.

One round, one step a call, so that archiving goes on meanwhile:

1. *look*: which chunks are past the period of the policy in force (the last `policy` entry of the root log) and, by the root log's
   heartbeats, were sealed that long ago; the brake is asked
2. *intent*: all that the certificates will say, in the state file `cursors/retention.intent`
3. *certificates* go to the intake, which journals them
4. *wait* until the sealer has them under a signed head
5. *release*, under the lock of the holds: what is held is put into a chunk under the hold's key; its row takes the place of the
   expired chunk's, whose object then goes. Manifests stay, as signed tombstones
6. the intent is emptied, and the sums are saved (`cursors/retention`)

and, when nothing else is to be done,

7. *keys*: a month that is over, of which no chunk is left and whose period is over, loses its key: named in `cursors/retention` first,
   then destroyed, then put on record, then taken from the state

What a crash means, and who repairs it: all of it the next look, by the same steps.

    before 2   nothing happened
    2 to 3     the same certificates are handed over; they have ids of their own, so one that the intake has is not stored again
    3 to 5     as above, then the round goes on; nothing was let go before its certificate is sealed
    5          rows that are gone are passed over; chunks that no row names any more are deleted, because the intent names them;
               a chunk of held lines that no row names yet is deleted by `ChunkWriter.settle`, and made again
    5 to 6     as 5
    7          the key is destroyed again, which also cleans a page's older slot, and the entry has an id of its own
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from tallystick.archive.brake import Brake, BrakeState, jumped, too_much
from tallystick.archive.catalog import CatalogDamagedError, CatalogWriter, ChunkRow
from tallystick.archive.certificate import Leaving, entries_of, key_entry, runs_of, sealed_parts
from tallystick.archive.expiry_plan import expires_at
from tallystick.archive.hold import NOBODY, CompileQuery, Holds, held_places, hold_class, split_class
from tallystick.archive.metrics import archive_metrics
from tallystick.archive.reader import ArchiveReader
from tallystick.archive.store import ArchiveStore
from tallystick.archive.writer import ChunkWriter
from tallystick.config import RetentionSettings
from tallystick.durable import StateFile
from tallystick.errors import IntegrityError, TerminalError
from tallystick.evidence.account import AccountLog
from tallystick.evidence.entry import ROOT_TYPES, read_entry
from tallystick.evidence.heads import Heads
from tallystick.evidence.origin import ROOT, tree_dir
from tallystick.evidence.policy import Policy, read_policy, time_text
from tallystick.evidence.sealed_by import SealedBy
from tallystick.journal.tenants import TenantRegistry
from tallystick.privacy.keys import KeyStore
from tallystick.telemetry import log, publish_status

STATUS = "retention"
STATE, INTENT, RESUME = "retention", "retention.intent", "retention.resume"

_CHUNKS_MAX = 64
_RANGES_MAX = 20_000

Record = Callable[[Sequence[tuple[str, str, dict[str, Any]]]], None]
"""Takes (tenant, id, entry) of account entries; returns when they are on disk. Raises PushbackError."""


@dataclass(frozen=True, slots=True)
class Due:
    """A chunk that may go, and the Unix second since when."""

    row: ChunkRow
    at: float


class Expirer:
    """The archiver's; not thread-safe. ``step`` is called often and looks at the clock itself."""

    def __init__(
        self,
        data_dir: Path,
        settings: RetentionSettings,
        keys: KeyStore,
        catalog: CatalogWriter,
        store: ArchiveStore,
        reader: ArchiveReader,
        writer: ChunkWriter,
        record: Record,
        compile_query: CompileQuery,
        clock: Callable[[], float],
    ) -> None:
        self._data_dir = data_dir
        self._settings = settings
        self._keys = keys
        self._catalog = catalog
        self._store = store
        self._reader = reader
        self._writer = writer
        self._record = record
        self._compile = compile_query
        self._holds = Holds(data_dir)
        self._clock = clock
        self._heads = Heads(data_dir)
        self._sealed = SealedBy(data_dir, self._heads)
        self._tenants = TenantRegistry(data_dir)
        self._state_file = StateFile(data_dir / "cursors" / STATE)
        self._state = _load(self._state_file, BrakeState) or BrakeState()
        self._intent_file = StateFile(data_dir / "cursors" / INTENT)
        self._leaving: list[Leaving] = _load(self._intent_file, list[Leaving]) or []
        self._is_recorded = False
        self._is_stuck = False
        self._looked_at = 0.0
        self._seen_at: float | None = None
        self.reason = ""

    def step(self) -> bool:
        """The next step, if there is one now; True when something was done. Raises TransientError, OSError: call again.

        What is damaged stops expiry, with the reason in status, and nothing else.
        """
        now = self._clock()
        if self._seen_at is not None and abs(now - self._looked_at) < self._settings.interval.seconds and not self._is_moving:
            return False
        self._is_stuck = False
        try:
            return self._go_on() if self._leaving else self._look()
        except CatalogDamagedError:
            raise
        except (IntegrityError, TerminalError) as error:
            self._looked_at, self._is_stuck = now, True
            self._seen_at = time.monotonic() if self._seen_at is None else self._seen_at
            self.reason = f"nothing expires: {error}"
            log.error("nothing expires", error=str(error))
            return False

    @property
    def _is_moving(self) -> bool:
        return bool(self._leaving) and not self._is_stuck

    # 1. and 2.

    def _look(self) -> bool:
        now = self._looked_at = self._clock()
        self._heads.refresh()
        self._tenants.reload()
        found = self._policy()
        due, kept = self._due(found[1], now) if found is not None else ([], 0)
        self._check_brake(due, kept, now)
        is_stopped = self._state.brake is not None
        self.publish(due, kept)
        if found is None or is_stopped:
            return False
        self._leaving = self._prepare(found, due, now)
        if self._leaving:
            self._intent_file.save(msgspec.json.encode(self._leaving))
            self._is_recorded = False
            return True
        return self._destroy_keys(found[1], now)

    def _policy(self) -> tuple[int, Policy] | None:
        """Index and content of the policy in force, as published; None before the sealer's first one."""
        index, head = self._heads.state.policy, self._heads.state.heads.get(ROOT)
        if index < 0 or head is None:
            return None
        entries = AccountLog(tree_dir(self._data_dir, ROOT), head.size)
        try:
            return index, read_policy(read_entry(entries.entry(index), ROOT_TYPES))
        finally:
            entries.close()

    def _due(self, policy: Policy, now: float) -> tuple[list[Due], int]:
        """The chunks that may go, the longest due first, and the number of events in all chunks."""
        kept = 0
        due: list[Due] = []
        active = {hold.id for hold in self._holds.load() if hold.is_active}
        for handle in self._catalog.marks():
            for row in self._catalog.chunks(handle):
                kept += row.count
                hold_id, own_class = split_class(row.retention_class)
                period_s = None if hold_id in active else policy.seconds(handle, own_class)
                at = expires_at(row, period_s)
                if period_s is None or at is None or at > now:
                    continue
                if self._sealed.sizes(now, period_s).get(handle, 0) > row.last:
                    due.append(Due(row, at))
        return sorted(due, key=lambda one: (one.at, one.row.handle, one.row.first)), kept

    def _check_brake(self, due: list[Due], kept: int, now: float) -> None:
        state, settings = self._state, self._settings
        before = msgspec.structs.replace(state)
        resume = _load(StateFile(self._data_dir / "cursors" / RESUME), dict[str, str]) or {}
        if state.brake is not None and resume.get("brake") == state.brake.id:
            log.info("expiry goes on", released_by=resume.get("by", ""), reason=state.brake.reason)
            state.cutoff, state.brake, state.seen = now, None, now
        elapsed = 0.0 if self._seen_at is None else time.monotonic() - self._seen_at
        reason = jumped(now, state.seen, elapsed, settings.clock_jump.seconds) if state.brake is None else ""
        fresh = sum(one.row.count for one in due if one.at > state.cutoff)
        reason = reason or too_much(fresh, kept, settings.brake_percent, settings.brake_events)
        if state.brake is None and reason:
            log.error("expiry stops", reason=reason)
            state.brake = Brake(f"b{now:.0f}", reason, now, fresh, kept)
        if state.brake is None:
            state.seen = max(state.seen, now)
        self._seen_at = time.monotonic()
        if state != before:
            # A crash before it is saved: the next look comes to the same, or finds the clock further on by a look's interval.
            self._state_file.save(msgspec.json.encode(state))

    def _prepare(self, found: tuple[int, Policy], due: list[Due], now: float) -> list[Leaving]:
        leaving: list[Leaving] = []
        for row in (one.row for one in due[:_CHUNKS_MAX]):
            tenant = self._tenants.by_handle(row.handle)
            if tenant is None or sum(len(one.ranges) for one in leaving) > _RANGES_MAX:
                break
            table = self._reader.open_chunk(row, ["index", "line"])
            held = held_places(self._holds.load(), row.handle, table["line"].to_pylist(), self._compile)
            indexes = [index for place, index in enumerate(table["index"].to_pylist()) if place not in held]
            own_class = split_class(row.retention_class)[1]
            head = self._heads.state.heads.get(f"{row.handle}/account")
            leaving.append(
                Leaving(
                    chunk_id=row.chunk_id.hex(),
                    stem=row.name.removesuffix(".parquet"),
                    handle=row.handle,
                    tenant=tenant.name,
                    retention_class=own_class,
                    period=found[1].period(row.handle, own_class) or "",
                    policy=found[0],
                    at=time_text(now),
                    since=head.size if head is not None else 0,
                    size=row.size,
                    ranges=runs_of(indexes),
                )
            )
        return leaving

    # 3. to 6.

    def _go_on(self) -> bool:
        if not self._is_recorded:
            self._heads.refresh()
            self._record([entry for one in self._leaving for entry in self._entries(one)])
            self._is_recorded = True
            return True
        self._heads.refresh()
        if not all(map(self._is_sealed, self._leaving)):
            return False
        for one in self._leaving:
            self._release(one)
        events, size = sum(one.count for one in self._leaving), sum(one.size for one in self._leaving)
        archive_metrics().expired.inc(events)
        log.info("events expired", chunks=len(self._leaving), events=events, bytes=size)
        self._state.events += events
        self._state.bytes += size
        self._state.last_at = self._clock()
        self._state_file.save(msgspec.json.encode(self._state))
        self._intent_file.save(b"[]")
        self._leaving, self._looked_at = [], 0.0
        return True

    def _entries(self, one: Leaving) -> Iterable[tuple[str, str, dict[str, Any]]]:
        sealed = self._heads.sealed_size(one.handle)
        return [(one.tenant, name, entry) for name, entry in entries_of(one, self._data_dir, sealed)]

    def _is_sealed(self, one: Leaving) -> bool:
        head = self._heads.state.heads.get(f"{one.handle}/account")
        if head is None:
            return False
        wanted = {(one.chunk_id, number) for number in range(1, len(one.parts) + 1)}
        return wanted <= sealed_parts(self._data_dir, one.handle, one.since, head.size)

    def _release(self, one: Leaving) -> None:
        """The row goes first: a search that opens the chunk in between is told to take a new view."""
        row = self._catalog.chunk(bytes.fromhex(one.chunk_id))
        if row is not None:
            self._writer.settle(self._catalog)
            with self._holds.lock():
                self._writer.keep(self._catalog, row, self._kept(one, row))
        self._store.delete(f"{one.stem}.parquet")

    def _kept(self, one: Leaving, row: ChunkRow) -> dict[str, pa.Table]:
        """What stays of a chunk, by class: what holds match now, and what the certificate leaves out, in index order."""
        table = self._reader.open_chunk(row)
        held = held_places(self._holds.load(), row.handle, table["line"].to_pylist(), self._compile)
        gone = {index for first, count in one.ranges for index in range(first, first + count)}
        places: dict[str, list[int]] = {}
        for place, index in enumerate(table["index"].to_pylist()):
            if place in held or index not in gone:
                places.setdefault(hold_class(held.get(place, NOBODY), one.retention_class), []).append(place)
        return {name: table.take(pa.array(found)) for name, found in places.items()}

    # 7.

    def _destroy_keys(self, policy: Policy, now: float) -> bool:
        waiting = self._state.destroying or [name for name in self._keys.epoch_names() if self._is_over(policy, name, now)]
        if not waiting:
            return False
        self._state.destroying = waiting
        self._state_file.save(msgspec.json.encode(self._state))
        records = []
        for handle, retention_class, month in waiting:
            self._keys.destroy_epoch_key(handle, retention_class, month)
            tenant = self._tenants.by_handle(handle)
            if tenant is not None:
                records.append((tenant.name, *key_entry(time_text(now), retention_class, month)))
        self._record(records)
        log.info("keys destroyed", months=len(waiting))
        self._state.destroying = []
        self._state_file.save(msgspec.json.encode(self._state))
        return True

    def _is_over(self, policy: Policy, name: tuple[str, str, str], now: float) -> bool:
        handle, retention_class, month = name
        hold_id, own_class = split_class(retention_class)
        if self._catalog.has_chunks(handle, retention_class, month):
            return False
        if hold_id:
            return not any(hold.id == hold_id and hold.is_active for hold in self._holds.load())
        period_s = policy.seconds(handle, own_class)
        return period_s is not None and _end_of(month) + period_s <= now

    def publish(self, due: list[Due], kept: int) -> None:
        """The status page."""
        brake = self._state.brake
        self.reason = f"expiry is stopped: {brake.reason}" if brake is not None else ""
        page = {
            "reason": self.reason,
            "brake": msgspec.to_builtins(brake),
            "due_events": sum(one.row.count for one in due),
            "kept_events": kept,
            "expired_events": self._state.events,
            "expired_bytes": self._state.bytes,
            "last_expired_at": time_text(self._state.last_at) if self._state.last_at else None,
        }
        archive_metrics().due.set(page["due_events"])
        archive_metrics().braked.set(brake is not None)
        publish_status(self._data_dir, STATUS, page)


def _load(state: StateFile, kind: Any) -> Any:
    payload = state.load()
    if state.is_damaged():
        log.error("a state file of retention is damaged", path=str(state.path))
    return msgspec.json.decode(payload, type=kind) if payload else None


def _end_of(month: str) -> float:
    """The Unix second at which a month ("yyyy-mm") is over."""
    year, number = int(month[:4]), int(month[5:])
    return float(calendar.timegm((year + number // 12, number % 12 + 1, 1, 0, 0, 0)))
