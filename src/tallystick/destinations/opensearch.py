"""Destination `opensearch`: the bulk API of OpenSearch and Elasticsearch, at least once, with stable ids.

Each event is a `create` under its leaf hash (`encodings.bulk`), so sending it again changes nothing: 409 means that an earlier
attempt took effect. The answer to a bulk request is 200 whatever became of its items; each item is settled by its own status.
While some items are to be tried again, what was decided of the others is kept in memory, and the next attempt sends only the
rest; after a restart the whole cut is sent again, and those that are there answer 409.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Meta

from tallystick.config import DestinationSettings
from tallystick.destinations.answers import NO_ANSWER, AnswerTable, Row
from tallystick.destinations.encodings.bulk import BulkCreate
from tallystick.destinations.over_http import HttpDestination, HttpSettings, basic_authorization
from tallystick.errors import ConfigError, DestinationUnavailableError
from tallystick.http.outbound import Reply
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Compared, Cut

REPLY_MAX = 16 << 20
"""Bytes of a bulk answer that are read; only statuses and errors are asked for."""
_KEPT_MAX = 128
_SEARCH_EVENTS, _SEARCH_BYTES = 500, 2 << 20
_INDEX = re.compile(r"[a-z0-9.][a-z0-9._-]{0,199}")


class OpenSearchSettings(HttpSettings, frozen=True, kw_only=True):
    """`type = "opensearch"`"""

    index: Annotated[str, Meta(description="Index, alias or data stream; `{tenant}` is the event's tenant.")] = "audit-{tenant}"
    pipeline: Annotated[str | None, Meta(description="Ingest pipeline that each event goes through.")] = None
    username: Annotated[str | None, Meta(description="User, with `password`.")] = None
    password: Annotated[str | None, Meta(description="Password of `username`.")] = None
    api_key: Annotated[str | None, Meta(description="Elasticsearch's API key, in its encoded form, instead of a user.")] = None
    compression: Annotated[Literal["gzip", "none"], Meta(description="Of requests.")] = "gzip"

    def check(self) -> None:
        super().check()
        if not _INDEX.fullmatch(self.index.replace("{tenant}", "t")):
            raise ConfigError(
                f"index: {self.index!r} is no name of an index", hint="Lower-case letters, digits, `.`, `_`, `-`, and {tenant}"
            )
        if self.index.startswith("{tenant}"):
            raise ConfigError("index: it cannot begin with {tenant}: the server's own tenant begins with `_`, which no index may")
        self.authorization()

    def authorization(self) -> dict[str, str]:
        """The header that says who sends. Raises ConfigError."""
        return basic_authorization(self.username, self.password, self.api_key, scheme="ApiKey")


REQUESTS = AnswerTable(
    Row([200], AnswerKind.DELIVERED, "200", "each event by its own status, below"),
    Row([413], AnswerKind.SPLIT, "413", "split the cut in halves; a single event is dead-lettered as too_large", "too_large"),
    Row([429, 503], AnswerKind.THROTTLE, "429, 503", "throttle, as long as Retry-After says"),
    Row([408, range(500, 600)], AnswerKind.RETRY, "408, other 5xx", "retry"),
    Row([range(300, 500)], AnswerKind.PARK, "3xx (redirects are not followed), 400, 401, 403, 404, other 4xx", "park"),
)
ITEMS = AnswerTable(
    Row([200, 201], AnswerKind.DELIVERED, "event: 201", "delivered"),
    Row([409], AnswerKind.DELIVERED, "event: 409 (version conflict: it is there)", "delivered: an earlier attempt took effect"),
    Row(
        [401, 403, 404],
        AnswerKind.PARK,
        "event: 401, 403 (index is blocked), 404 (no such index)",
        "park; settled events stay settled",
    ),
    Row(
        [429, 503],
        AnswerKind.THROTTLE,
        "event: 429, 503 (queue or memory is full, shard not there)",
        "throttle; only these events again",
    ),
    Row(
        [range(400, 500)],
        AnswerKind.REFUSED,
        "event: 400 (mapping), other 4xx",
        "that event is dead-lettered with the error; the others are delivered",
        "refused",
    ),
    Row([range(500, 600)], AnswerKind.RETRY, "event: other 5xx", "retry; only these events again"),
)
_URGENCY = (AnswerKind.RETRY, AnswerKind.THROTTLE, AnswerKind.PARK)


class _Item(msgspec.Struct):
    status: int
    error: msgspec.Raw = msgspec.Raw(b"")


class _Reply(msgspec.Struct):
    items: list[dict[str, _Item]]


class _Hit(msgspec.Struct, rename={"name": "_id", "document": "_source"}):
    name: str
    document: Any


class _Hits(msgspec.Struct):
    hits: list[_Hit] = []


class _Found(msgspec.Struct):
    hits: _Hits = msgspec.field(default_factory=_Hits)


@dataclass(slots=True)
class _Open:
    """What an attempt left of a cut: positions still to be sent, and the replies for those refused for good."""

    positions: Sequence[int]
    refused: dict[int, str] = field(default_factory=dict)


class OpenSearchDestination(HttpDestination):
    """Documents in an index."""

    settings: ClassVar[type[DestinationSettings]] = OpenSearchSettings
    guarantee: ClassVar[str] = "at least once, with stable ids"
    window: ClassVar[int] = 4
    is_ordered: ClassVar[bool] = False
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=5_000, max_bytes=5 << 20, max_age_s=1.0)
    answers: ClassVar[dict[str, str]] = REQUESTS.published | ITEMS.published | NO_ANSWER

    def __init__(self, name: str, settings: OpenSearchSettings) -> None:
        super().__init__(name, settings, self.window)
        self.encoder: BulkCreate = BulkCreate(settings.make_events())
        self._index = settings.index
        self._has_pipeline = settings.pipeline is not None
        self._is_gzip = settings.compression == "gzip"
        self._headers = {"content-type": "application/x-ndjson"} | settings.authorization()
        asked = {"filter_path": "errors,items.*.status,items.*.error"}
        self._query = "?" + urlencode(asked | ({"pipeline": settings.pipeline} if settings.pipeline else {}), safe=",*")
        self._open: dict[str, _Open] = {}

    async def send(self, cut: Cut) -> Answer:
        name = f"{cut.handle}-{cut.name}"
        left = self._open.pop(name, None) or _Open(range(len(cut.lines)))
        index = self._index.replace("{tenant}", cut.tenant)
        is_whole = len(left.positions) == len(cut.lines)
        reply = await self._post_bulk(
            index, cut.body if is_whole else self.encoder.encode_lines([cut.lines[at] for at in left.positions])
        )
        answer = reply if isinstance(reply, Answer) else _settle(left, reply, f"{self.shown_url}/{index} {cut.name}")
        if answer.kind in _URGENCY:
            self._keep(name, left)
        return answer

    async def probe(self) -> Answer:
        """A bulk request without actions: who may not come in is told so, others that there is nothing to do (400)."""
        reply = await self._post_bulk(self._index.replace("{tenant}", "tallystick-probe"), b"\n")
        if isinstance(reply, Answer):
            return reply
        if reply.status in (200, 400):
            return Answer(AnswerKind.DELIVERED)
        return REQUESTS.answer(reply, self.shown_url)

    async def compare(self, cut: Cut) -> Compared:
        """By search under the names of the events; through a pipeline they may look otherwise, so only their being there counts.

        A search sees what was there at the last refresh, so that is asked for before anything is called missing.
        Raises DestinationUnavailableError.
        """
        index = self._index.replace("{tenant}", cut.tenant)
        missing: list[int] = []
        changed: list[int] = []
        for begin, end in _portions(cut.lines):
            rows = self.encoder.encode_lines(cut.lines[begin:end]).splitlines()
            names = [msgspec.json.decode(row)["create"]["_id"] for row in rows[::2]]
            found = await self._search(index, names)
            if len(found) < len(names):
                await self._ask(index, "_refresh", b"")
                found = await self._search(index, names)
            for at, name, document in zip(cut.indexes[begin:end], names, rows[1::2], strict=True):
                if name not in found:
                    missing.append(at)
                elif not self._has_pipeline and found[name] != msgspec.json.decode(document):
                    changed.append(at)
        return Compared(missing, changed)

    async def restore(self, cut: Cut, indexes: Sequence[int]) -> Answer:
        wanted = set(indexes)
        left = _Open([at for at, index in enumerate(cut.indexes) if index in wanted])
        name = self._index.replace("{tenant}", cut.tenant)
        reply = await self._post_bulk(name, self.encoder.encode_lines([cut.lines[at] for at in left.positions]))
        return reply if isinstance(reply, Answer) else _settle(left, reply, f"{self.shown_url}/{name} {cut.name}")

    async def list_indexes(self, tenant: str, after: int, limit: int) -> list[int]:
        """None: a document has no number, only the name that its bytes give it."""
        return []

    async def _search(self, index: str, names: Sequence[str]) -> dict[str, Any]:
        """The documents that lie under these names."""
        query = {"size": len(names), "query": {"ids": {"values": names}}}
        reply = await self._ask(index, "_search?filter_path=hits.hits._id,hits.hits._source", msgspec.json.encode(query))
        if reply is None:
            return {}
        try:
            return {hit.name: hit.document for hit in msgspec.json.decode(reply.body, type=_Found).hits.hits}
        except msgspec.MsgspecError as error:
            raise DestinationUnavailableError(f"not an answer to a search: {error}") from error

    async def _ask(self, index: str, what: str, body: bytes) -> Reply | None:
        """None: there is no such index."""
        headers = self._headers | {"content-type": "application/json"}
        reply = await self._request(f"/{quote(index)}/{what}", body, headers, is_gzip=False, reply_max=REPLY_MAX)
        if isinstance(reply, Answer):
            raise DestinationUnavailableError(reply.reason)
        if reply.status not in (200, 404):
            raise DestinationUnavailableError(
                f"{what.partition('?')[0]}: HTTP {reply.status} {reply.body[:300].decode('utf-8', 'replace')}"
            )
        return reply if reply.status == 200 else None

    async def _post_bulk(self, index: str, body: bytes) -> Reply | Answer:
        path = f"/{quote(index)}/_bulk{self._query}"
        return await self._request(path, body, self._headers, is_gzip=self._is_gzip, reply_max=REPLY_MAX)

    def _keep(self, name: str, left: _Open) -> None:
        """In memory only, and not for ever: what is forgotten is sent again, and found to be there."""
        self._open[name] = left
        while len(self._open) > _KEPT_MAX:
            self._open.pop(next(iter(self._open)))


def _portions(lines: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Spans of lines whose documents one answer can hold, whatever their encoding adds."""
    begin, size = 0, 0
    for at, line in enumerate(lines):
        if at > begin and (size + len(line) > _SEARCH_BYTES or at - begin >= _SEARCH_EVENTS):
            yield begin, at
            begin, size = at, 0
        size += len(line)
    yield begin, len(lines)


def _settle(left: _Open, reply: Reply, where: str) -> Answer:
    """Sort the items of a reply; ``left`` is changed to what is open after it."""
    if reply.status != 200:
        return REQUESTS.answer(reply, where)
    if len(reply.body) >= REPLY_MAX:
        return Answer(AnswerKind.SPLIT, reason="too_large", where=where)
    try:
        items = [item for named in msgspec.json.decode(reply.body, type=_Reply).items for item in named.values()]
    except msgspec.MsgspecError as error:
        return Answer(AnswerKind.RETRY, reason=f"not an answer to a bulk request: {error}", where=where)
    if len(items) != len(left.positions):
        return Answer(AnswerKind.RETRY, reason=f"{len(items)} answers to {len(left.positions)} events", where=where)
    again: list[int] = []
    worst, said = AnswerKind.RETRY, ""
    for at, item in zip(left.positions, items, strict=True):
        kind = ITEMS.kind(item.status)
        if kind is AnswerKind.REFUSED:
            left.refused[at] = _text(item)
        elif kind is not AnswerKind.DELIVERED:
            again.append(at)
            said = said or _text(item)
            worst = max(worst, kind, key=_URGENCY.index)
    left.positions = again
    if again:
        reason = f"{len(again)} of {len(items)} events: {said[:300]}"
        return Answer(worst, reason=reason, where=where, reply=said, retry_after_s=reply.retry_after_s())
    return Answer(AnswerKind.DELIVERED, reason="refused" if left.refused else "", where=where, refused=left.refused)


def _text(item: _Item) -> str:
    return f"HTTP {item.status} {bytes(item.error).decode('utf-8', 'replace')}"[:4_096]
