"""Source type `postgresql`: the rows that transactions change, by logical decoding of the tables of one publication.

    read what is there ──► commit whole transactions (append, fdatasync) ──► confirm: the slot moves on ──► read …

- The server keeps its write-ahead log until we confirm it, and sends again from there after any break. Events are named by the
  place of their transaction in that log and their number in it, so what comes again is stored once.
- A transaction is one commit, together with others that were there; only one larger than `batch` is cut, and confirmed at its end.
- While the journal is slow nothing is read, and the server hears every second that we live. Its log grows meanwhile: status
  says by how much.
- When nothing of ours is under way we confirm what the server has read for us, so that a quiet publication holds no log back.
- The slot is made once, and that is noted (`StateFile`, saved before the slot is read). When it is gone at a later start, what was
  committed in between is lost to us: a `gap` entry, and a new slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import Meta, field

from tallystick.config.units import Size
from tallystick.durable import StateFile, make_dir
from tallystick.plugin import Intake, SourceContext
from tallystick.protocols import pgoutput
from tallystick.sources.kind import SourceKind, SourceSettings
from tallystick.sources.plan import SourcePlan
from tallystick.sources.postgresql_events import Database, Entry, Transactions, decode_entries
from tallystick.sources.postgresql_login import login_of
from tallystick.sources.postgresql_slot import Slot, SlotError, SlotFacts
from tallystick.sources.progress import Progress
from tallystick.sources.remote import RemoteTlsSettings, check_tls, require_safe
from tallystick.telemetry import log

T = TypeVar("T")

_ALIVE_S = 1.0
_LOOK_S = 5.0
_READS = 500
_NAME = r"\A[a-z0-9_]{1,63}\Z"


class PostgresqlSettings(SourceSettings, frozen=True, kw_only=True):
    """`[sources.NAME]` with `type = "postgresql"`."""

    database: Annotated[str, Meta(description="Database.", min_length=1)]
    user: Annotated[str, Meta(description="User; it needs REPLICATION.", min_length=1)]
    password: Annotated[str | None, Meta(description="Password of `user`.")] = None
    host: Annotated[str, Meta(description="Host, address, or directory of the Unix socket.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(description="Port.", ge=1, le=65_535)] = 5432
    publication: Annotated[str, Meta(description="Publication that names the tables.", min_length=1)] = "tallystick"
    slot: Annotated[str, Meta(description="Replication slot; made when it is not there.", pattern=_NAME)] = "tallystick"
    tls: Annotated[RemoteTlsSettings | None, Meta(description="TLS; `{}` with the system's CA certificates.")] = None
    insecure: Annotated[bool, Meta(description="Allow a connection in the clear to another machine.")] = False
    batch: Annotated[Size, Meta(description="Bytes of changes in one commit; a larger transaction is cut.")] = field(
        default_factory=lambda: Size("4MiB")
    )

    def check(self, base_dir: Path) -> None:
        """See `SourceSettings`."""
        require_safe(self.host, is_encrypted=self.tls is not None, insecure=self.insecure, place="host")
        check_tls(self.tls, base_dir)


class PostgresqlSource:
    """One run: one stream from the slot."""

    guarantee: ClassVar[str] = "at least once"
    acknowledges: ClassVar[str] = "the replication slot moves on"

    def __init__(self, settings: PostgresqlSettings, context: SourceContext) -> None:
        self._settings = settings
        self._context = context
        self._progress = Progress(context.name)
        self._slot = Slot(login_of(settings, context.name, context.base_dir), settings.slot, settings.publication)
        self._facts: SlotFacts | None = None
        self._waiting = Transactions()
        self._decoder = pgoutput.Decoder()
        self._database = Database(settings.database, "", {})
        self._in_hand = 0
        self._confirmed = 0

    def status(self) -> Mapping[str, Any]:
        """See `plugin.Source`."""
        facts = self._facts
        return {
            "slot": self._settings.slot,
            "retained_bytes": facts.retained if facts is not None else None,
            "wal_status": facts.wal_status if facts is not None else "",
            "in_hand": self._in_hand,
            **self._progress.status(),
        }

    async def run(self, intake: Intake, stop: asyncio.Event) -> None:
        """See `plugin.Source`."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, f"postgresql-{self._context.name}") as thread:

            async def call(work: Callable[..., T], *arguments: Any) -> T:
                return await loop.run_in_executor(thread, partial(work, *arguments))

            try:
                system = await call(self._slot.open)
                self._facts = await self._find_slot(intake, system, call)
                self._database = Database(self._settings.database, system, await call(self._slot.keys))
                descriptor = await call(self._slot.start)
                await self._read(intake, stop, descriptor, call)
            finally:
                await asyncio.shield(call(self._slot.close))

    async def _find_slot(self, intake: Intake, system: str, call: Callable[..., Any]) -> SlotFacts:
        """The slot, made when it is missing. Raises SlotError.

        A slot that was there before and is not now: first the gap is on record, then the slot is made, then that is noted. A crash
        in between: the same gap again under the same id, or a slot that only has to be noted.
        """
        state = StateFile(self._context.state_dir / "slot")
        noted = state.load()
        name = f"{system}/{self._settings.database}/{self._settings.slot}"
        known = msgspec.json.decode(noted) if noted is not None else {}
        made = int(known.get("made", 0)) if known.get("slot") == name else 0
        facts: SlotFacts | None = await call(self._slot.facts)
        if facts is None:
            if made:
                await self._record_gap(intake, system, made)
            log.info("replication slot is made", source=self._context.name, slot=self._settings.slot)
            await call(self._slot.create)
            facts = await call(self._slot.facts)
            self._note(state, name, made + 1)
        elif not made:
            self._note(state, name, 1)
        if facts is None or facts.wal_status == "lost":
            words = f"the server has given up the slot {self._settings.slot!r} (max_slot_wal_keep_size)"
            raise SlotError(words, hint="Drop it: a new one is made, and the gap is on record")
        return facts

    async def _record_gap(self, intake: Intake, system: str, made: int) -> None:
        facts = {"slot": self._settings.slot, "why": "the replication slot was gone: changes until it was made anew are missing"}
        log.warning("the replication slot was gone", source=self._context.name, slot=self._settings.slot)
        await intake.record_gap(f"slot:{system}:{made}", facts)
        self._progress.add_missing(1)

    def _note(self, state: StateFile, name: str, count: int) -> None:
        make_dir(self._context.state_dir)
        state.save(msgspec.json.encode({"slot": name, "made": count}))

    async def _read(self, intake: Intake, stop: asyncio.Event, descriptor: int, call: Callable[..., Any]) -> None:
        loop = asyncio.get_running_loop()
        looked_at = -_LOOK_S
        while not stop.is_set():
            is_drained = self._fill()
            if self._waiting.has_whole or self._waiting.size >= self._settings.batch.bytes:
                await self._take(intake, call)
            elif is_drained and self._waiting.is_empty and self._slot.seen > self._confirmed:
                self._confirm(self._slot.seen)
            if loop.time() - looked_at >= _LOOK_S:
                looked_at = loop.time()
                await self._look(call)
            if is_drained:
                await self._wait(stop, descriptor)
            else:
                await asyncio.sleep(0)

    def _fill(self) -> bool:
        """Take what the stream has, up to one batch; True when it has no more for now."""
        for _ in range(_READS):
            if self._waiting.size >= self._settings.batch.bytes:
                return False
            payload = self._slot.next()
            if payload is None:
                return True
            try:
                item = self._decoder.read(payload)
            except pgoutput.PgOutputError as error:
                raise SlotError(f"the stream cannot be read: {error}") from error
            if isinstance(item, pgoutput.Relation):
                self._database.keys.pop(item.oid, None)  # it is new, or was changed
            elif item is not None:
                self._waiting.add(item, len(payload))
        return False

    async def _take(self, intake: Intake, call: Callable[..., Any]) -> None:
        """One commit; then the server may forget. A crash before it hears of that: it sends the same again."""
        entries, size, confirm = self._waiting.take()
        if entries:
            if unknown := {oid for entry in entries for oid in _oids(entry)} - self._database.keys.keys():
                found = await call(self._slot.keys)
                self._database.keys.update({oid: found.get(oid, []) for oid in unknown})
            await self._commit(intake, entries, size)
        if confirm:
            self._confirm(confirm)
        if entries:
            self._progress.took()

    async def _commit(self, intake: Intake, entries: list[Entry], size: int) -> None:
        self._in_hand = len(entries)
        append = asyncio.ensure_future(intake.commit_decoded(partial(decode_entries, entries, self._database), size))
        try:
            while not append.done():
                await asyncio.wait([append], timeout=_ALIVE_S)
                if not append.done():
                    self._slot.confirm(0)
            await append
        finally:
            append.cancel()
            self._in_hand = 0

    def _confirm(self, lsn: int) -> None:
        self._confirmed = max(self._confirmed, lsn)
        self._slot.confirm(self._confirmed)

    async def _look(self, call: Callable[..., Any]) -> None:
        facts: SlotFacts | None = await call(self._slot.facts)
        if facts is None:
            raise SlotError(f"the slot {self._settings.slot!r} was dropped")
        self._facts = facts
        self._progress.set_lag(facts.lag)
        is_near = facts.wal_status not in ("reserved", "extended", "unknown")
        self._progress.reason = f"the server is about to give up the slot (wal_status {facts.wal_status})" if is_near else ""

    async def _wait(self, stop: asyncio.Event, descriptor: int) -> None:
        """Until the stream has something, the stop, or a second. Only then is its socket watched: a slow journal costs no cycles."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        waits = [asyncio.ensure_future(ready.wait()), asyncio.ensure_future(stop.wait())]
        loop.add_reader(descriptor, ready.set)
        try:
            await asyncio.wait(waits, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(descriptor)
            for wait in waits:
                wait.cancel()


def _oids(entry: Entry) -> list[int]:
    change = entry.change
    relations = change.relations if isinstance(change, pgoutput.Truncate) else (change.relation,)
    return [relation.oid for relation in relations]


def _way(plan: SourcePlan) -> str:
    one = plan.settings
    assert isinstance(one, PostgresqlSettings)
    return f"reads changes of the publication {one.publication} of {one.database} on {one.host}:{one.port} by the slot {one.slot}"


KIND = SourceKind(PostgresqlSettings, _way, source=PostgresqlSource)
