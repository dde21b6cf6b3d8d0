"""Destination `clickhouse`: rows over ClickHouse's HTTP interface; exactly once.

    nothing of ours still runs there? ──► which rows of the cut are there? ──► INSERT the others, with a token ──► count

How exactly-once works: ClickHouse has no transaction over rows and a cursor, and no unique key. So the rows are the cursor.

1. Before a cut is inserted, the rows under its (tenant, index) are asked for, with their digests. Those that are there stay; a row that holds
   another event parks the destination.
2. An attempt whose outcome is not known (no answer in time, a connection that broke, a start) may still be running at the server. Until none
   of our inserts runs there, nothing is sent.
3. An INSERT carries a token made of the cut's name. Servers that know tokens keep a second one out within the table's window of
   tokens, also where it was still on its way, in some proxy.
4. Afterwards the rows are counted: an answer of 200 over rows that are not there is no delivery. When a server keeps rows out that were deleted
   meanwhile (its window still has the token), the attempt after that switches its keeping-out off.

A crash anywhere: the cut is open, and is asked for.

Statements are put together from names that the settings' patterns let through and from numbers; a tenant's name has no character that a
literal would have to escape (DESIGN section 4). Old servers know no parameters.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from typing import Annotated, ClassVar
from urllib.parse import urlencode

from msgspec import Meta

from tallystick.config import DestinationSettings
from tallystick.destinations.answers import NO_ANSWER, AnswerTable, Row, describe
from tallystick.destinations.clickhouse_table import TableUnfitError, columns_to_fill, create_statement, make_row, quoted
from tallystick.destinations.encodings import make_encoder
from tallystick.destinations.over_http import HttpDestination, HttpSettings, require_header
from tallystick.destinations.row import tab_separated
from tallystick.errors import ConfigError, DestinationUnavailableError, TallystickError
from tallystick.http.outbound import Reply
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut

_NAME = r"\A[A-Za-z_][A-Za-z0-9_]{0,126}\Z"
_REPLY_MAX = 64 << 20
_CODE = re.compile(r"Code: (\d+)")
_PLACE = re.compile(r"clickhouse:(?P<table>[^#]*)#(?P<tenant>[^#]*)#(?P<first>\d+)-(?P<last>\d+)#count=(?P<count>\d+)")
_INSERT_SETTINGS = ("insert_deduplication_token", "insert_deduplicate", "async_insert")


class ClickHouseSettings(HttpSettings, frozen=True, kw_only=True):
    """`type = "clickhouse"`"""

    database: Annotated[str, Meta(description="Database; it must be there.", pattern=_NAME)] = "default"
    table: Annotated[str, Meta(description="Table of the events.", pattern=_NAME)] = "tallystick_events"
    user: Annotated[str, Meta(description="User.", min_length=1)] = "default"
    password: Annotated[str | None, Meta(description="Password of `user`.")] = None
    create: Annotated[bool, Meta(description="Make the table when it is missing.")] = True

    def check_encoding(self) -> None:
        if self.encoding != "json":
            raise ConfigError("rows have columns, and `line` is the canonical line: there is no other encoding")

    def check(self) -> None:
        super().check()
        self.check_encoding()
        self.login()

    def login(self) -> dict[str, str]:
        """The headers that say who sends. Raises ConfigError."""
        password = {} if not self.password else {"x-clickhouse-key": require_header(self.password, "the password")}
        return {"x-clickhouse-user": require_header(self.user, "the user")} | password


STATUSES = AnswerTable(
    Row([413], AnswerKind.SPLIT, "413", "split the cut in halves; a single event is dead-lettered as too_large", "too_large"),
    Row([429, 503], AnswerKind.THROTTLE, "429, 503 without a code", "throttle, as long as Retry-After says"),
    Row([401, 403, 404, range(300, 400)], AnswerKind.PARK, "3xx, 401, 403, 404 without a code", "park"),
)
CODES = AnswerTable(
    Row(
        [6, 25, 26, 27, 38, 41, 53, 69, 70, 72, 117, 131, 134, 349, 436, 469],
        AnswerKind.SPLIT,
        "code 6, 25–27, 38, 41, 53, 69, 70, 72, 117, 131, 134, 349, 436, 469 (a value does not fit, a constraint)",
        "split the cut in halves; a single event is dead-lettered as refused",
        "refused",
    ),
    Row(
        [16, 20, 36, 47, 48, 60, 62, 81, 115, 164, 192, 193, 194, 195, 291, 452, 497, 516],
        AnswerKind.PARK,
        "code 16, 47, 60, 62, 81, 115, 164 (column, table, database, syntax, setting, read-only), 192–195, 291, 497, 516 (login, permission), 452 (setting not allowed)",
        "park",
    ),
    Row(
        [201, 202, 241, 252],
        AnswerKind.THROTTLE,
        "code 201, 202, 241, 252 (quota, too many queries, memory, too many parts)",
        "throttle",
    ),
)


class _RefusedError(TallystickError):
    """The server said no to a statement."""

    code = "statement_refused"

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reason)
        self.answer = answer


class ClickHouseDestination(HttpDestination):
    """One cut after the other; the rows are their own cursor."""

    settings: ClassVar[type[DestinationSettings]] = ClickHouseSettings
    guarantee: ClassVar[str] = "exactly once"
    window: ClassVar[int] = 1
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=10_000, max_bytes=16 << 20, max_age_s=1.0)
    answers: ClassVar[dict[str, str]] = (
        {
            "200, and the rows are there": "delivered",
            "rows that are there already, the same events": "delivered: an earlier attempt took effect; what is missing is inserted",
            "a row under (tenant, index) with another event": "park, with an alarm; nothing is written",
            "200, but rows are missing": "retry",
            "an insert of ours still runs": "retry",
        }
        | CODES.published
        | STATUSES.published
        | {"any other code or status": "retry"}
        | NO_ANSWER
    )

    def __init__(self, name: str, settings: ClickHouseSettings) -> None:
        super().__init__(name, settings, self.window)
        self.encoder = make_encoder("json")
        self._settings = settings
        self._table = quoted(settings.table)
        self._headers = settings.login()
        self._columns: dict[str, str] = {}
        self._known: Sequence[str] = ()
        self._is_unsure = True
        self._kept_out: str = ""

    def place(self, cut: Cut) -> str:
        span = f"{cut.first_index}-{cut.last_index}"
        return f"clickhouse:{self._shown_table()}#{cut.tenant}#{span}#count={len(cut.indexes)}"

    async def find(self, place: str, sha256: str) -> bool | None:
        """Whether all rows of the cut are there; a cut anew keeps out those that are. Raises DestinationUnavailableError."""
        match = _PLACE.fullmatch(place)
        if match is None or match["table"] != self._shown_table():
            return None
        try:
            await self._prepare()
            return await self._count(match["tenant"], int(match["first"]), int(match["last"])) >= int(match["count"])
        except (TableUnfitError, _RefusedError) as error:
            raise DestinationUnavailableError(error.message) from error

    async def send(self, cut: Cut) -> Answer:
        try:
            answer = await self._send(cut)
        except TableUnfitError as error:
            answer = Answer(AnswerKind.PARK, reason=error.message)
        except _RefusedError as error:
            answer = error.answer
        self._is_unsure = answer.kind is not AnswerKind.DELIVERED
        if self._is_unsure:
            self._columns = {}  # a table may be altered while nothing could be written
        return answer

    async def probe(self) -> Answer:
        self._columns = {}
        try:
            await self._prepare()
            await self._run(f"INSERT INTO {self._table} ({self._names()}) SELECT {self._names()} FROM {self._table} WHERE 0")  # noqa: S608
        except TableUnfitError as error:
            return Answer(AnswerKind.PARK, reason=error.message)
        except _RefusedError as error:
            return error.answer
        return Answer(AnswerKind.DELIVERED, where=f"clickhouse:{self._shown_table()}")

    async def _send(self, cut: Cut) -> Answer:
        await self._prepare()
        if self._is_unsure and await self._is_running():
            return Answer(AnswerKind.RETRY, reason="an earlier insert still runs at the server")
        there = await self._rows(cut)
        missing = [at for at, index in enumerate(cut.indexes) if index not in there]
        for at, index in enumerate(cut.indexes):
            if index in there and not self._is_same(there[index], cut.lines[at]):
                text = f"the row of {cut.tenant} under index {index} holds another event; nothing was written"
                return Answer(AnswerKind.PARK, reason=text)
        if missing:
            await self._insert(cut, missing)
            if await self._count(cut.tenant, cut.first_index, cut.last_index) < len(cut.indexes):
                self._kept_out = cut.name
                return Answer(AnswerKind.RETRY, reason="the server said 200, but rows are missing")
        return Answer(AnswerKind.DELIVERED, where=self.place(cut))

    async def _insert(self, cut: Cut, missing: Sequence[int]) -> None:
        """A crash in here: some or all rows are there; the next attempt sees which."""
        rows = [make_row(cut.indexes[at], cut.lines[at], self._columns) for at in missing]
        wanted = {"insert_deduplication_token": f"{cut.handle}-{cut.name}-{len(missing)}", "async_insert": "0"}
        if self._kept_out == cut.name:
            wanted = {"insert_deduplicate": "0", "async_insert": "0"}
        settings = {name: value for name, value in wanted.items() if name in self._known}
        statement = f"INSERT INTO {self._table} ({self._names()}) FORMAT TabSeparated"
        await self._run(statement, tab_separated(rows), query_id=f"{self._query_prefix()}{uuid.uuid4().hex}", **settings)

    async def _prepare(self) -> None:
        """Learn the server's version by what it knows, make the table, and look at it. Raises TableUnfitError, _RefusedError."""
        if self._columns:
            return
        self._known = await self._names_in("system.settings", _INSERT_SETTINGS)
        table = self._settings.table
        if self._settings.create:
            micros = await self._names_in("system.data_type_families", ["DateTime64"])
            ours = ("non_replicated_deduplication_window", "fsync_after_insert", "fsync_part_directory")
            table_settings = await self._names_in("system.merge_tree_settings", ours)
            if not await self._run(f"SELECT 1 FROM system.tables WHERE database = currentDatabase() AND name = '{table}'"):  # noqa: S608
                await self._run(create_statement(table, has_micros=bool(micros), table_settings=table_settings))
        described = await self._run(f"DESCRIBE TABLE {self._table}")
        self._columns = columns_to_fill(table, {row[0]: row[1].replace("\\'", "'") for row in described})

    async def _names_in(self, table: str, names: Sequence[str]) -> list[str]:
        listed = ", ".join(f"'{name}'" for name in names)
        return [row[0] for row in await self._run(f"SELECT name FROM {table} WHERE name IN ({listed})")]  # noqa: S608

    async def _is_running(self) -> bool:
        where = f"startsWith(query_id, '{self._query_prefix()}')"
        return bool(await self._run(f"SELECT 1 FROM system.processes WHERE {where} LIMIT 1"))  # noqa: S608

    async def _rows(self, cut: Cut) -> dict[int, list[str]]:
        """Index → what is known of the row that is there: its id and, where the table has the line, its digest."""
        digest = ", lower(hex(SHA256(line)))" if "line" in self._columns else ""
        where = _within(cut.tenant, cut.first_index, cut.last_index)
        found = await self._run(f"SELECT `index`, id{digest} FROM {self._table} WHERE {where}")  # noqa: S608
        return {int(row[0]): row[1:] for row in found}

    def _is_same(self, row: Sequence[str], line: bytes) -> bool:
        if len(row) > 1:
            return row[1] == hashlib.sha256(line).hexdigest()
        return row[0] == make_row(0, line, {"id": "String"})[0]

    async def _count(self, tenant: str, first: int, last: int) -> int:
        found = await self._run(f"SELECT uniqExact(`index`) FROM {self._table} WHERE {_within(tenant, first, last)}")  # noqa: S608
        return int(found[0][0])

    async def _run(self, statement: str, data: bytes = b"", **options: str) -> list[list[str]]:
        """Rows of the answer. Raises _RefusedError for whatever is no success."""
        asked = {"database": self._settings.database, "wait_end_of_query": "1"} | options
        path, body = (asked | {"query": statement}, data) if data else (asked, statement.encode())
        reply = await self._request("/?" + urlencode(path), body, self._headers, reply_max=_REPLY_MAX)
        if isinstance(reply, Answer):
            raise _RefusedError(reply)
        if reply.status != 200:
            raise _RefusedError(answer_reply(reply, self.shown_url))
        return [line.split("\t") for line in reply.body.decode("utf-8", "replace").splitlines()]

    def _names(self) -> str:
        return ", ".join(map(quoted, self._columns))

    def _query_prefix(self) -> str:
        return f"tallystick-{self.name}-{self._settings.table}-"

    def _shown_table(self) -> str:
        return f"{self._settings.database}.{self._settings.table}"


def _within(tenant: str, first: int, last: int) -> str:
    return f"tenant = '{tenant}' AND `index` BETWEEN {first} AND {last}"


def answer_reply(reply: Reply, where: str) -> Answer:
    """Sort an answer by ClickHouse's own code, or without one by its status."""
    text = reply.body[: 64 << 10].decode("utf-8", "replace")
    found = _CODE.search(text)
    code = reply.headers.get("x-clickhouse-exception-code", "") or (found[1] if found else "")
    if not code.isdigit():
        return STATUSES.answer(reply, where)
    row = CODES.find(int(code))
    kind, name = (AnswerKind.RETRY, "") if row is None else (row.kind, row.reason)
    return Answer(kind, reason=name or describe(reply.status, text), where=where, reply=text)
