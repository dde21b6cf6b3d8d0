"""Destination `otlp`: log records over OTLP/HTTP in Protobuf, at least once.

    POST …/v1/logs   ExportLogsServiceRequest → 200 ExportLogsServiceResponse, perhaps with a partial success

A partial success says how many records were refused, not which ones, and that they must not be sent again as they are. So that
every event gets an outcome of its own, a cut of which some were refused is split, until each part was taken as a whole or refused as
a whole: records that were taken may arrive again on the way there.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from google.protobuf.message import DecodeError
from msgspec import Meta, field
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from tallystick.config import DestinationSettings
from tallystick.destinations.answers import NO_ANSWER, AnswerTable, Row
from tallystick.destinations.encodings.otlp_logs import OtlpLogs
from tallystick.destinations.encodings.registry import Shape
from tallystick.destinations.over_http import HttpDestination, HttpSettings
from tallystick.errors import ConfigError
from tallystick.http.outbound import Reply
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut

_OWN_HEADERS = {"content-type", "content-encoding", "content-length", "host", "user-agent", "transfer-encoding"}


class OtlpSettings(HttpSettings, frozen=True, kw_only=True):
    """`type = "otlp"`"""

    carries: ClassVar[tuple[Shape, ...]] = ("json", "text")

    headers: Annotated[dict[str, str], Meta(description="Headers of each request, such as `authorization`.")] = field(
        default_factory=dict
    )
    service_name: Annotated[str, Meta(description="`service.name` of the resource.")] = "tallystick"
    compression: Annotated[Literal["gzip", "none"], Meta(description="Of requests.")] = "gzip"

    def check(self) -> None:
        super().check()
        for name, value in self.headers.items():
            is_plain = (
                name.isascii() and name.replace("-", "").replace("_", "").isalnum() and value.isascii() and value.isprintable()
            )
            if not is_plain or name.lower() in _OWN_HEADERS:
                raise ConfigError(f"headers: {name!r} cannot be set here")


TABLE = AnswerTable(
    Row([200], AnswerKind.DELIVERED, "200", "delivered"),
    Row([413], AnswerKind.SPLIT, "413", "split the cut in halves; a single event is dead-lettered as too_large", "too_large"),
    Row([400, 422], AnswerKind.SPLIT, "400, 422", "split the cut in halves; a single event is dead-lettered as refused", "refused"),
    Row([429, 503], AnswerKind.THROTTLE, "429, 503", "throttle, as long as Retry-After says"),
    Row([408, range(201, 300), range(500, 600)], AnswerKind.RETRY, "408, 502, 504, other 2xx and 5xx", "retry"),
    Row([range(300, 500)], AnswerKind.PARK, "3xx (redirects are not followed), 401, 403, 404, other 4xx", "park"),
)
_PARTIAL = {
    "200, all records refused": "the events are dead-lettered as refused, with the message",
    "200, some records refused": "split the cut in halves, until it is known which",
    "200, none refused, with a message": "delivered; the message is kept",
}


class OtlpDestination(HttpDestination):
    """Log records at a collector or a backend."""

    settings: ClassVar[type[DestinationSettings]] = OtlpSettings
    guarantee: ClassVar[str] = "at least once"
    window: ClassVar[int] = 4
    is_ordered: ClassVar[bool] = False
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=1_000, max_bytes=1 << 20, max_age_s=1.0)
    answers: ClassVar[dict[str, str]] = TABLE.published | _PARTIAL | NO_ANSWER

    def __init__(self, name: str, settings: OtlpSettings) -> None:
        super().__init__(name, settings, self.window)
        self.encoder = OtlpLogs(settings.make_events(), settings.service_name)
        self._is_gzip = settings.compression == "gzip"
        self._headers = {"content-type": "application/x-protobuf"} | {
            name.lower(): value for name, value in settings.headers.items()
        }

    async def send(self, cut: Cut) -> Answer:
        where = f"{self.shown_url} {cut.handle}-{cut.name}"
        reply = await self._post(cut.body)
        if isinstance(reply, Answer):
            return reply
        return read_success(reply, len(cut.lines), where) if reply.status == 200 else TABLE.answer(reply, where)

    async def probe(self) -> Answer:
        """A request without records, which the protocol allows."""
        reply = await self._post(b"")
        if isinstance(reply, Answer):
            return reply
        answer = TABLE.answer(reply, self.shown_url)
        return Answer(AnswerKind.DELIVERED) if answer.kind is AnswerKind.SPLIT else answer

    async def _post(self, body: bytes) -> Reply | Answer:
        return await self._request("/v1/logs", body, self._headers, is_gzip=self._is_gzip)


def read_success(reply: Reply, sent: int, where: str) -> Answer:
    """What a 200 says of ``sent`` records."""
    try:
        partial = ExportLogsServiceResponse.FromString(reply.body).partial_success
    except DecodeError as error:
        return Answer(AnswerKind.RETRY, reason=f"200 with no answer of OTLP: {error}", where=where)
    refused, message = partial.rejected_log_records, partial.error_message
    if refused <= 0:
        return Answer(AnswerKind.DELIVERED, where=where, reply=message)
    said = f"{refused} of {sent} records refused: {message}"
    kind = AnswerKind.REFUSED if refused >= sent else AnswerKind.SPLIT
    return Answer(kind, reason="refused", where=where, reply=said)
