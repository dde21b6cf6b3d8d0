"""Destination `datadog`: log entries at Datadog's intake, at least once.

    POST https://http-intake.logs.<site>/api/v2/logs   [{"ddsource":…,"service":…,"ddtags":"tenant:acme","message":"<record>"}]

202 says that the request was accepted for processing; there is no later word. Datadog cuts entries over 1 MB and says 202 all
the same, so an event over that is refused here, and goes to the dead letters whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta, field

from tallystick.config import DestinationSettings
from tallystick.destinations.answers import NO_ANSWER, AnswerTable, Row
from tallystick.destinations.encodings.framing import EventEncoding
from tallystick.destinations.encodings.registry import Shape
from tallystick.destinations.over_http import HttpDestination, HttpSettings, require_header
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut

ENTRIES_MAX = 1_000
ENTRY_BYTES_MAX = 1_000_000
BODY_BYTES_MAX = 5_000_000
"""Datadog's limits of one request, before compression."""
_to_json = msgspec.json.Encoder().encode


class DatadogSettings(HttpSettings, frozen=True, kw_only=True):
    """`type = "datadog"`"""

    carries: ClassVar[tuple[Shape, ...]] = ("json", "text")

    url: Annotated[str, Meta(description="The intake of your site, as in https://http-intake.logs.datadoghq.eu.")] = (
        "https://http-intake.logs.datadoghq.com"
    )
    api_key: Annotated[str, Meta(description="API key.")]
    service: Annotated[str, Meta(description="Service of each entry.")] = "tallystick"
    source: Annotated[str, Meta(description="Source of each entry (`ddsource`), which chooses Datadog's pipeline.")] = "tallystick"
    tags: Annotated[dict[str, str], Meta(description="Tags beside `tenant`.")] = field(default_factory=dict)

    def check(self) -> None:
        super().check()
        require_header(self.api_key, "api_key")
        if (self.batch.max_events or 0) > ENTRIES_MAX:
            raise ConfigError(f"batch.max_events: Datadog takes at most {ENTRIES_MAX} entries at once")
        if any(character in text for pair in self.tags.items() for text in pair for character in ", \n"):
            raise ConfigError("tags: names and values have neither commas nor spaces")

    def about(self) -> dict[str, str]:
        """What each entry says about itself; the tenant is added to its tags."""
        tags = ",".join(f"{name}:{value}" for name, value in self.tags.items())
        return {"ddsource": self.source, "service": self.service, "ddtags": tags}


TABLE = AnswerTable(
    Row([200, 202], AnswerKind.DELIVERED, "202, 200", "delivered"),
    Row([413], AnswerKind.SPLIT, "413", "split the cut in halves; a single event is dead-lettered as too_large", "too_large"),
    Row(
        [400],
        AnswerKind.SPLIT,
        "400 (payload formatting)",
        "split the cut in halves; a single event is dead-lettered as refused",
        "refused",
    ),
    Row([429, 503], AnswerKind.THROTTLE, "429, 503", "throttle, as long as Retry-After says"),
    Row([408, range(500, 600)], AnswerKind.RETRY, "408, other 5xx", "retry"),
    Row([range(300, 500)], AnswerKind.PARK, "3xx (redirects are not followed), 401, 403 (API key), other 4xx", "park"),
)
_OWN = {
    "an event over 1 MB, a body over 5 MB, before anything is sent": "split the cut in halves; a single event is dead-lettered as too_large"
}


class _Event(msgspec.Struct):
    tenant: str


_read_event = msgspec.json.Decoder(_Event).decode


class DatadogEntries:
    """A JSON array of entries; the event is the text of `message`, which Datadog takes apart when it is JSON."""

    content_type = "application/json"
    suffix = ".json"

    def __init__(self, events: EventEncoding, about: dict[str, str]) -> None:
        self._events = events
        self._about = about
        self.name = f"{events.name}_datadog"
        self.version = f"1+{events.version}"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        tags = [f"tenant:{_read_event(lines[0]).tenant}", self._about["ddtags"]]
        about = self._about | {"ddtags": ",".join(filter(None, tags))}
        return _to_json([about | {"message": record.decode()} for record in self._events.encode_events(lines)])


class DatadogDestination(HttpDestination):
    """Entries at the intake of one site."""

    settings: ClassVar[type[DestinationSettings]] = DatadogSettings
    guarantee: ClassVar[str] = "at least once"
    window: ClassVar[int] = 4
    is_ordered: ClassVar[bool] = False
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=ENTRIES_MAX, max_bytes=2 << 20, max_age_s=1.0)
    answers: ClassVar[dict[str, str]] = TABLE.published | _OWN | NO_ANSWER

    def __init__(self, name: str, settings: DatadogSettings) -> None:
        super().__init__(name, settings, self.window)
        self.encoder = DatadogEntries(settings.make_events(), settings.about())
        self._headers = {"content-type": "application/json", "dd-api-key": settings.api_key}

    async def send(self, cut: Cut) -> Answer:
        where = f"{self.shown_url} {cut.handle}-{cut.name}"
        if max(map(len, cut.lines)) > ENTRY_BYTES_MAX or len(cut.body) > BODY_BYTES_MAX:
            return Answer(AnswerKind.SPLIT, reason="too_large", where=where)
        return await self._post(cut.body, where)

    async def probe(self) -> Answer:
        """An array without entries; that it is refused as empty (400) shows that the key came in."""
        answer = await self._post(b"[]", self.shown_url)
        return Answer(AnswerKind.DELIVERED) if answer.kind is AnswerKind.SPLIT else answer

    async def _post(self, body: bytes, where: str) -> Answer:
        reply = await self._request("/api/v2/logs", body, self._headers, is_gzip=True)
        return reply if isinstance(reply, Answer) else TABLE.answer(reply, where)
