"""Messages that say which objects came into a bucket, in the four forms in which queues hold them.

    {"Records": [{"eventName": "ObjectCreated:Put", "awsRegion": …, "s3": {"bucket": {"name": …}, "object": {"key": …}}}]}    S3
    {"detail-type": "Object Created", "detail": {"bucket": {"name": …}, "object": {"key": …, "version-id": …}}}        EventBridge
    {"s3Bucket": "…", "s3ObjectKey": ["…"]}                                                                   CloudTrail over SNS
    {"Type": "Notification", "Message": "…"}                                                     SNS, around any of the others

S3 writes keys as forms do (`+` for a space, `%2F`); EventBridge and CloudTrail write them as they are.
docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html, …/ev-events.html
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote_plus

import msgspec

_WRAPS_MAX = 3

_decode = msgspec.json.Decoder().decode


class ObjectName(NamedTuple):
    """One object. ``version`` and ``region`` are empty where the message does not name them."""

    bucket: str
    key: str
    version: str = ""
    region: str = ""


class UnreadableNoticeError(Exception):
    """A message of none of the forms; its text says why."""


def read_notice(body: bytes) -> list[ObjectName]:
    """The objects that a message names as created, each once. None: a test message, or one about something else than new objects.

    Raises UnreadableNoticeError.
    """
    message = _members(body)
    for _ in range(_WRAPS_MAX):
        if message.get("Type") != "Notification" or not isinstance(message.get("Message"), str):
            break
        message = _members(message["Message"].encode())
    try:
        return list(dict.fromkeys(_objects(message)))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UnreadableNoticeError(f"a notification without {error}") from error


def _objects(message: dict[str, Any]) -> list[ObjectName]:
    if message.get("Event") == "s3:TestEvent":
        return []
    if "s3Bucket" in message:
        return [_name(message["s3Bucket"], key) for key in message["s3ObjectKey"]]
    if "detail-type" in message:
        is_new = message.get("source") == "aws.s3" and message["detail-type"] == "Object Created"
        return [_from_detail(message)] if is_new else []
    if "Records" in message:
        return [
            _from_record(one) for one in message["Records"] if one["eventName"].startswith(("ObjectCreated:", "s3:ObjectCreated:"))
        ]
    raise UnreadableNoticeError("no notification of S3, EventBridge, CloudTrail or SNS")


def _from_record(record: dict[str, Any]) -> ObjectName:
    found = record["s3"]["object"]
    return _name(record["s3"]["bucket"]["name"], unquote_plus(found["key"]), found.get("versionId"), record.get("awsRegion"))


def _from_detail(message: dict[str, Any]) -> ObjectName:
    found = message["detail"]["object"]
    return _name(message["detail"]["bucket"]["name"], found["key"], found.get("version-id"), message.get("region"))


def _name(bucket: Any, key: Any, version: Any = None, region: Any = None) -> ObjectName:
    if not isinstance(bucket, str) or not isinstance(key, str) or not bucket or not key:
        raise UnreadableNoticeError("a notification without the names of bucket and object")
    return ObjectName(bucket, key, version if isinstance(version, str) else "", region if isinstance(region, str) else "")


def _members(text: bytes) -> dict[str, Any]:
    try:
        found = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableNoticeError(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnreadableNoticeError("no JSON object")
    return found
