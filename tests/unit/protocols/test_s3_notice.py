"""Notifications in the forms that AWS documents."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.s3_notice import ObjectName, UnreadableNoticeError, read_notice


def s3(key: str, event: str = "ObjectCreated:Put", **more: str) -> dict[str, Any]:
    """As docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html."""
    entity = {"s3SchemaVersion": "1.0", "bucket": {"name": "trail"}, "object": {"key": key, "size": 10, **more}}
    return {"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1", "eventName": event, "s3": entity}


EVENTBRIDGE = {
    "version": "0", "detail-type": "Object Created", "source": "aws.s3", "region": "eu-west-1",
    "detail": {"bucket": {"name": "lake"}, "object": {"key": "a+b c", "size": 1, "etag": "x", "version-id": "v1"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"Records": [s3("AWSLogs/a+b%2Bc%C3%BC.gz")]}, [ObjectName("trail", "AWSLogs/a b+cü.gz", "", "eu-central-1")]),
        ({"Records": [s3("a", versionId="3"), s3("b")]}, [("trail", "a", "3", "eu-central-1"), ("trail", "b", "", "eu-central-1")]),
        ({"Records": [s3("a"), s3("a"), s3("b", "ObjectRemoved:Delete")]}, [("trail", "a", "", "eu-central-1")]),
        (EVENTBRIDGE, [("lake", "a+b c", "v1", "eu-west-1")]),
        ({**EVENTBRIDGE, "detail-type": "Object Deleted"}, []),
        ({"s3Bucket": "trail", "s3ObjectKey": ["a+b", "c"]}, [("trail", "a+b", "", ""), ("trail", "c", "", "")]),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-03-01T10:00:00Z", "Bucket": "trail"}, []),
    ],
)
def test_each_form_alone_and_wrapped_by_sns(message: dict[str, Any], expected: list[tuple[str, ...]]) -> None:
    """The same objects; keys are decoded where S3 encodes them, and only there."""
    text = json.dumps(message)
    assert read_notice(text.encode()) == expected
    wrapped = json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:…", "Message": text})
    assert read_notice(wrapped.encode()) == expected


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", '{"Records":[{}]}', '{"Records":7}', '{"s3Bucket":"b"}', '{"s3Bucket":"","s3ObjectKey":["k"]}',
     '{"detail-type":"Object Created","source":"aws.s3"}', '{"Type":"Notification","Message":"no"}'],
)  # fmt: skip
def test_other_messages_are_refused_with_a_reason(text: str) -> None:
    """Never anything but the one error."""
    with pytest.raises(UnreadableNoticeError, match=r"\w"):
        read_notice(text.encode())


_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["Records", "s3", "bucket", "object", "name", "key", "eventName", "detail", "detail-type", "Type", "Message"]),
        inner, max_size=4,
    ),
)  # fmt: skip


@given(_JSON.map(json.dumps) | st.text())
def test_any_message_is_read_or_refused(text: str) -> None:
    """Whatever it is."""
    try:
        found = read_notice(text.encode("utf-8", "surrogatepass"))
    except UnreadableNoticeError:
        return
    assert all(name.bucket and name.key for name in found)
