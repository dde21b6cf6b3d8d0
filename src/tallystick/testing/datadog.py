"""A receiver that answers as Datadog's log intake does, with its limits: entries over 1 MB are cut without a word.

Dials beside those of `Receiver`: ``api_keys`` that may come in; ``judge`` gives the reason why a request with that entry is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tallystick.testing.receiver import Receiver, Request, Said

_ENTRY_MAX = 1_000_000


class DatadogReceiver(Receiver):
    """``entries`` are those taken, in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.api_keys = {"0123456789abcdef0123456789abcdef"}
        self.judge: Callable[[dict[str, Any]], str] = lambda entry: ""
        self.entries: list[dict[str, Any]] = []

    def answer(self, request: Request) -> Said:
        if request.path != "/api/v2/logs":
            return Said(404, {"errors": ["Not found"]})
        key = request.headers.get("dd-api-key", "")
        if key not in self.api_keys:
            return _refused(403, "Forbidden") if key else _refused(401, "Unauthorized")
        if len(request.body) > 5_000_000:
            return _refused(413, "Payload too large")
        try:
            found = msgspec.json.decode(request.body)
        except msgspec.MsgspecError:
            return _refused(400, "Bad Request", "invalid JSON")
        entries = found if isinstance(found, list) else [found]
        if len(entries) > 1_000:
            return _refused(400, "Bad Request", "too many entries")
        reasons = [reason for entry in entries if (reason := self.judge(entry))]
        if reasons:
            return _refused(400, "Bad Request", reasons[0])
        self.entries += [entry | {"message": entry["message"][:_ENTRY_MAX]} for entry in entries]
        return Said(202, {})


def _refused(status: int, title: str, detail: str = "") -> Said:
    return Said(status, {"errors": [{"status": str(status), "title": title, "detail": detail or title}]})
