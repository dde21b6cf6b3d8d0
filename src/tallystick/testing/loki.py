"""A receiver that answers as Loki's push API does: valid entries of a request are taken even when others are refused.

Dials beside those of `Receiver`: ``judge`` gives the reason why an entry is not taken; ``password`` is what user `loki` must show.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec

from tallystick.testing.receiver import Receiver, Request, Said

Entry = tuple[str, str]
"""Time in nanoseconds, as text, and the line."""


class _Stream(msgspec.Struct):
    stream: dict[str, str]
    values: list[Entry]


class _Push(msgspec.Struct):
    streams: list[_Stream]


class LokiReceiver(Receiver):
    """``streams``: labels, as `{a="b"}`, → entries; the same entry again is one entry."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: dict[str, list[Entry]] = {}
        self.judge: Callable[[str], str] = lambda line: ""
        self.password = ""

    def answer(self, request: Request) -> Said:
        token = base64.b64encode(f"loki:{self.password}".encode()).decode()
        if self.password and request.headers.get("authorization") != f"Basic {token}":
            return Said(401, b"no org id\n", {"content-type": "text/plain"})
        if request.path != "/loki/api/v1/push":
            return Said(404, b"404 page not found\n", {"content-type": "text/plain"})
        try:
            push = msgspec.json.decode(request.body, type=_Push)
        except msgspec.MsgspecError as error:
            return Said(400, str(error).encode(), {"content-type": "text/plain"})
        if not push.streams:
            return Said(422, b"error at least one valid stream is required for ingestion\n", {"content-type": "text/plain"})
        ignored = []
        for stream in push.streams:
            labels = "{" + ", ".join(f'{name}="{value}"' for name, value in sorted(stream.stream.items())) + "}"
            held = self.streams.setdefault(labels, [])
            for entry in stream.values:
                reason = self.judge(entry[1])
                if reason:
                    ignored.append(f"entry with timestamp {entry[0]} ignored, reason: '{reason}'")
                elif entry not in held:
                    held.append(entry)
        if ignored:
            total = sum(len(stream.values) for stream in push.streams)
            text = "\n".join([*ignored[:10], f"user 'fake', total ignored: {len(ignored)} out of {total}"])
            return Said(400, text.encode(), {"content-type": "text/plain"})
        return Said(204)
