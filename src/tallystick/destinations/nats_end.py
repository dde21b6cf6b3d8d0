"""Which of our messages lie at the end of a stream: read back after a start, and after an outcome that nobody knows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo

from tallystick.errors import DestinationUnavailableError, TallystickError
from tallystick.sources.nats_pull import Puller

MESSAGE_ID = "Nats-Msg-Id"
_OURS = re.compile(r"\w{16}:\d+")
"""`<tenant handle>:<index>`; other producers' names are not kept."""

_PULL_MESSAGES = 1_000
_PULL_BYTES = 4 << 20
_WAIT_S = 0.5
_IDLE_S = 30.0


class StreamUnfitError(TallystickError):
    """The stream is missing, does not take our subjects, or cannot keep repeats out."""

    code = "stream_unfit"


async def check_stream(client: Client, prefix: str, stream: str, subject: str, window_s: float) -> StreamInfo:
    """The stream as it is. ``subject`` may have wildcards; ``window_s``: what its duplicate window must span. Raises StreamUnfitError."""
    manager = client.jsm(prefix=prefix)
    try:
        info: StreamInfo = await manager.stream_info(stream)
        names = await manager.find_stream_name_by_subject(subject)
    except nats.js.errors.NotFoundError as error:
        raise StreamUnfitError(f"there is no stream {stream!r} that takes {subject!r}") from error
    if names != stream:
        raise StreamUnfitError(f"{subject!r} belongs to the stream {names!r}, not to {stream!r}")
    if info.config.duplicate_window < window_s:
        hint = f"nats stream edit {stream} --dupe-window=2m"
        raise StreamUnfitError(f"the duplicate window of the stream {stream!r} is shorter than `timeout`", hint=hint)
    return info


async def find_messages(
    client: Client, prefix: str, stream: str, subject: str, start: int | datetime, timeout_s: float
) -> dict[str, int]:
    """Message id → sequence of the messages named as ours from a sequence or time on. Raises NATS's errors, DestinationUnavailableError."""
    manager = client.jsm(prefix=prefix)
    begin: dict[str, Any] = {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": start}
    if isinstance(start, int):
        begin = {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": start}
    config = ConsumerConfig(
        description="Tallystick reads back",
        ack_policy=AckPolicy.NONE,
        filter_subject=subject,
        headers_only=True,
        inactive_threshold=_IDLE_S,
        mem_storage=True,
        **begin,
    )
    info = await manager.add_consumer(stream, config)
    found: dict[str, int] = {}
    left = info.num_pending or 0
    try:
        async with asyncio.timeout(timeout_s):
            puller = Puller(client, prefix, stream, info.name)
            await puller.open()
            while left:
                messages = await puller.pull(_PULL_MESSAGES, _PULL_BYTES, _WAIT_S)
                found.update(_named(messages))
                if messages:
                    left = messages[-1].metadata.num_pending
                else:
                    left = (await manager.consumer_info(stream, info.name)).num_pending or 0
    except TimeoutError as error:
        raise DestinationUnavailableError(f"the end of the stream {stream!r} could not be read in time") from error
    await manager.delete_consumer(stream, info.name)
    return found


def _named(messages: Iterable[Msg]) -> Iterable[tuple[str, int]]:
    for message in messages:
        name = (message.headers or {}).get(MESSAGE_ID)
        if name and _OURS.fullmatch(name):
            yield name, message.metadata.sequence.stream
