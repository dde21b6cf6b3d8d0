"""OTLP and Parquet: other people's readers, and our own, get every event out of one body."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from support.event_corpus import HARD, LINES, hard_lines, line_of
from tallystick.destinations.encodings import ENCODINGS, EncodingSettings, make_encoder
from tallystick.errors import ConfigError
from tallystick.evidence.entry import event_hashes
from tallystick.evidence.merkle import joined_root
from tallystick.protocols.otlp import LogRecord, decode_protobuf

RANGE = {"origin": "audit.example.com/log/aaaaaaaaaaaaaaaa", "first_index": 3, "last_index": 9}
WHOLE = sorted(name for name, kind in ENCODINGS.items() if kind.shape == "whole")


def encode(name: str, lines: list[bytes]) -> bytes:
    return make_encoder(name).encode(lines, **RANGE)


def check_otlp(lines: list[bytes]) -> None:
    """The library's parser and our own door read a record for each event, and each body is a leaf."""
    body = encode("otlp", lines)
    request = ExportLogsServiceRequest.FromString(body)
    (resource,) = request.resource_logs
    (scope,) = resource.scope_logs
    assert [record.body.string_value.encode() for record in scope.log_records] == lines
    for record, line in zip(scope.log_records, lines, strict=True):
        event = json.loads(line)
        attributes = {one.key: one.value.string_value for one in record.attributes}
        assert len(attributes) == len(record.attributes)
        assert (attributes["audit.record.id"], attributes["audit.actor.id"]) == (event["id"], event["actor"]["id"])
        assert record.event_name == event["action"]
    ours = [one for group in decode_protobuf(body, 32, 1000) for one in group.records]
    assert all(isinstance(one, LogRecord) for one in ours)
    assert len(ours) == len(lines)


def check_parquet(lines: list[bytes]) -> None:
    """A row for each event, in order, and each line is a leaf."""
    file = pq.ParquetFile(io.BytesIO(encode("parquet", lines)))
    rows = file.read().to_pylist()
    assert [row["line"].encode() for row in rows] == lines
    for row, line in zip(rows, lines, strict=True):
        event = json.loads(line)
        assert (row["id"], row["tenant"], row["action"], row["actor_id"]) == (
            event["id"],
            "acme",
            event["action"],
            event["actor"]["id"],
        )
        assert row["target_id"] == [target["id"] for target in event.get("targets", [])]
    said = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}
    assert said == {
        "tallystick.log": RANGE["origin"],
        "tallystick.first_index": "3",
        "tallystick.last_index": "9",
        "tallystick.batch_root": base64.b64encode(joined_root(event_hashes(lines))).decode(),
    }


CHECKS = {"otlp": check_otlp, "parquet": check_parquet}


@pytest.mark.parametrize("name", WHOLE)
def test_hard_events_come_back(name: str) -> None:
    """Controls, other scripts, very long and empty members, in company and each alone."""
    CHECKS[name](hard_lines())
    for line in hard_lines():
        CHECKS[name]([line])


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=3), st.sampled_from(WHOLE))
def test_any_event_comes_back(lines: list[bytes], name: str) -> None:
    """Whatever a sender wrote."""
    CHECKS[name](lines)


@pytest.mark.parametrize("name", WHOLE)
def test_the_same_lines_give_the_same_bytes(name: str) -> None:
    """A retry sends what the first attempt did."""
    lines = hard_lines()
    assert encode(name, lines) == encode(name, lines)


def test_a_login_in_otlp() -> None:
    """Times in nanoseconds, the severity's number, trace and span as bytes, the range beside them."""
    body = ExportLogsServiceRequest.FromString(encode("otlp", [line_of(HARD["login"])]))
    resource, scoped = body.resource_logs[0], body.resource_logs[0].scope_logs[0]
    record: Any = scoped.log_records[0]
    moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert record.time_unix_nano == int(moment.timestamp()) * 10**9 + 891_234_000
    assert (record.severity_number, record.severity_text) == (13, "WARN")
    assert (record.trace_id.hex(), record.span_id.hex()) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    assert {one.key: one.value.string_value for one in resource.resource.attributes} == {"service.name": "tallystick"}
    assert {one.key: one.value.int_value for one in scoped.scope.attributes if one.key != "tallystick.log"} == {
        "tallystick.first_index": 3,
        "tallystick.last_index": 9,
    }


@pytest.mark.parametrize("time", ["1969-12-31T23:59:59.999999Z", "9999-01-01T00:00:00.000000Z"])
def test_a_time_that_nanoseconds_do_not_hold_is_unknown(time: str) -> None:
    """Not another time; the body has it."""
    body = ExportLogsServiceRequest.FromString(encode("otlp", [line_of(HARD["least"] | {"occurred_at": time})]))
    record = body.resource_logs[0].scope_logs[0].log_records[0]
    assert record.time_unix_nano == 0
    assert time in record.body.string_value


def test_duckdb_reads_the_file(tmp_path: Path) -> None:
    """Another reader than the one that wrote it, with types that SQL can work on."""
    path = tmp_path / "cut.parquet"
    path.write_bytes(encode("parquet", hard_lines()))
    query = f"select action, severity, outcome, target_id[1] from '{path}' where occurred_at < '2026-03-04 06:00:00+00'"
    assert duckdb.sql(query).fetchall() == [("user.login", 3, "denied", "crm")]


def test_parquet_is_not_compressed_twice() -> None:
    """A framing around it would keep readers from its columns."""
    assert make_encoder("parquet", "zstd").suffix == ".parquet"
    assert make_encoder("otlp", "zstd").suffix == ".binpb.zst"


def test_a_destination_of_lines_cannot_carry_them() -> None:
    """Refused before anything is made."""
    with pytest.raises(ConfigError, match="cannot carry the encoding 'parquet'"):
        EncodingSettings(encoding="parquet").make_encoder()
