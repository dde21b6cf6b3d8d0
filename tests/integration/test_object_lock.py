"""S3 Object Lock of delivered objects, against moto's S3 server, looked at with boto3."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.delivery import make_cut, make_line
from support.moto import S3Server
from tallystick.config import Duration
from tallystick.destinations.object_lock import ObjectLockSettings
from tallystick.destinations.object_store import ObjectStoreDestination, ObjectStoreSettings
from tallystick.plugin import AnswerKind


def make(server: S3Server, bucket: str, mode: Any = "compliance", period: str = "30d") -> ObjectStoreDestination:
    lock = ObjectLockSettings(mode=mode, period=Duration(period))
    return ObjectStoreDestination("lake", ObjectStoreSettings(url=f"s3://{bucket}/audit", options=server.options, object_lock=lock))


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    name = f"locked-{uuid.uuid4().hex[:12]}"
    s3_server.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


async def test_object_and_proof_are_locked_before_they_count_as_delivered(s3_server: S3Server, bucket: str) -> None:
    """Both have the mode and the time; neither can be deleted; a repeat of the cut leaves the lock as it was."""
    destination = make(s3_server, bucket)
    cut = make_cut(destination, [make_line(0), make_line(1)])
    answer = await destination.send(cut)
    assert answer.kind is AnswerKind.DELIVERED, answer.reason
    client = s3_server.client()
    keys = [f"audit/{answer.where}", f"audit/{answer.where}.proof"]
    before = [client.head_object(Bucket=bucket, Key=key) for key in keys]
    for key, found in zip(keys, before, strict=True):
        assert found["ObjectLockMode"] == "COMPLIANCE"
        assert (
            timedelta(days=29, hours=23) < found["ObjectLockRetainUntilDate"] - datetime.now(UTC) <= timedelta(days=30, seconds=1)
        )
        version = client.head_object(Bucket=bucket, Key=key)["VersionId"]
        with pytest.raises(ClientError):
            client.delete_object(Bucket=bucket, Key=key, VersionId=version)
    await destination.close()
    again = make(s3_server, bucket, period="60d")
    assert (await again.send(cut)).kind is AnswerKind.DELIVERED
    after = [client.head_object(Bucket=bucket, Key=key) for key in keys]
    name = "ObjectLockRetainUntilDate"
    assert [found[name] for found in after] == [found[name] for found in before]
    await again.close()


async def test_an_object_without_a_lock_gets_it_with_the_retry(s3_server: S3Server, bucket: str) -> None:
    """The process ended between put and lock: the cut comes again, finds its object and locks it."""
    plain = ObjectStoreDestination("lake", ObjectStoreSettings(url=f"s3://{bucket}/audit", options=s3_server.options))
    destination = make(s3_server, bucket, mode="governance")
    cut = make_cut(destination, [make_line(0)])
    where = (await plain.send(cut)).where
    assert (await destination.send(cut)).kind is AnswerKind.DELIVERED
    found = s3_server.client().head_object(Bucket=bucket, Key=f"audit/{where}")
    assert found["ObjectLockMode"] == "GOVERNANCE"
    await plain.close()
    await destination.close()


async def test_a_bucket_without_object_lock_parks(s3_server: S3Server) -> None:
    """It was made without: nothing counts as delivered until somebody mends that."""
    destination = make(s3_server, s3_server.new_bucket())
    answer = await destination.send(make_cut(destination, [make_line(0)]))
    assert answer.kind is AnswerKind.PARK
    assert "could not be locked" in answer.reason
    await destination.close()
