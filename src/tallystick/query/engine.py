"""The query engine: every question that is asked of stored events, over archive and hot part as one.

One call sees one snapshot: first the hot part reads on to the durable mark, then the catalog's view is taken (in that order
there are neither holes nor repeats, see `hot`). A first page also fixes, per tenant, the index at which its snapshot ends;
its cursor carries that on, so events that arrive later never shift a page. When something of the snapshot has moved
meanwhile (a merge, an archived segment), the call starts again with a new one.

All methods block; the api runs them in threads. Time and memory of one call are bounded by ``[query]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from tallystick.archive.archiver import ROLE as ARCHIVER_ROLE
from tallystick.archive.reader import ArchiveReader, Found
from tallystick.archive.store import ArchiveStore
from tallystick.config import Config
from tallystick.errors import IntegrityError, NotFoundError
from tallystick.evidence.entry import leaf_data, lost_text
from tallystick.journal.cursor import Cursor
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import Tenant, TenantRegistry
from tallystick.privacy.keys import KeyStore
from tallystick.query import plan
from tallystick.query.aggregate import count_matches, make_histogram, top_values
from tallystick.query.cursor import CursorBox, PageCursor, scope_of
from tallystick.query.database import Databases
from tallystick.query.export import Format, columns_for, encode_export
from tallystick.query.grammar import parse
from tallystick.query.hot import HotPart
from tallystick.query.inorder import merge_runs
from tallystick.query.request import Count, Facets, Histogram, Page, SearchRequest, TimeField
from tallystick.query.scan import Deadline, Scanner, Selection
from tallystick.query.search import Sources, find_page
from tallystick.query.slices import ChunkFiles, HotSlice, Slice, StaleSnapshotError
from tallystick.query.values import micros_of, to_datetime

_ATTEMPTS = 3
_READERS = 2  # threads that read and decrypt chunks, for all calls together
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Scan:
    """One call's view of the world, ready to be scanned."""

    scanner: Scanner
    sources: Sources
    selections: dict[str, Selection]


class _Place(NamedTuple):
    """Where an export is: the next index, and the index at which its snapshot ends (None: not taken yet)."""

    first: int
    end: int | None


class QueryEngine:
    """Shared by all requests of a process; thread-safe."""

    def __init__(self, config: Config, keys: KeyStore, *, journal: JournalReader | None = None) -> None:
        self._config = config
        self._tenants = TenantRegistry(config.data_dir)
        self._store = ArchiveStore.open(config)
        self._archive = ArchiveReader(config, keys, self._store)
        self._files = ChunkFiles(self._store, keys)
        self._hot = HotPart(
            journal or JournalReader(config.data_dir, keys, patience_s=config.journal.read_patience.seconds),
            config.archive.hot_bytes.bytes,
            self._archive.catalog.marks,
            Cursor(config.data_dir, ARCHIVER_ROLE).load,
        )
        self._databases = Databases(config.query.memory.bytes)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="query-read")
        self._cursors = CursorBox(keys.derive("cursor"))

    def search(self, request: SearchRequest) -> Page:
        """One page of events. Raises QueryError, NotFoundError (no such tenant), IntegrityError, DestinationUnavailableError."""
        limit = max(1, min(request.limit, self._config.query.limit))
        return self._fresh(lambda: self._search(request, limit))

    def count(self, request: SearchRequest) -> Count:
        """How many events match."""
        return self._fresh(
            lambda: self._with_scan(request, lambda scan: count_matches(scan.scanner, scan.sources, scan.selections))
        )

    def histogram(self, request: SearchRequest, buckets: int = 60) -> Histogram:
        """Matching events over time, by outcome, in at most ``buckets`` steps of a round width."""
        start, end = micros_of(request.start), micros_of(request.end)
        return self._fresh(
            lambda: self._with_scan(
                request, lambda scan: make_histogram(scan.scanner, scan.sources, scan.selections, request.time, start, end, buckets)
            )
        )

    def facets(self, request: SearchRequest, names: Sequence[str] | None = None, top: int = 10) -> Facets:
        """The most frequent values of some facets (`aggregate.FACETS`; default: all of them). Raises QueryError for others."""
        return self._fresh(
            lambda: self._with_scan(request, lambda scan: top_values(scan.scanner, scan.sources, scan.selections, names, top))
        )

    def export(self, request: SearchRequest, form: Format = "jsonl") -> Iterator[bytes]:
        """All matching events of the snapshot in tree order, tenant by tenant, encoded piece by piece. No time limit.

        Query and tenants are checked before the first piece is asked for.
        """
        tenants, columns = self._named(request.tenants), columns_for(form)
        parse(request.query, bytes_max=self._config.query.query.bytes)
        return encode_export(self._exported(request, tenants, columns), form)

    def find(self, tenant: str, event_id: str) -> Found | None:
        """The event with that id, the newest if there are several. Raises NotFoundError for an unknown tenant."""
        handle = self._named([tenant])[0].handle
        return self._fresh(lambda: self._find(handle, event_id))

    def lines(self, tenant: str, first: int, count: int) -> list[tuple[int, bytes]]:
        """(index, line) of the events from ``first`` to ``first + count``, in order; those lost or erased are left out."""
        handle = self._named([tenant])[0].handle
        return self._fresh(lambda: self._lines(handle, first, count))

    def entries(self, tenant: str, first: int, count: int) -> list[bytes]:
        """The leaf data of ``count`` leaves of the tenant's tree, as a tile of entries shows it (`evidence.entry`).

        Raises NotFoundError when one of them is not there: past the end, or erased.
        """
        handle = self._named([tenant])[0].handle
        lines = dict(self.lines(tenant, first, count))
        lost = self._archive.catalog.lost(handle)
        entries = []
        for index in range(first, first + count):
            line = lines.get(index)
            if line is None and not any(start <= index < start + length for start, length in lost):
                raise NotFoundError("the log holds no such entry (any more)", place=f"index {index}")
            entries.append(lost_text(index) if line is None else leaf_data(line))
        return entries

    def close(self) -> None:
        self._readers.shutdown(cancel_futures=True)
        self._databases.close()
        self._files.close()
        self._archive.catalog.close()

    def _named(self, names: Sequence[str]) -> list[Tenant]:
        """The tenants of these names, in the order of their handles. Raises NotFoundError."""
        found: dict[str, Tenant] = {}
        for name in names:
            tenant = self._tenants.get(name)
            if tenant is None:
                self._tenants.reload()
                tenant = self._tenants.get(name)
            if tenant is None:
                raise NotFoundError("no such tenant")
            found[tenant.handle] = tenant
        return [found[handle] for handle in sorted(found)]

    def _fresh(self, call: Callable[[], T]) -> T:
        """The call's answer, from a snapshot that stood still for it."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return call()
            except StaleSnapshotError:
                continue
        try:
            return call()
        except StaleSnapshotError as error:
            raise _missing_chunk(error) from error

    def _search(self, request: SearchRequest, limit: int) -> Page:
        tenants = self._named(request.tenants)
        scope = scope_of(request, [tenant.handle for tenant in tenants])
        cursor = self._cursors.open(request.cursor, scope) if request.cursor else None
        newest_first = request.order == "desc"
        if cursor:
            request = replace(request, start=_moment(cursor.start), end=_moment(cursor.end))
        with self._scan(request, tenants, cursor.ends if cursor else {}, deadline=self._config.query.time.seconds) as scan:
            found, is_partial = find_page(
                scan.scanner,
                scan.sources,
                scan.selections,
                limit=limit + 1,
                after=cursor.after if cursor else None,
                newest_first=newest_first,
            )
            shown = found[:limit]
            lines = self._fetch_lines([(source, key[1]) for key, source in shown])
            following = None
            if len(found) > limit and not is_partial:
                following = self._cursors.close(
                    PageCursor(
                        scope=scope,
                        start=micros_of(request.start),
                        end=micros_of(request.end),
                        after=shown[-1][0],
                        ends={handle: selection.index_end for handle, selection in scan.selections.items()},
                    )
                )
            names = [scan.selections[key[2]].tenant for key, _ in shown]
        return Page(lines, [key[1] for key, _ in shown], names, following, is_partial)

    def _fetch_lines(self, wanted: Sequence[tuple[Slice, int]]) -> list[bytes]:
        """The line of each (slice, index), in order; a slice is asked once, two at a time."""
        by_slice: dict[int, tuple[Slice, list[int]]] = {}
        for source, index in wanted:
            by_slice.setdefault(id(source), (source, []))[1].append(index)
        asked = list(by_slice.items())
        answers = self._readers.map(lambda item: item[1][0].lines(item[1][1]), asked)
        lines = {
            (key, index): line
            for (key, (_, indexes)), found in zip(asked, answers, strict=True)
            for index, line in zip(indexes, found, strict=True)
        }
        return [lines[id(source), index] for source, index in wanted]

    def _with_scan(self, request: SearchRequest, call: Callable[[_Scan], T]) -> T:
        with self._scan(request, self._named(request.tenants), {}, deadline=self._config.query.time.seconds) as scan:
            return call(scan)

    @contextmanager
    def _scan(
        self, request: SearchRequest, tenants: Sequence[Tenant], ends: Mapping[str, int], *, deadline: float | None
    ) -> Iterator[_Scan]:
        """A snapshot of these tenants. ``ends`` holds the index that an earlier snapshot ended at, by handle; ``deadline`` in seconds."""
        start, end = micros_of(request.start), micros_of(request.end)
        node = parse(request.query, bytes_max=self._config.query.query.bytes)
        hot = self._hot.refresh([tenant.handle for tenant in tenants])
        selections, chunks, batches = {}, [], []
        for tenant in tenants:
            handle, known = tenant.handle, hot[tenant.handle]
            index_end = ends.get(handle)
            view = self._archive.catalog.view(handle, plan.window(request.time, start, end, index_end))
            mine = plan.fold_tenant(node, tenant.name)
            selections[handle] = Selection.make(
                handle,
                tenant.name,
                mine,
                time=request.time,
                start=start,
                end=end,
                index_end=max(view.mark, known.end) if index_end is None else index_end,
            )
            chunks += plan.prune(view.chunks, mine, self._archive.filters)
            batches += _hot_slices(handle, known.tables, view.mark, request.time)
        with self._databases.lend() as database:
            scanner = Scanner(database, Deadline(deadline))
            try:
                yield _Scan(scanner, Sources(self._files, chunks, batches, request.time, self._readers), selections)
            finally:
                pa.default_memory_pool().release_unused()

    def _lines(self, handle: str, first: int, count: int) -> list[tuple[int, bytes]]:
        hot = self._hot.refresh([handle])[handle]
        try:
            found = dict(self._archive.lines(handle, first, count))
        except NotFoundError as error:
            raise StaleSnapshotError(str(error)) from error
        for batch in hot.tables if len(found) < count else ():
            table = batch if isinstance(batch, pa.Table) else batch()
            index = table["index"]
            kept = table.filter(pc.and_(pc.greater_equal(index, first), pc.less(index, first + count)))
            found.update(zip(kept["index"].to_pylist(), kept["line"].to_pylist(), strict=True))
        return sorted(found.items())

    def _find(self, handle: str, event_id: str) -> Found | None:
        hot = self._hot.refresh([handle])[handle]
        for batch in reversed(hot.tables):
            table = batch if isinstance(batch, pa.Table) else batch()
            rows = table.filter(pc.equal(table["id"], event_id)).select(["index", "seq", "line"]).to_pylist()
            if rows:
                return Found(**rows[-1])
        try:
            return self._archive.find(handle, event_id)
        except NotFoundError as error:
            raise StaleSnapshotError(str(error)) from error

    def _exported(self, request: SearchRequest, tenants: Sequence[Tenant], columns: Sequence[str]) -> Iterator[pa.Table]:
        """Matching rows, tenant by tenant in index order. Where the snapshot moves, a new one takes over at the next index."""
        for tenant in tenants:
            place, attempts = _Place(0, None), 0
            while True:
                try:
                    for following, table in self._export_from(request, tenant, place, columns):
                        place, attempts = following, 0
                        yield table
                    break
                except StaleSnapshotError as error:
                    attempts += 1
                    if attempts == _ATTEMPTS:
                        raise _missing_chunk(error) from error

    def _export_from(
        self, request: SearchRequest, tenant: Tenant, place: _Place, columns: Sequence[str]
    ) -> Iterator[tuple[_Place, pa.Table]]:
        """Matching rows from a place on, each time with the place after them."""
        with self._scan(request, [tenant], {} if place.end is None else {tenant.handle: place.end}, deadline=None) as scan:
            selection = scan.selections[tenant.handle]

            def matches(source: Slice) -> pa.Table:
                table = scan.scanner.matches(source, selection, columns)
                return table.filter(pc.greater_equal(table["index"], place.first)) if place.first else table

            for following, rows in merge_runs(scan.sources.runs(matches)):
                yield _Place(following, selection.index_end), rows


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else to_datetime(micros)


def _missing_chunk(error: StaleSnapshotError) -> IntegrityError:
    return IntegrityError(
        "a chunk that the catalog names is not in the archive store",
        place=str(error) or None,
        hint="Run tallystick verify; restore the object from a copy",
    )


def _hot_slices(handle: str, tables: Sequence[pa.Table | Callable[[], pa.Table]], mark: int, time: TimeField) -> list[HotSlice]:
    """The batches with events that the view does not hold as chunks, without those that it does."""
    slices = []
    for table in tables:
        if isinstance(table, pa.Table):
            if table["index"][0].as_py() < mark:
                table = table.filter(pc.greater_equal(table["index"], mark))
            if table.num_rows:
                slices.append(HotSlice(handle, table, time))
        else:
            slices.append(HotSlice(handle, _from_mark(table, mark), time))
    return slices


def _from_mark(load: Callable[[], pa.Table], mark: int) -> Callable[[], pa.Table]:
    def load_rest() -> pa.Table:
        table = load()
        return table.filter(pc.greater_equal(table["index"], mark))

    return load_rest
