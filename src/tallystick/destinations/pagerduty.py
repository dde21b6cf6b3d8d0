"""Destination `pagerduty`: incidents through PagerDuty's Events API v2, at least once, merged by `dedup_key`.

    tallystick.alert, tallystick.alert.reopen, tallystick.alarm.raised, and every other event      trigger
    tallystick.alert.acknowledge                                                                   acknowledge
    tallystick.alert.close, tallystick.alarm.cleared                                               resolve

The key of an alert is made of tenant, rule and group, so that its repeats join the open incident and a change of state finds it; that of
an alarm is the alarm's name; other events have a key of their own. The API takes one event a request: a cut is as many requests, in
order. How many of them were taken is remembered for the next attempt; after a restart the cut begins anew, which the keys make
harmless for triggers. The routing key joins at the time of sending: no stored cut has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta, field

from tallystick.config import DestinationSettings, Duration
from tallystick.destinations.answers import NO_ANSWER, AnswerTable, Row
from tallystick.destinations.notice import ALERT, Manners, Notice, one_line, read_notice
from tallystick.destinations.over_http import HttpDestination, HttpSettings
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut

SUMMARY_MAX = 1_024
"""Characters of a summary that PagerDuty takes."""
_DETAIL_MAX = 16 << 10
_ACTIONS: Final = {
    f"{ALERT}.acknowledge": "acknowledge",
    f"{ALERT}.close": "resolve",
    "tallystick.alarm.cleared": "resolve",
}
_SEVERITIES: Final = ("info", "info", "warning", "warning", "error", "critical", "critical")
_PATH = "/v2/enqueue"
_to_json = msgspec.json.Encoder().encode


class PagerDutySettings(HttpSettings, frozen=True, kw_only=True):
    """`type = "pagerduty"`"""

    routing_key: Annotated[str, Meta(description="Integration key of a service, Events API v2.", min_length=1)]
    url: Annotated[str, Meta(description="Where the Events API is: `https://events.eu.pagerduty.com` for accounts in the EU.")] = (
        "https://events.pagerduty.com"
    )
    severity: Annotated[Literal["info", "warning", "error", "critical"], Meta(description="Severity of events that have none.")] = (
        "info"
    )
    interval: Annotated[Duration, Meta(description="Least time between two requests.")] = field(
        default_factory=lambda: Duration("500ms")
    )

    def check(self) -> None:
        super().check()
        if self.encoding != "json":
            raise ConfigError("encoding: PagerDuty's events have one form")
        if not self.routing_key.isascii() or not self.routing_key.isprintable():
            raise ConfigError("routing_key holds characters that no integration key has")


TABLE = AnswerTable(
    Row([202, 200], AnswerKind.DELIVERED, "202, 200", "delivered"),
    Row(
        [400, 413],
        AnswerKind.REFUSED,
        "400 (invalid event), 413",
        "that event is dead-lettered as refused; the others of the cut are sent",
        "refused",
    ),
    Row([429, 503], AnswerKind.THROTTLE, "429, 503", "throttle, as long as Retry-After says"),
    Row([408, range(500, 600)], AnswerKind.RETRY, "408, other 5xx", "retry"),
    Row([range(300, 500)], AnswerKind.PARK, "401, 403, 404, other 3xx and 4xx", "park"),
)


class PagerDutyEvents:
    """A JSON list of events, each without its routing key."""

    name = "pagerduty"
    version = "1"
    content_type = "application/json"
    suffix = ".json"

    def __init__(self, severity: str) -> None:
        self._severity = severity

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        return _to_json([self._event(read_notice(line), origin) for line in lines])

    def _event(self, notice: Notice, origin: str) -> dict[str, Any]:
        level = notice.severity
        return {
            "event_action": _ACTIONS.get(notice.action, "trigger"),
            "dedup_key": dedup_key(notice),
            "payload": {
                "summary": one_line(_summary(notice), SUMMARY_MAX),
                "source": notice.tenant,
                "severity": _SEVERITIES[level] if 0 < level < len(_SEVERITIES) else self._severity,
                "timestamp": notice.occurred_at,
                "component": origin,
                "class": notice.action,
                "custom_details": _details(notice),
            },
        }


class PagerDutyDestination(HttpDestination):
    """Events of one integration."""

    settings: ClassVar[type[DestinationSettings]] = PagerDutySettings
    guarantee: ClassVar[str] = "at least once, with stable ids"
    window: ClassVar[int] = 1
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=20, max_bytes=256 << 10, max_age_s=0.5)
    answers: ClassVar[dict[str, str]] = {"400 that names the routing key": "park"} | TABLE.published | NO_ANSWER

    def __init__(self, name: str, settings: PagerDutySettings) -> None:
        super().__init__(name, settings, 1)
        self.encoder = PagerDutyEvents(settings.severity)
        self._key = settings.routing_key
        self._manners = Manners(settings.interval.seconds, 0.0)
        self._begun = ""  # digest of the cut that an attempt ended in
        self._refused: dict[int, str] = {}
        self._done = 0

    async def send(self, cut: Cut) -> Answer:
        events = msgspec.json.decode(cut.body, type=list[dict[str, Any]])
        if self._begun != cut.sha256:
            self._begun, self._done, self._refused = cut.sha256, 0, {}
        for number in range(self._done, len(events)):
            answer = await self._post(events[number])
            if answer.kind is AnswerKind.REFUSED:
                self._refused[number] = answer.reply or answer.reason
            elif answer.kind is not AnswerKind.DELIVERED:
                return answer
            self._done = number + 1
        refused, self._begun = self._refused, ""
        where = f"pagerduty {cut.handle}-{cut.name}"
        if len(refused) == len(events):
            return Answer(AnswerKind.REFUSED, reason="refused", where=where, reply=refused[0])
        return Answer(AnswerKind.DELIVERED, where=where, refused=refused, reason="refused" if refused else "")

    async def probe(self) -> Answer:
        """An event without action or payload: that it is refused as such (400) shows that the API is there. It says nothing of the key."""
        answer = await self._post({})
        return Answer(AnswerKind.DELIVERED) if answer.kind is AnswerKind.REFUSED else answer

    async def _post(self, event: dict[str, Any]) -> Answer:
        await self._manners.wait()
        body = _to_json({"routing_key": self._key, **event})
        reply = await self._request(_PATH, body, {"content-type": "application/json"})
        self._manners.sent((), "", is_delivered=False)
        if isinstance(reply, Answer):
            return reply
        answer = TABLE.answer(reply, "pagerduty")
        if answer.kind is AnswerKind.REFUSED and "routing" in answer.reply.lower():
            return Answer(AnswerKind.PARK, reason="PagerDuty does not take the routing key", where=answer.where, reply=answer.reply)
        return answer


def dedup_key(notice: Notice) -> str:
    """At most 255 characters, as PagerDuty has it."""
    if notice.alert:
        return "tallystick-alert-" + hashlib.sha256("\0".join(notice.group).encode("utf-8", "surrogatepass")).hexdigest()
    if alarm := notice.metadata.get("alarm") if notice.action.startswith("tallystick.alarm.") else None:
        return "tallystick-alarm-" + hashlib.sha256(str(alarm).encode("utf-8", "surrogatepass")).hexdigest()
    return f"tallystick-event-{notice.tenant}-{notice.id}"


def _summary(notice: Notice) -> str:
    reason = f": {notice.reason}" if notice.reason else ""
    return f"{notice.subject} ({notice.tenant}) by {notice.actor.called}{reason}"


def _details(notice: Notice) -> dict[str, Any]:
    """What helps whoever is called; an event's metadata only while it is small."""
    facts = {"id": notice.id, "outcome": notice.outcome, "actor": notice.actor.id, "metadata": notice.metadata}
    if len(_to_json(notice.metadata)) > _DETAIL_MAX:
        del facts["metadata"]
    return facts | ({"ip": notice.context["ip"]} if "ip" in notice.context else {})
