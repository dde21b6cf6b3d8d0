"""Destination `iceberg`: rows and cursor in one commit of an Apache Iceberg table; exactly once.

    load the table ──► is the cursor past the cut's begin? which of its rows are there? ──► append the others, move the cursor ──► commit

How exactly-once works: a commit of Iceberg puts a new snapshot and changed properties of the table in place together, and only over the state that it was made
from. So the cursor is a property of the table, one for each destination and tenant, written by the commit that adds the rows.

- A commit whose outcome is not known (`CommitStateUnknownException`, a lost connection, an end of the process) is not guessed at: the next attempt
  loads the table, and its cursor says what happened. A late commit finds another state than its own and is refused.
- A cut that begins before the cursor (a repeat, other borders, a replay) asks the table for the rows that are there; only the others are appended.
- pyiceberg would make a refused commit anew over the state it finds, which would add rows that just arrived by another way. That is
  switched off: a refused commit is a failed attempt.

Work is done in one thread; when it takes longer than `timeout`, the thread is left behind and another one takes over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

import msgspec
import requests
from msgspec import Meta, field
from pyiceberg import exceptions
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.table import Table, TableProperties
from sqlalchemy.exc import SQLAlchemyError

from tallystick.config import DestinationSettings, Duration
from tallystick.destinations.encodings import make_encoder
from tallystick.destinations.iceberg_files import SyncedFileIO, local_path
from tallystick.destinations.iceberg_table import SCHEMA, Cursor, TableUnfitError, arrow_rows, read_cursor
from tallystick.errors import ConfigError, DestinationUnavailableError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut

T = TypeVar("T")

_TABLE = r"\A[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+\Z"
_PARKING = (
    TableUnfitError,
    exceptions.NoSuchTableError,
    exceptions.NoSuchNamespaceError,
    exceptions.ValidationError,
    exceptions.NotInstalledError,
    exceptions.UnauthorizedError,
    exceptions.ForbiddenError,
    exceptions.BadRequestError,
    exceptions.OAuthError,
    PermissionError,
    ModuleNotFoundError,
    ValueError,
)
"""ValueError: what pyiceberg says of a catalog it does not know, and of a table whose columns do not fit."""
_RETRYING = (
    exceptions.CommitFailedException,
    exceptions.CommitStateUnknownException,
    exceptions.RESTError,
    exceptions.ValidationException,
    requests.RequestException,
    SQLAlchemyError,
    OSError,
    TimeoutError,
)


class IcebergSettings(DestinationSettings, frozen=True, kw_only=True):
    """`type = "iceberg"`"""

    catalog: Annotated[
        dict[str, str],
        Meta(
            description="Properties of the catalog, as pyiceberg names them: `type` (`sql`, `rest`, …), `uri`, `warehouse`, `token`, `s3.…`."
        ),
    ]
    catalog_name: Annotated[
        str, Meta(description="Name of the catalog: a SQL catalog keeps the tables of several apart by it.", min_length=1)
    ] = "default"
    table: Annotated[str, Meta(description="Table of the events, `namespace.table`.", pattern=_TABLE)] = "audit.tallystick_events"
    create: Annotated[bool, Meta(description="Make namespace and table when they are missing.")] = True
    timeout: Annotated[Duration, Meta(description="Longest time for one attempt.")] = field(default_factory=lambda: Duration("2m"))

    def rooted(self, base_dir: Path) -> IcebergSettings:
        """A warehouse in a relative path is below ``base_dir``."""
        warehouse = self.catalog.get("warehouse", "")
        if not warehouse or "://" in warehouse or warehouse.startswith("file:"):
            return self
        return msgspec.structs.replace(self, catalog=self.catalog | {"warehouse": str(base_dir.absolute() / warehouse)})

    def check(self) -> None:
        if not self.catalog.get("type") and not self.catalog.get("uri"):
            raise ConfigError("catalog: neither type nor uri", hint='As in catalog = { type = "rest", uri = "https://…" }')
        if self.timeout.seconds < 1:
            raise ConfigError("no commit ends in so short a time", hint='As in timeout = "2m"')


class IcebergDestination:
    """One thread; cuts one after the other."""

    settings: ClassVar[type[DestinationSettings]] = IcebergSettings
    guarantee: ClassVar[str] = "exactly once"
    window: ClassVar[int] = 1
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=50_000, max_bytes=32 << 20, max_age_s=60.0)
    answers: ClassVar[dict[str, str]] = {
        "committed": "delivered",
        "rows that are there already": "delivered: an earlier attempt took effect; what is missing is appended",
        "a row under (tenant, index) with another event": "park, with an alarm; nothing is written",
        "commit refused (the table changed meanwhile), state unknown": "retry: the table is loaded anew, its cursor decides",
        "no such table or namespace, columns that do not fit, unknown catalog": "park",
        "400, 401, 403, login or permission refused": "park",
        "429": "throttle",
        "5xx, all others, no connection, no answer in time": "retry",
    }

    def __init__(self, name: str, settings: IcebergSettings) -> None:
        self.name = name
        self.encoder = make_encoder("json")
        self._settings = settings
        self._catalog: Catalog | None = None
        self._thread = self._new_thread()

    def place(self, cut: Cut) -> str:
        return f"iceberg:{self._settings.table}#{cut.handle}#{cut.name}"

    async def find(self, place: str, sha256: str) -> bool | None:
        """Raises DestinationUnavailableError when the table cannot be loaded."""
        start, _, name = place.rpartition("#")
        kind, _, handle = start.rpartition("#")
        if kind != f"iceberg:{self._settings.table}":
            return None
        try:
            return await self._in_thread(lambda: name in read_cursor(self._load().properties, self._key(handle)).recent)
        except (*_PARKING, *_RETRYING) as error:
            raise DestinationUnavailableError(_text(error)) from error

    async def send(self, cut: Cut) -> Answer:
        return await self._answering(lambda: self._send(cut))

    async def probe(self) -> Answer:
        return await self._answering(self._probe)

    async def close(self) -> None:
        self._thread.shutdown(wait=False)

    def _new_thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix=f"iceberg-{self.name}")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Raises TimeoutError when it takes too long; a commit that is still on its way then is settled by the table, like any other."""
        try:
            async with asyncio.timeout(self._settings.timeout.seconds):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            self._thread.shutdown(wait=False)
            self._thread, self._catalog = self._new_thread(), None
            raise

    async def _answering(self, work: Callable[[], Answer]) -> Answer:
        try:
            return await self._in_thread(work)
        except (*_PARKING, *_RETRYING) as error:
            self._catalog = None
            return answer_error(error)

    def _load(self) -> Table:
        if self._catalog is None:
            self._catalog = load_catalog(self._settings.catalog_name, **_properties(self._settings))
        identifier = tuple(self._settings.table.split("."))
        if self._settings.create and not self._catalog.table_exists(identifier):
            self._catalog.create_namespace_if_not_exists(identifier[:-1])
            self._catalog.create_table_if_not_exists(identifier, SCHEMA)
        return self._catalog.load_table(identifier)

    def _send(self, cut: Cut) -> Answer:
        table = self._load()
        cursor = read_cursor(table.properties, self._key(cut.handle))
        there = self._rows(table, cut) if cut.first_index < cursor.next else set()
        missing = [at for at, index in enumerate(cut.indexes) if index not in there]
        if missing or cut.name not in cursor.recent:
            self._commit(table, cut, missing, cursor)
        return Answer(AnswerKind.DELIVERED, where=self.place(cut))

    def _commit(self, table: Table, cut: Cut, missing: list[int], cursor: Cursor) -> None:
        """A crash in here: rows and cursor are there, or neither is; the cut is open, and looks."""
        rows = arrow_rows(table, [cut.indexes[at] for at in missing], [cut.lines[at] for at in missing])
        table.metadata.properties[TableProperties.COMMIT_NUM_RETRIES] = "0"  # of this copy only: see above
        moved = cursor.after(cut.last_index, cut.name, cut.checkpoint)
        with table.transaction() as transaction:
            if missing:
                transaction.append(rows, snapshot_properties={"tallystick.cut": cut.name, "tallystick.log": cut.origin})
            transaction.set_properties({self._key(cut.handle): moved.text()})

    def _rows(self, table: Table, cut: Cut) -> set[int]:
        """Indexes of the cut's events that have a row. Raises TableUnfitError when a row holds another event."""
        names = ("index", "line" if "line" in table.schema().column_names else "id")
        within = f"tenant = '{cut.tenant}' and index >= {cut.first_index} and index <= {cut.last_index}"
        found = table.scan(row_filter=within, selected_fields=names).to_arrow()
        wanted = arrow_rows(table, cut.indexes, cut.lines).select(names)
        expected = dict(zip(*(column.to_pylist() for column in wanted.columns), strict=True))
        for index, value in zip(*(found[name].to_pylist() for name in names), strict=True):
            if expected.get(index, value) != value:
                raise TableUnfitError(f"the row of {cut.tenant} under index {index} holds another event; nothing was written")
        return set(found["index"].to_pylist())

    def _probe(self) -> Answer:
        """All but the commit: rows are made for the columns that are there."""
        arrow_rows(self._load(), [], [])
        return Answer(AnswerKind.DELIVERED, where=f"iceberg:{self._settings.table}")

    def _key(self, handle: str) -> str:
        return f"tallystick.cursor.{self.name}.{handle}"


def _properties(settings: IcebergSettings) -> dict[str, str]:
    """The catalog's properties; a warehouse in a local directory is written through files that are synced."""
    found = dict(settings.catalog)
    warehouse = found.get("warehouse", "")
    path = local_path(warehouse) if warehouse else None
    if path is not None and found.get("type", "sql") != "rest":
        found["warehouse"] = path.absolute().as_uri()
        found.setdefault("py-io-impl", f"{SyncedFileIO.__module__}.{SyncedFileIO.__qualname__}")
    return found


def answer_error(error: BaseException) -> Answer:
    """Sort an error by the table above."""
    if isinstance(error, exceptions.TooManyRequestsError):
        return Answer(AnswerKind.THROTTLE, reason=_text(error))
    return Answer(AnswerKind.PARK if isinstance(error, _PARKING) else AnswerKind.RETRY, reason=_text(error))


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000]
