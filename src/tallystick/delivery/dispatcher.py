"""The dispatcher: one process, one lane per destination, all reading what is sealed.

It looks at ``trees/heads`` at short intervals; when something new is sealed it follows the journal up to there and wakes the
lanes. Beside them run the control socket, the status page, and the outbox of delivery receipts and statements. Nothing
here waits for a destination: a lane that hangs hangs alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tallystick.archive.catalog import Catalog, CatalogDamagedError
from tallystick.config import Config, DestinationSettings
from tallystick.delivery.builder import CutBuilder
from tallystick.delivery.control import serve
from tallystick.delivery.cut import BatchLimits, Predicate
from tallystick.delivery.dead_letters import DeadLetters
from tallystick.delivery.events import EventReader
from tallystick.delivery.history import History
from tallystick.delivery.inner_door import Door, InnerDoor
from tallystick.delivery.lane import Lane
from tallystick.delivery.lane_status import LaneStatus
from tallystick.delivery.operations import Operations
from tallystick.delivery.outbox import Outbox
from tallystick.delivery.state import LaneStateFile
from tallystick.delivery.statement import StatementBook
from tallystick.durable import RoleLock
from tallystick.errors import DestinationUnavailableError, TallystickError
from tallystick.evidence.heads import Heads
from tallystick.evidence.origin import event_origin
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry
from tallystick.plugin import Destination
from tallystick.privacy.keys import KeyStore
from tallystick.query.evaluate import compile_query
from tallystick.telemetry import log, publish_status

if TYPE_CHECKING:
    from tallystick.archive.reader import ArchiveReader

T = TypeVar("T")
ROLE = "dispatcher"
_STATUS_INTERVAL_S = 1.0


class SealedHeads:
    """What is sealed, by tenant, as of the last `take`. The dispatcher calls `refresh` and `take`; lanes read from their threads."""

    def __init__(self, data_dir: Path, server_name: str) -> None:
        self._heads = Heads(data_dir)
        self._registry = TenantRegistry(data_dir)
        self._server_name = server_name
        self._sizes: dict[str, int] = {}
        self._known: dict[str, int] = {}
        self._names: dict[str, str] = {}

    def refresh(self) -> bool:
        """Read what was sealed since; True when there was something, for `take` to show. Raises IntegrityError, OSError."""
        is_new = self._heads.refresh()
        self._known = self._heads.sealed_sizes()
        return is_new

    def take(self) -> None:
        """Show the lanes what was read. Raises IntegrityError when the register of tenants is damaged."""
        sizes = self._heads.sealed_sizes()
        if sizes.keys() - self._names.keys():
            self._registry.reload()
        named = {handle: tenant.name for handle in sizes if (tenant := self._registry.by_handle(handle)) is not None}
        self._sizes, self._names = sizes, named

    def tenants(self) -> dict[str, str]:
        return self._names

    def size(self, handle: str) -> int:
        return self._sizes.get(handle, 0)

    def sizes(self) -> dict[str, int]:
        return self._sizes

    def known_sizes(self) -> dict[str, int]:
        return self._known

    def note(self, handle: str) -> str:
        head = self._heads.head(event_origin(self._server_name, handle))
        return head.note if head is not None else ""

    def root_size(self) -> int:
        """The root log's size, for statements."""
        head = self._heads.head(f"{self._server_name}/log/root")
        return head.size if head is not None else 0

    def handle_of(self, name: str) -> str | None:
        tenant = self._registry.get(name)
        return tenant.handle if tenant is not None else None


class _ArchiveView:
    """The archive as `events.EventReader` sees it. A damaged catalog is made again by the archiver: until then, it is away."""

    def __init__(self, config: Config, keys: KeyStore) -> None:
        self._config, self._keys = config, keys
        self._catalog = Catalog(config.data_dir / "catalog.sqlite")

    def mark(self, handle: str) -> int:
        with _catalog_away():
            return self._catalog.mark(handle)

    def lines(self, handle: str, first_index: int, count: int) -> list[tuple[int, bytes]]:
        with _catalog_away():
            return self._reader.lines(handle, first_index, count)

    def lost(self, handle: str) -> list[tuple[int, int]]:
        with _catalog_away():
            return self._catalog.lost(handle)

    @cached_property
    def _reader(self) -> ArchiveReader:
        from tallystick.archive.reader import (
            ArchiveReader,  # with it comes Arrow: only who has fallen behind the journal reads chunks
        )

        return ArchiveReader(self._config, self._keys)


@contextlib.contextmanager
def _catalog_away() -> Iterator[None]:
    try:
        yield
    except CatalogDamagedError as error:
        raise DestinationUnavailableError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Parts:
    """What the dispatcher reads from, so that tests can put others in its place."""

    sealed: SealedHeads
    reader: EventReader
    door: Door


class Dispatcher:
    """All destinations of one installation."""

    def __init__(
        self,
        config: Config,
        keys: KeyStore,
        destinations: Mapping[str, tuple[Destination, DestinationSettings]],
        parts: Parts | None = None,
    ) -> None:
        self._config = config
        self._keys = keys
        self._lock = RoleLock(config.data_dir, ROLE)
        # The lock comes first: what is opened below is written by one process only.
        self._lock.acquire()
        try:
            parts = parts or open_parts(config, keys)
            self._sealed, self._reader = parts.sealed, parts.reader
            self.letters = DeadLetters(config.data_dir, keys)
            self.lanes = {name: self._make_lane(name, *built) for name, built in destinations.items()}
        except BaseException:
            self._lock.release()
            raise
        self._statuses = {name: LaneStatus(lane, self._reader, self._sealed) for name, lane in self.lanes.items()}
        self._outbox = Outbox(config, keys, parts.door, self._sealed)
        self._page: dict[str, Any] = {"destinations": {}, "reasons": []}
        self._trouble = ""
        self._is_behind = True
        self._has_looked = False
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="dispatcher")

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. What is under way then is found again at the next start."""
        operations = Operations(self.lanes, self.letters, self._sealed.handle_of, lambda: self._page)
        tasks = [
            *(asyncio.create_task(self._keep_running(lane.name, lane.run)) for lane in self.lanes.values()),
            *(
                asyncio.create_task(self._keep_running(f"outbox {lane.name}", self._outbox_of(lane)))
                for lane in self.lanes.values()
            ),
            asyncio.create_task(self._keep_running("follow", self._follow)),
            asyncio.create_task(self._keep_running("status", self._report)),
        ]
        try:
            async with serve(self._config.data_dir, operations.handle):
                await stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for lane in self.lanes.values():
                await lane.destination.close()
                await lane.close()
            self._threads.shutdown(wait=False)
            self._lock.release()

    async def _keep_running(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """A part that fails in a way nobody foresaw is started again: the others, and the rest of its work, go on."""
        while True:
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - the last resort of one part; named in log and status
                log.error("a part of the dispatcher failed and is started again", part=name, error=repr(error), exc_info=True)
                self._trouble = f"{name}: {error!r}"
            await asyncio.sleep(self._config.delivery.retry_min.seconds)

    async def _follow(self) -> None:
        while True:
            try:
                is_new = await self._in_thread(self._look)
                self._trouble = ""
            except (OSError, TallystickError) as error:
                is_new = False
                if str(error) != self._trouble:
                    log.error("sealed events cannot be followed", error=str(error))
                self._trouble = str(error)
            if is_new:
                for lane in self.lanes.values():
                    lane.news.set()
            await asyncio.sleep(self._config.delivery.poll_interval.seconds)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """In threads of our own: the loop's common ones may all be waiting for somebody's name server."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _look(self) -> bool:
        # Heads are read first, the journal second, and shown last: then the lanes find every event that they see as sealed.
        self._is_behind |= self._sealed.refresh()
        self._has_looked = True
        if not self._is_behind:
            return False
        self._reader.advance()
        self._sealed.take()
        self._is_behind = False
        return True

    async def _report(self) -> None:
        while not self._has_looked and not self._trouble:  # before that nobody knows how much is pending
            await asyncio.sleep(self._config.delivery.poll_interval.seconds)
        while True:
            self._page = await self._in_thread(self._make_page)
            publish_status(self._config.data_dir, ROLE, self._page)
            await asyncio.sleep(_STATUS_INTERVAL_S)

    def _make_page(self) -> dict[str, Any]:
        rows = {name: status.page() for name, status in self._statuses.items()}
        reasons = [f"{name}: {row['state']}: {row['reason']}" for name, row in rows.items() if row["state"] != "running"]
        reasons += [text for text in (self._trouble, self._outbox.trouble) if text]
        return {"destinations": rows, "reasons": reasons, "at": time.time()}

    def _outbox_of(self, lane: Lane) -> Callable[[], Awaitable[None]]:
        book = StatementBook(self._config.data_dir, lane.name)
        return lambda: self._outbox.run(lane, book)

    def _make_lane(self, name: str, destination: Destination, settings: DestinationSettings) -> Lane:
        config = self._config
        builder = CutBuilder(
            name,
            destination,
            batch_limits(destination, settings),
            self._reader,
            server_name=config.server.name,
            config_hash=config.hash,
            where=settings.where or "",
            compile_where=compile_where,
            note=self._sealed.note,
        )
        state_file = LaneStateFile(config.data_dir, name)
        history = History(config.data_dir, name)
        return Lane(
            name, destination, builder, self._sealed, config.delivery, state_file=state_file, history=history, letters=self.letters
        )


def batch_limits(destination: Destination, settings: DestinationSettings) -> BatchLimits:
    """The borders of a cut: as configured, else the destination's own."""
    batch, own = settings.batch, destination.batch
    return BatchLimits(
        max_events=batch.max_events or own.max_events,
        max_bytes=batch.max_bytes.bytes if batch.max_bytes else own.max_bytes,
        max_age_s=batch.max_age.seconds if batch.max_age else own.max_age_s,
    )


def compile_where(text: str) -> Predicate:
    """The predicate of a query. Raises QueryError."""
    return compile_query(text).matches_line


def open_parts(config: Config, keys: KeyStore) -> Parts:
    view = _ArchiveView(config, keys)
    patience = config.journal.read_patience.seconds
    journal, again = (JournalReader(config.data_dir, keys, patience_s=patience) for _ in range(2))
    reader = EventReader(journal, again, view, config.delivery.cache.bytes)
    return Parts(SealedHeads(config.data_dir, config.server.name), reader, InnerDoor(config.data_dir))
