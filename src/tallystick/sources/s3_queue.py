"""One SQS queue over its JSON protocol: receive, hold, delete; signed with what botocore finds as credentials.

docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference. Requests run on the event loop, so that a long poll can be given up
when the server stops; a message that the queue gave out into a poll given up comes again when its visibility time is over.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import botocore.exceptions
import botocore.session
import httpx
import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tallystick.errors import TallystickError

_REGION = re.compile(r"(?:^|\.)sqs\.([a-z0-9-]+)\.(?:vpce\.)?amazonaws\.com(?:\.cn)?\Z")
_REQUEST_S = 10.0
_FRESH_S = 300


class QueueError(TallystickError):
    """The queue cannot be reached, or refuses us."""

    code = "queue_unavailable"


class Message(NamedTuple):
    """``receipt`` names this delivery; ``deliveries`` is how many there were of the message, this one included."""

    id: str
    body: bytes
    receipt: str
    deliveries: int


def region_of(url: str) -> str | None:
    """The region that a queue's URL names; None when it names none."""
    match = _REGION.search(urlsplit(url).hostname or "")
    return match[1] if match else None


class AwsCredentials:
    """Given keys, or what AWS's own chain finds: environment, profile, web identity, container, instance. Renewed by botocore."""

    def __init__(self, access_key_id: str | None, secret_access_key: str | None, session_token: str | None) -> None:
        self._given = Credentials(access_key_id, secret_access_key, session_token) if access_key_id else None
        self._found: Any = None

    def frozen(self) -> Any:
        """Access key, secret key and token of now. Blocking. Raises QueueError when there are none."""
        try:
            if self._given is None and self._found is None:
                self._found = botocore.session.get_session().get_credentials()
            found = self._given or self._found
            if found is None:
                raise QueueError("no AWS credentials were found", hint="Give access_key_id and secret_access_key, or a role")
            return found.get_frozen_credentials()
        except botocore.exceptions.BotoCoreError as error:
            raise QueueError(f"AWS credentials cannot be had: {error}") from error

    def for_store(self) -> dict[str, Any]:
        """The same as obstore takes it."""
        found = self.frozen()
        until = None if self._given is not None else datetime.now(UTC) + timedelta(seconds=_FRESH_S)
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": until,
        }


class Queue:
    """Every method raises QueueError. Close it with ``close``."""

    def __init__(self, url: str, region: str, credentials: AwsCredentials) -> None:
        parts = urlsplit(url)
        self._url, self._region, self._credentials = url, region, credentials
        self._endpoint = f"{parts.scheme}://{parts.netloc}/"
        self._client = httpx.AsyncClient(timeout=_REQUEST_S)

    async def receive(self, wait_s: int, visibility_s: int) -> Message | None:
        """The next message, hidden from others for ``visibility_s``; None when none came within ``wait_s``."""
        answer = await self._call(
            "ReceiveMessage",
            wait_s,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=visibility_s,
            AttributeNames=["ApproximateReceiveCount"],
        )
        for one in answer.get("Messages") or ():
            count = int((one.get("Attributes") or {}).get("ApproximateReceiveCount", 1))
            return Message(one["MessageId"], one["Body"].encode("utf-8", "replace"), one["ReceiptHandle"], count)
        return None

    async def hold(self, message: Message, seconds: int) -> None:
        """From now on the message stays hidden for so long."""
        await self._call("ChangeMessageVisibility", ReceiptHandle=message.receipt, VisibilityTimeout=seconds)

    async def delete(self, message: Message) -> None:
        await self._call("DeleteMessage", ReceiptHandle=message.receipt)

    async def waiting(self) -> int:
        """Messages in the queue, those in work included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await self._call("GetQueueAttributes", AttributeNames=names)
        return sum(int((answer.get("Attributes") or {}).get(name, 0)) for name in names)

    async def close(self) -> None:
        await self._client.aclose()

    async def _call(self, action: str, wait_s: float = 0.0, **members: Any) -> dict[str, Any]:
        body = msgspec.json.encode({"QueueUrl": self._url, **members})
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{action}"}
        request = AWSRequest(method="POST", url=self._endpoint, data=body, headers=headers)
        SigV4Auth(await asyncio.to_thread(self._credentials.frozen), "sqs", self._region).add_auth(request)
        try:
            answer = await self._client.post(
                self._endpoint, content=body, headers=dict(request.headers.items()), timeout=_REQUEST_S + wait_s
            )
            found = answer.json() if answer.content else {}
        except (httpx.HTTPError, ValueError) as error:
            raise QueueError(f"{action}: {error or type(error).__name__}") from error
        if answer.status_code != httpx.codes.OK:
            reason = str(found.get("message") or found.get("Message") or "")
            raise QueueError(f"{action}: {answer.status_code} {str(found.get('__type', '')).rpartition('#')[2]} {reason}".rstrip())
        return dict(found)
