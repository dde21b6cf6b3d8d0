"""Destination `loki`: entries at Grafana Loki's push API, at least once.

    POST …/loki/api/v1/push   {"streams":[{"stream":{"service_name":"tallystick","tenant":"acme"},"values":[["<ns>","<record>"]]}]}

One cut is one stream: its labels are the tenant and what the settings add, never what events say, so that their number stays
small. An entry's time is the event's `received_at`, which grows along the log; Loki refuses entries far behind the newest one
of their stream, and a late `occurred_at` would be. The same entry (labels, time, text) sent again is one entry in Loki.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta, field

from tallystick.config import DestinationSettings
from tallystick.destinations.answers import NO_ANSWER, AnswerTable, Row
from tallystick.destinations.encodings.framing import EventEncoding
from tallystick.destinations.encodings.registry import Shape
from tallystick.destinations.over_http import HttpDestination, HttpSettings, basic_authorization, require_header
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_EMPTY = b'{"streams":[]}'
_to_json = msgspec.json.Encoder().encode


class LokiSettings(HttpSettings, frozen=True, kw_only=True):
    """`type = "loki"`"""

    carries: ClassVar[tuple[Shape, ...]] = ("json", "text")

    labels: Annotated[
        dict[str, str], Meta(description="Labels beside `service_name` and `tenant`; they may replace the former.")
    ] = field(default_factory=dict)
    org_id: Annotated[str | None, Meta(description="Loki's tenant (`X-Scope-OrgID`); `{tenant}` in it is the event's tenant.")] = (
        None
    )
    username: Annotated[str | None, Meta(description="User, with `password`.")] = None
    password: Annotated[str | None, Meta(description="Password of `username`.")] = None
    token: Annotated[str | None, Meta(description="Bearer token instead of a user.")] = None

    def check(self) -> None:
        super().check()
        for name in self.labels:
            if not _LABEL.fullmatch(name) or name == "tenant":
                raise ConfigError(f"labels: {name!r} cannot be a label here", hint="Letters, digits and _, and not `tenant`")
        require_header(self.org_id or "none", "org_id")
        self.authorization()

    def authorization(self) -> dict[str, str]:
        """The header that says who sends. Raises ConfigError."""
        return basic_authorization(self.username, self.password, self.token)


TABLE = AnswerTable(
    Row([200, 204], AnswerKind.DELIVERED, "204, 200", "delivered"),
    Row([413], AnswerKind.SPLIT, "413", "split the cut in halves; a single event is dead-lettered as too_large", "too_large"),
    Row(
        [400, 422],
        AnswerKind.SPLIT,
        "400, 422 (too old, too far behind, line too long, …: the other entries were taken)",
        "split the cut in halves; a single event is dead-lettered as refused",
        "refused",
    ),
    Row([429, 503], AnswerKind.THROTTLE, "429 (rate limits), 503", "throttle, as long as Retry-After says"),
    Row([408, range(500, 600)], AnswerKind.RETRY, "408, other 5xx", "retry"),
    Row([range(300, 500)], AnswerKind.PARK, "3xx (redirects are not followed), 401, 403, 404, other 4xx", "park"),
)


class _Event(msgspec.Struct):
    tenant: str
    received_at: str


_read_event = msgspec.json.Decoder(_Event).decode


class LokiStream:
    """One push request with one stream."""

    content_type = "application/json"
    suffix = ".json"

    def __init__(self, events: EventEncoding, labels: dict[str, str]) -> None:
        self._events = events
        self._labels = {"service_name": "tallystick"} | labels
        self.name = f"{events.name}_loki"
        self.version = f"1+{events.version}"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        about = [_read_event(line) for line in lines]
        records = self._events.encode_events(lines)
        values = [[_nanoseconds(event.received_at), record.decode()] for event, record in zip(about, records, strict=True)]
        return _to_json({"streams": [{"stream": self._labels | {"tenant": about[0].tenant}, "values": values}]})


class LokiDestination(HttpDestination):
    """Entries in a stream of each tenant."""

    settings: ClassVar[type[DestinationSettings]] = LokiSettings
    guarantee: ClassVar[str] = "at least once"
    window: ClassVar[int] = 4
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=1_000, max_bytes=768 << 10, max_age_s=1.0)
    answers: ClassVar[dict[str, str]] = TABLE.published | NO_ANSWER

    def __init__(self, name: str, settings: LokiSettings) -> None:
        super().__init__(name, settings, self.window)
        self.encoder = LokiStream(settings.make_events(), settings.labels)
        self._org_id = settings.org_id
        self._headers = {"content-type": "application/json"} | settings.authorization()

    async def send(self, cut: Cut) -> Answer:
        return await self._push(cut.body, cut.tenant, f"{self.shown_url} {cut.handle}-{cut.name}")

    async def probe(self) -> Answer:
        """A push without streams; that it is refused as empty (400, 422) shows that it came in."""
        answer = await self._push(_EMPTY, "tallystick-probe", self.shown_url)
        return Answer(AnswerKind.DELIVERED) if answer.kind is AnswerKind.SPLIT else answer

    async def _push(self, body: bytes, tenant: str, where: str) -> Answer:
        headers = self._headers
        if self._org_id is not None:
            headers = headers | {"x-scope-orgid": self._org_id.replace("{tenant}", tenant)}
        reply = await self._request("/loki/api/v1/push", body, headers, is_gzip=True)
        return reply if isinstance(reply, Answer) else TABLE.answer(reply, where)


def _nanoseconds(text: str) -> str:
    return f"{int(datetime.fromisoformat(text).timestamp())}{text[20:26]}000"
