"""The source `s3` against moto's S3 and SQS, told by the bucket's own notifications, and an intake with dials."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from support.moto import S3Server
from tallystick.config.settings import IngestLimits
from tallystick.config.units import Duration, Size
from tallystick.errors import ConfigError, TallystickError
from tallystick.plugin import SourceContext
from tallystick.sources.s3 import S3Settings, S3Source
from tallystick.testing.source import MemoryIntake

LINES = [b'{"n":1}', b'{"n":2}', b'{"n":3}']
TRAIL = b'{"Records":[%b]}' % b",".join(LINES)


class Rig:
    """One bucket that tells one queue, and the source that reads them."""

    def __init__(self, server: S3Server, tmp_path: Path) -> None:
        self.server, self.tmp_path = server, tmp_path
        self.bucket = server.new_bucket()
        self.queue = server.new_queue(self.bucket)
        self.s3, self.sqs = server.client(), server.client("sqs")
        self.intake = MemoryIntake()

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def send(self, message: Any) -> None:
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=message if isinstance(message, str) else json.dumps(message))

    def held(self) -> tuple[int, int]:
        """Messages that wait, and messages that are hidden."""
        return self.server.waiting(self.queue)

    def make(self, **options: Any) -> S3Source:
        given = {"queue": self.queue, "region": "us-east-1", "endpoint": self.server.endpoint, "workers": 1}
        settings = S3Settings(**{**given, "access_key_id": "testing", "secret_access_key": "testing", **options})
        return S3Source(settings, SourceContext("trail", self.tmp_path, self.tmp_path / "state", IngestLimits()))

    @asynccontextmanager
    async def source(self, **options: Any) -> AsyncIterator[S3Source]:
        source, stop = self.make(**options), asyncio.Event()
        task = asyncio.create_task(source.run(self.intake, stop))
        try:
            yield source
        finally:
            self.intake.is_open.set()  # so that a test that failed ends
            stop.set()
            await task

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(0.02)

    async def until_empty(self) -> None:
        await self.until(lambda: self.held() == (0, 0))


@pytest.fixture
def rig(s3_server: S3Server, tmp_path: Path) -> Rig:
    return Rig(s3_server, tmp_path)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, compression="zstd", row_group_size=2)
    return out.getvalue()


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("plain.jsonl", b"\n".join(LINES)),
        ("AWSLogs/a b+ü%41=.json.gz", gzip.compress(b"\n".join(LINES[:1])) + gzip.compress(b"\n" + b"\n".join(LINES[1:]))),
        ("lines.zst", zstandard.compress(b"\r\n".join(LINES) + b"\n")),
        ("trail.json.gz", gzip.compress(TRAIL)),
        ("array.json", b"[" + b", ".join(LINES) + b"]"),
        ("lake.parquet", parquet([{"n": 1}, {"n": 2}, {"n": 3}])),
    ],
    ids=["plain", "two gzip members", "zstd", "CloudTrail file", "array", "Parquet"],
)
async def test_each_form_of_object_becomes_records(rig: Rig, key: str, body: bytes) -> None:
    """What is in it is told by its content, whatever it is called; records know bucket, key and their place."""
    rig.put(key, body)
    async with rig.source() as source:
        await rig.until_empty()
        assert source.status()["objects"] == 1
        await rig.until(lambda: source.status()["last_success"])
    assert [record.data for record in rig.intake.records] == LINES
    assert rig.intake.records[0].more == {"s3": {"bucket": rig.bucket, "key": key}}
    assert len({record.id for record in rig.intake.records}) == 3
    assert rig.intake.faults == []


async def test_the_message_is_deleted_after_the_last_commit(rig: Rig) -> None:
    """While the intake waits it is only hidden, and stays so for longer than its visibility; pieces are bounded; nothing comes twice."""
    rig.put("a", b"\n".join(b'{"n":%d}' % n for n in range(25)))
    rig.intake.is_open.clear()
    async with rig.source(batch_records=10, visibility=Duration("3s")) as source:
        await rig.until(lambda: rig.held() == (0, 1))
        for _ in range(20):  # for longer than the visibility: each look must find it hidden
            assert await asyncio.to_thread(rig.held) == (0, 1)
            await asyncio.sleep(0.2)
        rig.intake.is_open.set()
        await rig.until_empty()
        assert source.status()["repeats"] == 0
    assert rig.intake.commits == [10, 10, 5]


async def test_what_is_read_again_has_the_same_ids(rig: Rig) -> None:
    """Two messages about one object: a repeat, for the journal to merge. Another content under the key is other records."""
    rig.put("a", TRAIL)
    async with rig.source():
        await rig.until_empty()
        rig.send({"s3Bucket": rig.bucket, "s3ObjectKey": ["a"]})
        await rig.until(lambda: len(rig.intake.records) == 6)
        await rig.until_empty()
        rig.put("a", b'[{"n":9}]')
        await rig.until(lambda: len(rig.intake.records) == 7)
    ids = [record.id for record in rig.intake.records]
    assert ids[:3] == ids[3:6]
    assert ids[6] not in ids[:6]


@pytest.mark.parametrize(
    ("body", "good", "reason"),
    [
        (gzip.compress(b"\n".join(LINES) * 2000)[:-20], None, "after record"),
        (b'{"Records":[{"n":1},{"n":2},oops]}', 2, "record 3"),
        (b'{"Records":[{"n":1},', 1, "record 2"),
        (parquet([{"n": 1}])[:-30], 0, "Parquet"),
        (zstandard.compress(b'{"n":1}\n' * 10_000), None, "object_max"),
    ],
)
async def test_a_damaged_object_is_in_the_quarantine(rig: Rig, body: bytes, good: int | None, reason: str) -> None:
    """Once, with its name and the reason, behind the records that were good; its message is deleted, and the next object is read."""
    rig.put("bad", body)
    rig.put("good", LINES[0])
    async with rig.source(object_max=Size("64KiB")):
        await rig.until_empty()
    (fault,) = rig.intake.faults
    assert fault.code == "object_unreadable"
    assert reason in fault.message
    assert json.loads(fault.record)["key"] == "bad"
    if good is not None:
        assert len(rig.intake.records) == good + 1


async def test_a_line_that_is_too_long_costs_only_itself(rig: Rig) -> None:
    """Its beginning is in the quarantine."""
    rig.put("a", b"\n".join([LINES[0], b"x" * 5000, LINES[1]]))
    async with rig.source(record_max=Size("1KiB")):
        await rig.until_empty()
    assert [record.data for record in rig.intake.records] == LINES[:2]
    assert [(fault.code, len(fault.record)) for fault in rig.intake.faults] == [("record_too_large", 1024)]


async def test_other_messages(rig: Rig) -> None:
    """A test message is deleted; what is no notification, and another's bucket, go to the quarantine; excluded keys are left out."""
    rig.send({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": rig.bucket})
    rig.send("hello")
    rig.send({"s3Bucket": "somebody-else", "s3ObjectKey": ["a"]})
    rig.put("AWSLogs/1/CloudTrail-Digest/d.json", TRAIL)
    rig.put("b", b"")
    async with rig.source(buckets=(rig.bucket,), exclude=("*/CloudTrail-Digest/*",)):
        await rig.until_empty()
    assert sorted(fault.code for fault in rig.intake.faults) == ["bucket_not_allowed", "notification_unreadable"]
    assert rig.intake.records == []


async def test_an_object_that_is_gone_is_a_gap(rig: Rig) -> None:
    """Told once in the account, counted as missing; the message is deleted."""
    rig.put("a", TRAIL)
    rig.s3.delete_object(Bucket=rig.bucket, Key="a")
    async with rig.source() as source:
        await rig.until_empty()
        assert source.status()["missing"] == 1
    assert list(rig.intake.gaps.values()) == [{"bucket": rig.bucket, "key": "a", "count": 1}]


async def test_an_object_that_cannot_be_had_leaves_its_message_to_the_redrive_policy(rig: Rig) -> None:
    """A bucket that is not there (a wrong endpoint, say) loses nothing: after two tries the message is in the dead letter queue."""
    dead = rig.server.new_queue()
    arn = rig.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    rig.sqs.set_queue_attributes(QueueUrl=rig.queue, Attributes={"RedrivePolicy": policy})
    rig.send({"s3Bucket": f"none-{uuid.uuid4().hex}", "s3ObjectKey": ["a"]})
    async with rig.source(visibility=Duration("1s")) as source:
        await rig.until(lambda: rig.server.waiting(dead) == (1, 0))
        assert "s3://none-" in source.status()["reason"]
        assert source.status()["repeats"] == 1
    assert rig.intake.records == []


async def test_a_stop_gives_the_message_back_at_once(rig: Rig) -> None:
    """Between two pieces; the next run reads the object from its beginning, with the same ids."""
    rig.put("a", b"\n".join(b'{"n":%d}' % n for n in range(100)))
    rig.intake.delay_s = 0.2
    async with rig.source(batch_records=1, visibility=Duration("1h")):
        await rig.until(lambda: rig.intake.commits)
    assert len(rig.intake.records) < 100
    assert rig.held() == (1, 0)
    first = [record.id for record in rig.intake.records]
    rig.intake.delay_s = 0.0
    async with rig.source():
        await rig.until_empty()
    assert [record.id for record in rig.intake.records][len(first) :][: len(first)] == first


async def test_a_queue_that_is_not_there_ends_the_run(rig: Rig) -> None:
    """With the queue's own words."""
    source = rig.make(queue=rig.queue + "x")
    with pytest.raises(TallystickError, match="QueueDoesNotExist"):
        await source.run(rig.intake, asyncio.Event())


async def test_rows_of_security_lake(rig: Rig) -> None:
    """Nested, with times; members without a value are left out."""
    row = {
        "time": 1,
        "time_dt": datetime(2026, 3, 1, 10, tzinfo=UTC),
        "api": {"operation": "PutObject", "version": None},
        "x": None,
    }
    rig.put("a", parquet([row, {**row, "x": "y"}]))
    async with rig.source():
        await rig.until_empty()
    assert json.loads(rig.intake.records[0].data) == {
        "time": 1,
        "time_dt": "2026-03-01T10:00:00Z",
        "api": {"operation": "PutObject"},
    }


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"queue": "arn:aws:sqs:eu-central-1:1:q"}, "queue"),
        ({"queue": "https://queue.example.com/q"}, "region"),
        ({"queue": "http://sqs.eu-central-1.amazonaws.com/1/q"}, "queue"),
        ({"endpoint": "http://minio.example.com"}, "endpoint"),
        ({"access_key_id": "a"}, "access_key_id"),
        ({"visibility": Duration("13h")}, "visibility"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], place: str, tmp_path: Path) -> None:
    """Refused with the place."""
    settings = S3Settings(**{"queue": "https://sqs.eu-central-1.amazonaws.com/1/q", **options})
    with pytest.raises(ConfigError) as caught:
        settings.check(tmp_path)
    assert caught.value.place == place


def test_the_region_stands_in_the_queues_url(tmp_path: Path) -> None:
    """Of AWS's own queues, those behind a VPC endpoint included."""
    for host in (
        "sqs.eu-central-1.amazonaws.com",
        "vpce-1-2.sqs.eu-central-1.vpce.amazonaws.com",
        "sqs.eu-central-1.amazonaws.com.cn",
    ):
        settings = S3Settings(queue=f"https://{host}/1/q")
        settings.check(tmp_path)
        assert settings.home == "eu-central-1"
