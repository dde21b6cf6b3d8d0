"""A receiver that answers as an incoming webhook of Slack does: `ok`, or the name of the error as text.

Dial beside those of `Receiver`: ``path`` of the webhook that is there.
"""

from __future__ import annotations

import msgspec

from tallystick.testing.receiver import Receiver, Request, Said

_TEXT = {"content-type": "text/html"}


class SlackReceiver(Receiver):
    """``messages`` are the texts taken, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.path = "/services/T0/B0/secret"
        self.messages: list[str] = []

    @property
    def webhook(self) -> str:
        return self.url + self.path

    def answer(self, request: Request) -> Said:
        if request.path != self.path:
            return Said(404, b"no_service", _TEXT)
        try:
            page = msgspec.json.decode(request.body, type=dict[str, object])
        except msgspec.MsgspecError:
            return Said(400, b"invalid_payload", _TEXT)
        text = page.get("text")
        if not isinstance(text, str) or not text:
            return Said(400, b"no_text", _TEXT)
        self.messages.append(text)
        return Said(200, b"ok", _TEXT)
