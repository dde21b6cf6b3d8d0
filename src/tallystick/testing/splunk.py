"""A receiver that answers as Splunk's HTTP Event Collector does: its codes, its channels, its acknowledgements.

Dials beside those of `Receiver`: ``tokens`` that may come in; ``has_acks`` whether they have indexer acknowledgement; ``polls`` how
often an acknowledgement is asked for before it is true; ``loses`` True forgets events after saying 200, as a crash before
indexing does; ``judge`` gives the code for an event that is not taken.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from json import JSONDecodeError, JSONDecoder
from typing import Any

import msgspec

from tallystick.testing.receiver import Receiver, Request, Said

CODES: dict[int, tuple[int, str]] = {
    0: (200, "Success"),
    1: (403, "Token disabled"),
    2: (401, "Token is required"),
    3: (401, "Invalid authorization"),
    4: (403, "Invalid token"),
    5: (400, "No data"),
    6: (400, "Invalid data format"),
    7: (400, "Incorrect index"),
    8: (500, "Internal server error"),
    9: (503, "Server is busy"),
    10: (400, "Data channel is missing"),
    11: (400, "Invalid data channel"),
    12: (400, "Event field is required"),
    13: (400, "Event field cannot be blank"),
    14: (400, "ACK is disabled"),
    15: (400, "Error in handling indexed fields"),
    16: (400, "Query string authorization is not enabled"),
    17: (200, "HEC is healthy"),
    18: (503, "HEC is unhealthy, queues are full"),
    19: (503, "HEC is unhealthy, ack service unavailable"),
    20: (503, "HEC is unhealthy, queues are full, ack service unavailable"),
    21: (400, "Invalid token"),
    22: (400, "Token disabled"),
    23: (503, "Server is shutting down"),
    24: (200, "Queue approaching capacity"),
    25: (200, "ACK channel approaching capacity"),
    26: (429, "Queue at capacity"),
    27: (429, "ACK channel at capacity"),
}
"""Code → HTTP status and text, as Splunk documents them."""
_CHANNEL = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def said(code: int, **more: Any) -> Said:
    """The collector's answer with that code."""
    status, text = CODES[code]
    return Said(status, {"text": text, "code": code} | more)


class SplunkReceiver(Receiver):
    """``events`` are those indexed, as they were sent; ``reached`` counts by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = {"B5A79AAD-D822-46CC-80D1-819F80D7BFB0"}
        self.has_acks = True
        self.polls = 2
        self.loses = False
        self.judge: Callable[[Any], int] = lambda event: 0
        self.events: list[dict[str, Any]] = []
        self._given: Counter[str] = Counter()
        self._asked: Counter[tuple[str, int]] = Counter()
        self._lost: set[tuple[str, int]] = set()

    def answer(self, request: Request) -> Said:
        path = request.path.removeprefix("/services/collector")
        if path in ("/health", "/health/1.0"):
            return said(17)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return said(2)
        if scheme != "Splunk":
            return said(3)
        if token not in self.tokens:
            return said(4)
        channel = request.headers.get("x-splunk-request-channel") or request.query.get("channel", "")
        if channel and not _CHANNEL.fullmatch(channel):
            return said(11)
        if path == "/ack":
            return self._acks(request, channel)
        if path in ("", "/event", "/event/1.0"):
            return self._collect(request, channel)
        return Said(404, {"text": "The requested URL was not found on this server.", "code": 404})

    def _collect(self, request: Request, channel: str) -> Said:
        if self.has_acks and not channel:
            return said(10)
        if not request.body.strip():
            return said(5)
        taken = []
        try:
            for number, event in enumerate(_objects(request.body.decode())):
                code = 12 if "event" not in event else 13 if event["event"] == "" else self.judge(event)
                if code:
                    return said(code, **{"invalid-event-number": number})
                taken.append(event)
        except (JSONDecodeError, UnicodeDecodeError):
            return said(6, **{"invalid-event-number": len(taken)})
        number = self._given[channel]
        if self.loses:
            self._lost.add((channel, number))
        else:
            self.events += taken
        if not self.has_acks:
            return said(0)
        self._given[channel] += 1
        return said(0, ackId=number)

    def _acks(self, request: Request, channel: str) -> Said:
        if not self.has_acks:
            return said(14)
        if not channel:
            return said(10)
        answers = {}
        for number in msgspec.json.decode(request.body)["acks"]:
            self._asked[channel, number] += 1
            is_known = number < self._given[channel] and (channel, number) not in self._lost
            answers[str(number)] = is_known and self._asked[channel, number] >= self.polls
        return Said(200, {"acks": answers})


def _objects(text: str) -> list[dict[str, Any]]:
    """JSON objects one behind the other, with or without space between them."""
    found, at, decoder = [], 0, JSONDecoder()
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        event, at = decoder.raw_decode(text, at)
        found.append(event)
    return found
