"""Messages for a JetStream stream, sent one behind the other, each with an acknowledgement to wait for.

The client's own way to do that (`publish_async`) never resolves an answer that is an error, so that refusing one message would look like a
server that is silent. Here every answer resolves: with a sequence, or with the error that it tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError


class AckError(msgspec.Struct):
    """JetStream's error: ``err_code`` is its own number, ``code`` like HTTP's."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct):
    """The answer to one message: its sequence in the stream, or ``error``."""

    seq: int = 0
    duplicate: bool = False
    error: AckError | None = None


class Publisher:
    """One connection's subscription for answers."""

    def __init__(self) -> None:
        self._client = Client()
        self._inbox = ""
        self._waiting: dict[str, asyncio.Future[Ack]] = {}
        self._count = 0

    async def open(self, client: Client) -> None:
        """Before the first `publish`."""
        self._client, self._inbox = client, client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._take)

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, Any]) -> asyncio.Future[Ack]:
        """Put a message on its way."""
        self._count += 1
        answer_to = f"{self._inbox}.{self._count}"
        waiting = self._waiting[answer_to] = asyncio.get_running_loop().create_future()
        await self._client.publish(subject, body, answer_to, dict(headers))
        return waiting

    async def fail(self) -> None:
        """The connection is closed: no answer comes any more."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionClosedError())
        self._waiting.clear()

    async def _take(self, message: Msg) -> None:
        waiting = self._waiting.pop(message.subject, None)
        if waiting is None or waiting.done():
            return
        if (message.headers or {}).get("Status") == "503":
            waiting.set_result(Ack(error=AckError(503, 0, "no stream answers")))
            return
        try:
            waiting.set_result(msgspec.json.decode(message.data, type=Ack))
        except msgspec.MsgspecError:
            waiting.set_result(Ack(error=AckError(0, 0, "the answer is no acknowledgement")))
