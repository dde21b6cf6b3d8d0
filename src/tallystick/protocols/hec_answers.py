"""How Splunk's HTTP Event Collector answers: a text and a code of its own beside the HTTP status, and acknowledgements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from tallystick.errors import TerminalError

_encode = msgspec.json.Encoder().encode
_decode_acks = msgspec.json.Decoder(dict[str, list[int]]).decode
_SYNTAX = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Answer(NamedTuple):
    """One of the collector's answers: HTTP status, its own code, its text."""

    status: int
    code: int
    text: str


SUCCESS = Answer(200, 0, "Success")
TOKEN_DISABLED = Answer(403, 1, "Token disabled")
TOKEN_REQUIRED = Answer(401, 2, "Token is required")
INVALID_AUTHORIZATION = Answer(401, 3, "Invalid authorization")
INVALID_TOKEN = Answer(403, 4, "Invalid token")
NO_DATA = Answer(400, 5, "No data")
INVALID_FORMAT = Answer(400, 6, "Invalid data format")
SERVER_ERROR = Answer(500, 8, "Internal server error")
BUSY = Answer(503, 9, "Server is busy")
CHANNEL_MISSING = Answer(400, 10, "Data channel is missing")
CHANNEL_INVALID = Answer(400, 11, "Invalid data channel")
EVENT_REQUIRED = Answer(400, 12, "Event field is required")
EVENT_BLANK = Answer(400, 13, "Event field cannot be blank")
ACK_DISABLED = Answer(400, 14, "ACK is disabled")
FIELDS_INVALID = Answer(400, 15, "Error in handling indexed fields")
QUERY_TOKEN = Answer(400, 16, "Query string authorization is not enabled")
HEALTHY = Answer(200, 17, "HEC is healthy")
UNHEALTHY = Answer(503, 18, "HEC is unhealthy, queues are full")


class HecError(TerminalError):
    """The request is refused with ``answer``; ``number`` is the event at fault, from 0, or None."""

    code = "hec_invalid"

    def __init__(self, answer: Answer, number: int | None = None) -> None:
        super().__init__(answer.text)
        self.answer = answer
        self.number = number


def encode_answer(
    answer: Answer, *, text: str = "", number: int | None = None, ack_id: int | None = None, more: Mapping[str, Any] = {}
) -> bytes:
    """The body of an answer. ``text``: other words than the code's own."""
    members: dict[str, Any] = {"text": text or answer.text, "code": answer.code}
    if number is not None:
        members["invalid-event-number"] = number
    if ack_id is not None:
        members["ackId"] = ack_id
    return _encode({**members, **more})


def read_acks(body: bytes) -> list[int]:
    """The ids that a request to `/ack` asks for. Raises HecError 5 and 6."""
    if not body.strip():
        raise HecError(NO_DATA)
    try:
        asked = _decode_acks(body)
    except _SYNTAX:
        raise HecError(INVALID_FORMAT) from None
    if set(asked) != {"acks"}:
        raise HecError(INVALID_FORMAT)
    return asked["acks"]


def encode_acks(acks: Mapping[int, bool]) -> bytes:
    """The answer of `/ack`."""
    return _encode({"acks": {str(ack): is_durable for ack, is_durable in acks.items()}})
