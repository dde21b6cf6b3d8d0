"""The otlp destination, against a receiver that OpenTelemetry's own exporter is happy with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

from support.delivery import LaneBench, World, make_cut, make_line
from tallystick.delivery.cut import BatchLimits
from tallystick.destinations.otlp import OtlpDestination, OtlpSettings
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind
from tallystick.privacy.keys import KeyStore
from tallystick.protocols.otlp import decode_protobuf
from tallystick.testing.otlp import OtlpReceiver
from tallystick.testing.receiver import Said

LINES = [make_line(index) for index in range(4)]


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


def settings(receiver: OtlpReceiver, **changes: Any) -> OtlpSettings:
    return OtlpSettings(**({"url": receiver.url, "allow_private": True} | changes))


async def send(receiver: OtlpReceiver, *answers: Said, lines: list[bytes] = LINES, **changes: Any) -> Answer:
    destination = OtlpDestination("otel", settings(receiver, **changes))
    receiver.script = list(answers)
    answer = await destination.send(make_cut(destination, lines))
    await destination.close()
    return answer


def test_the_receiver_answers_as_opentelemetrys_exporter_expects(receiver: OtlpReceiver) -> None:
    """A record of the SDK arrives through its own exporter, compressed, with its token."""
    receiver.token = "t"
    exporter = OTLPLogExporter(f"{receiver.url}/v1/logs", headers={"authorization": "Bearer t"}, compression=Compression.Gzip)
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("app").emit(body="hello", event_name="user.login")
    provider.shutdown()
    assert [(record.body.string_value, record.event_name) for record in receiver.records] == [("hello", "user.login")]


async def test_a_record_says_when_who_and_what(receiver: OtlpReceiver) -> None:
    """Times to the nanosecond, severity by OpenTelemetry's numbers, attributes of the audit draft, the canonical line as body."""
    event = json.loads(LINES[0]) | {
        "severity": 4,
        "context": {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"},
    }
    line = json.dumps(event, separators=(",", ":")).encode()
    assert (await send(receiver, lines=[line])).kind is AnswerKind.DELIVERED
    record = receiver.records[0]
    assert (record.time_unix_nano, record.observed_time_unix_nano) == (1772600767000000000, 1772600768000000000)
    assert (record.severity_number, record.severity_text, record.event_name) == (17, "ERROR", "user.login")
    assert record.body.string_value == line.decode()
    assert (record.trace_id.hex(), record.span_id.hex()) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert {pair.key: pair.value.string_value for pair in record.attributes} == {
        "audit.record.id": "acme-0",
        "audit.action": "user.login",
        "audit.outcome": "success",
        "audit.actor.id": "u_0",
        "audit.actor.type": "user",
        "tallystick.tenant": "acme",
    }
    logs = receiver.requests_read[0].resource_logs[0]
    assert logs.resource.attributes[0].value.string_value == "tallystick"
    assert logs.scope_logs[0].scope.attributes[0].value.string_value == "audit.example.com/log/aaaaaaaaaaaaaaaa"


async def test_what_no_field_can_hold_is_not_set(receiver: OtlpReceiver) -> None:
    """A time before 1970, an unknown severity, trace ids that are none."""
    event = json.loads(LINES[0]) | {"occurred_at": "1969-12-31T23:59:59.000000Z", "context": {"trace_id": "0" * 32, "span_id": "x"}}
    await send(receiver, lines=[json.dumps(event).encode()])
    record = receiver.records[0]
    assert (record.time_unix_nano, record.severity_number, record.trace_id, record.span_id) == (0, 0, b"", b"")


async def test_our_own_source_reads_the_records(receiver: OtlpReceiver) -> None:
    """The decoder of the source `otlp` finds each of them."""
    await send(receiver)
    groups = list(decode_protobuf(receiver.requests[0].body, 32, 100))
    records = [record for group in groups for record in group.records]
    assert [getattr(record, "attributes", {}).get("audit.record.id") for record in records] == [
        f"acme-{index}" for index in range(4)
    ]


async def test_partial_success_settles_each_event(receiver: OtlpReceiver, tmp_path: Any) -> None:
    """Through the lane: one record refused of twelve is the one dead letter, with the message; all others are there."""
    receiver.judge = lambda record: "no such schema" if record.attributes[0].value.string_value == "acme-5" else ""
    bench = LaneBench(tmp_path / "data", World(), KeyStore.create(tmp_path / "data.keys"))
    bench.world.add(12)
    destination = OtlpDestination("otel", settings(receiver))
    lane = bench.lane(destination, limits=BatchLimits(12, 1 << 20, 0.0))
    await bench.drain(lane)
    letters = [filed.letter for filed in lane.letters.read("d")]
    assert [(letter.event_id, letter.reason) for letter in letters] == [("acme-5", "refused")]
    assert "no such schema" in letters[0].reply
    taken = {record.attributes[0].value.string_value for record in receiver.records}
    assert taken == {f"acme-{index}" for index in range(12)} - {"acme-5"}
    await destination.close()


async def test_a_warning_is_a_success(receiver: OtlpReceiver) -> None:
    """A partial success that refuses nothing only carries a message."""
    response = ExportLogsServiceResponse()
    response.partial_success.error_message = "use v2 soon"
    answer = await send(receiver, Said(200, response.SerializeToString()))
    assert (answer.kind, answer.reply) == (AnswerKind.DELIVERED, "use v2 soon")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Said(200, b"<html>"), AnswerKind.RETRY),
        (Said(204), AnswerKind.RETRY),
        (Said(400), AnswerKind.SPLIT),
        (Said(413), AnswerKind.SPLIT),
        (Said(422), AnswerKind.SPLIT),
        (Said(429), AnswerKind.THROTTLE),
        (Said(503), AnswerKind.THROTTLE),
        (Said(408), AnswerKind.RETRY),
        (Said(500), AnswerKind.RETRY),
        (Said(502), AnswerKind.RETRY),
        (Said(504), AnswerKind.RETRY),
        (Said(401), AnswerKind.PARK),
        (Said(404), AnswerKind.PARK),
        (Said(307), AnswerKind.PARK),
    ],
)
async def test_each_status_has_its_answer(receiver: OtlpReceiver, answer: Said, kind: AnswerKind) -> None:
    """The table, over the wire."""
    assert (await send(receiver, answer)).kind is kind


@pytest.mark.parametrize("headers", [{"Host": "x"}, {"content-type": "x"}, {"a b": "x"}, {"a": "x\ny"}, {"": "x"}])
def test_headers_that_cannot_be_set_are_refused(receiver: OtlpReceiver, headers: dict[str, str]) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError):
        settings(receiver, headers=headers).check()
