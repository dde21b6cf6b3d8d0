"""Destination `splunk_hec`: Splunk's HTTP Event Collector, at least once, settled by the indexer's acknowledgement.

    POST …/services/collector/event     200 {"text":"Success","code":0,"ackId":7}    looks well-formed: nothing is stored yet
    POST …/services/collector/ack       {"acks":[7]} → {"acks":{"7":true}}           replicated and indexed as the indexers are set

The collector says 200 before the events enter its pipeline, where an outage can lose them. So a cut is delivered when its
acknowledgement is true, asked for on the same channel; when it has not come within `ack_timeout`, the cut is sent again. With
`acknowledgement = false` the 200 must do, and the guarantee in force is `best effort`.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta, field

from tallystick.config import DestinationSettings, Duration
from tallystick.destinations.answers import NO_ANSWER, AnswerTable, Row, describe
from tallystick.destinations.encodings.hec import HecEvents
from tallystick.destinations.encodings.registry import Shape, find_encoding
from tallystick.destinations.over_http import HttpDestination, HttpSettings, require_header
from tallystick.http.outbound import Reply
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut

_FIRST_POLL_S = 0.1


class SplunkHecSettings(HttpSettings, frozen=True, kw_only=True):
    """`type = "splunk_hec"`"""

    carries: ClassVar[tuple[Shape, ...]] = ("json", "text")

    token: Annotated[str, Meta(description="The collector's token.")]
    acknowledgement: Annotated[
        bool,
        Meta(description="Wait for the indexer's acknowledgement, which the token must have enabled; without it: best effort."),
    ] = True
    ack_timeout: Annotated[Duration, Meta(description="Send again what is not acknowledged by then.")] = field(
        default_factory=lambda: Duration("5m")
    )
    ack_interval: Annotated[Duration, Meta(description="Longest time between two questions for an acknowledgement.")] = field(
        default_factory=lambda: Duration("5s")
    )
    index: Annotated[str | None, Meta(description="Index, if not the token's own.")] = None
    sourcetype: Annotated[str, Meta(description="Source type.")] = "_json"
    source: Annotated[str | None, Meta(description="Source; the origin of the tenant's log when it is missing.")] = None
    host: Annotated[str | None, Meta(description="Host, if not what the collector puts there.")] = None

    def check(self) -> None:
        super().check()
        require_header(self.token, "token")

    def about(self) -> dict[str, str]:
        """What each event says about itself."""
        named = {"host": self.host, "index": self.index, "source": self.source, "sourcetype": self.sourcetype}
        return {name: value for name, value in named.items() if value is not None}


CODES = AnswerTable(
    Row(
        [0, 17, 24, 25],
        AnswerKind.DELIVERED,
        "code 0, and 24, 25 (queue or acknowledgements near capacity)",
        "wait for the acknowledgement",
    ),
    Row([1, 2, 3, 4, 21, 22], AnswerKind.PARK, "code 1, 2, 3, 4, 21, 22 (token disabled, missing, invalid)", "park"),
    Row(
        [7, 10, 11, 14, 16],
        AnswerKind.PARK,
        "code 7 (incorrect index), 10, 11 (channel), 14 (acknowledgement is disabled), 16 (query authorization)",
        "park",
    ),
    Row(
        [5, 6, 12, 13, 15],
        AnswerKind.SPLIT,
        "code 5 (no data), 6 (invalid data format), 12, 13 (event missing, blank), 15 (indexed fields)",
        "split the cut in halves; a single event is dead-lettered as refused",
        "refused",
    ),
    Row(
        [9, 18, 19, 20, 23, 26, 27],
        AnswerKind.THROTTLE,
        "code 9 (server is busy), 18, 19, 20 (unhealthy), 23 (shutting down), 26, 27 (queue or acknowledgements at capacity)",
        "throttle, as long as Retry-After says",
    ),
    Row([8], AnswerKind.RETRY, "code 8 (internal server error), any other code", "retry"),
)
STATUSES = AnswerTable(
    Row(
        [413],
        AnswerKind.SPLIT,
        "413, whatever the code",
        "split the cut in halves; a single event is dead-lettered as too_large",
        "too_large",
    ),
    Row([429, 503], AnswerKind.THROTTLE, "429, 503 without a code", "throttle, as long as Retry-After says"),
    Row([408, range(200, 300), range(500, 600)], AnswerKind.RETRY, "408, 2xx, other 5xx without a code", "retry"),
    Row([range(300, 500)], AnswerKind.PARK, "3xx (redirects are not followed), other 4xx without a code", "park"),
)
_ACKNOWLEDGED = {
    "acknowledged": "delivered",
    "not acknowledged within ack_timeout": "retry: the cut is sent again",
    "no acknowledgement id with code 0": "park: enable indexer acknowledgement for the token, or set acknowledgement = false",
}


class _Said(msgspec.Struct):
    code: int
    text: str = ""
    ack_id: int | None = msgspec.field(default=None, name="ackId")


class _Acks(msgspec.Struct):
    acks: dict[str, bool]


class SplunkHecDestination(HttpDestination):
    """Events at a collector."""

    settings: ClassVar[type[DestinationSettings]] = SplunkHecSettings
    guarantee: ClassVar[str] = "at least once"
    window: ClassVar[int] = 8
    is_ordered: ClassVar[bool] = False
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=2_000, max_bytes=768 << 10, max_age_s=1.0)
    answers: ClassVar[dict[str, str]] = CODES.published | _ACKNOWLEDGED | STATUSES.published | NO_ANSWER

    def __init__(self, name: str, settings: SplunkHecSettings) -> None:
        super().__init__(name, settings, self.window * 2)
        is_json = find_encoding(settings.encoding, settings.carries).shape == "json"
        self.encoder = HecEvents(settings.make_events(), settings.about(), is_json=is_json)
        self.effective_guarantee = self.guarantee if settings.acknowledgement else "best effort"
        self._channel = str(uuid.uuid4())
        self._headers = {"authorization": f"Splunk {settings.token}", "content-type": "application/json"}
        self._is_acknowledged = settings.acknowledgement
        if self._is_acknowledged:
            self._headers["x-splunk-request-channel"] = self._channel
        self._ack_timeout_s = settings.ack_timeout.seconds
        self._ack_interval_s = settings.ack_interval.seconds

    async def send(self, cut: Cut) -> Answer:
        reply = await self._request("/services/collector/event", cut.body, self._headers, is_gzip=True)
        if isinstance(reply, Answer):
            return reply
        where = f"{self.shown_url} {cut.handle}-{cut.name}"
        answer = read_reply(reply, where)
        if answer.kind is not AnswerKind.DELIVERED or not self._is_acknowledged:
            return answer
        ack_id = msgspec.json.decode(reply.body, type=_Said).ack_id
        if ack_id is None:
            reason = "the token has no indexer acknowledgement: enable it, or set acknowledgement = false"
            return Answer(AnswerKind.PARK, reason=reason, where=where, reply=answer.reply)
        return await self._wait_for_ack(ack_id, f"{where} ack {ack_id}")

    async def probe(self) -> Answer:
        """Whether the token may come in, and has what is needed: a question for an acknowledgement, or a request without events."""
        if self._is_acknowledged:
            asked = await self._ask(0)
            return asked if isinstance(asked, Answer) else Answer(AnswerKind.DELIVERED)
        reply = await self._request("/services/collector/event", b"", self._headers)
        if isinstance(reply, Answer):
            return reply
        answer = read_reply(reply, self.shown_url)
        return Answer(AnswerKind.DELIVERED) if answer.kind is AnswerKind.SPLIT else answer

    async def _wait_for_ack(self, ack_id: int, where: str) -> Answer:
        """Ask until it is true or the time is over. A question that fails is asked again: the events may be there all the same."""
        clock = asyncio.get_running_loop()
        deadline, pause = clock.time() + self._ack_timeout_s, _FIRST_POLL_S
        trouble = ""
        while True:
            asked = await self._ask(ack_id)
            if asked is True:
                return Answer(AnswerKind.DELIVERED, where=where)
            if isinstance(asked, Answer):
                trouble = f" ({asked.reason})"
            left = deadline - clock.time()
            if left <= 0.0:
                return Answer(AnswerKind.RETRY, reason=f"not acknowledged within {self._ack_timeout_s:g} s{trouble}", where=where)
            await asyncio.sleep(min(pause, left, self._ack_interval_s))
            pause *= 2

    async def _ask(self, ack_id: int) -> bool | Answer:
        """Whether the indexer has acknowledged; an Answer when it did not say."""
        body = msgspec.json.encode({"acks": [ack_id]})
        reply = await self._request(f"/services/collector/ack?channel={self._channel}", body, self._headers)
        if isinstance(reply, Answer):
            return reply
        try:
            return msgspec.json.decode(reply.body, type=_Acks).acks.get(str(ack_id), False)
        except msgspec.MsgspecError:
            answer = read_reply(reply, self.shown_url)
            if answer.kind is AnswerKind.DELIVERED:
                return Answer(AnswerKind.RETRY, reason="no answer to a question for an acknowledgement", reply=answer.reply)
            return answer


def read_reply(reply: Reply, where: str) -> Answer:
    """Sort a reply by the collector's own code, or by its status when something else answered (a load balancer, say)."""
    by_status = STATUSES.answer(reply, where)
    if reply.status == 413:
        return by_status
    try:
        said = msgspec.json.decode(reply.body, type=_Said)
    except msgspec.MsgspecError:
        return by_status
    row, text = CODES.find(said.code), by_status.reply
    if row is None:
        return Answer(AnswerKind.RETRY, reason=describe(reply.status, text), where=where, reply=text)
    if row.kind is AnswerKind.DELIVERED:
        return Answer(row.kind, where=where, reply=text)
    reason = row.reason or f"code {said.code}: {said.text[:200]}"
    return Answer(row.kind, reason=reason, where=where, reply=text, retry_after_s=reply.retry_after_s())
