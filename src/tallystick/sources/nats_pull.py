"""Batches from a JetStream pull consumer, bounded in messages and in bytes.

A pull is one request to ``$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>`` with a subject of our own to answer on. The server sends
messages there, and a message without content and with a ``Status`` header when the request is over: 404 nothing there, 408 its
time is over, 409 it ends for another reason, 100 it lives. Two requests make one batch:

1. what is there now (``no_wait``), as much as fits;
2. if that was nothing, wait for one message; the next batch brings what came with it.

Each request has a subject of its own, so that the end of an old one is not taken for that of the new one. Messages that an old
request brings late are messages all the same.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError

from tallystick.errors import TallystickError

_NANOSECONDS = 10**9
_GRACE_S = 2.0
_TOO_LARGE = "Message Size Exceeds MaxBytes"
_ENDED = ("Consumer Deleted", "Consumer is push based", "Exceeded MaxRequestBatch", "Exceeded MaxRequestMaxBytes")


class PullEndedError(TallystickError):
    """The consumer is gone, or refuses what it is asked; a new run finds out what there is now."""

    code = "consumer_unavailable"


class Puller:
    """The subscription that answers arrive on. ``prefix``: of the JetStream API, `$JS.API`."""

    def __init__(self, client: Client, prefix: str, stream: str, consumer: str) -> None:
        self._client = client
        self._subject = f"{prefix}.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = client.new_inbox()
        self._subscription: Any = None
        self._requests = 0

    async def open(self) -> None:
        """Before the first `pull`."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*")

    async def pull(self, messages: int, max_bytes: int, wait_s: float) -> list[Msg]:
        """The next messages, at once when there are any; none after ``wait_s``. Raises PullEndedError, and NATS's errors.

        ``max_bytes`` counts what the server counts: subjects, headers and content. A message above it comes alone.
        """
        found, end = await self._request({"batch": messages, "max_bytes": max_bytes, "no_wait": True}, messages, _GRACE_S)
        if not found and end == _TOO_LARGE:
            found, end = await self._request({"batch": 1, "no_wait": True}, 1, _GRACE_S)
        if not found:
            expires = {"batch": 1, "expires": int(wait_s * _NANOSECONDS)}
            found, end = await self._request(expires, 1, wait_s + _GRACE_S)
        return found

    async def _request(self, body: dict[str, Any], messages: int, timeout_s: float) -> tuple[list[Msg], str]:
        """One request's messages, and with which words it ended."""
        self._requests += 1
        answer_to = f"{self._inbox}.{self._requests}"
        await self._client.publish(self._subject, json.dumps(body).encode(), answer_to)
        found: list[Msg] = []
        deadline = asyncio.get_running_loop().time() + timeout_s
        while len(found) < messages:
            left = deadline - asyncio.get_running_loop().time()
            try:
                message = await self._subscription.next_msg(timeout=max(left, 0.001))
            except (NatsTimeoutError, TimeoutError):
                return found, "no answer"  # the connection broke meanwhile; what is on its way comes with the next request
            if message.reply.startswith("$JS.ACK."):
                found.append(message)
            elif message.subject == answer_to and _status(message) != "100":
                return found, _words(message)
        return found, ""


def _status(message: Msg) -> str:
    return str((message.headers or {}).get("Status", ""))


def _words(message: Msg) -> str:
    """Why the request is over. Raises PullEndedError when no further one would fare better."""
    words = str((message.headers or {}).get("Description", ""))
    if _status(message) not in ("404", "408") and any(words.startswith(end) for end in _ENDED):
        raise PullEndedError(f"the consumer answers: {words}")
    return words
