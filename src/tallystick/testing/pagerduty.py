"""A receiver that answers as PagerDuty's Events API v2 does (its published OpenAPI description)."""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.testing.receiver import Receiver, Request, Said


class PagerDutyReceiver(Receiver):
    """``events`` are those taken, in order; ``open`` has the state of each incident by its key: triggered or acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.routing_key = "0123456789abcdef0123456789abcdef"
        self.events: list[dict[str, Any]] = []
        self.open: dict[str, str] = {}

    def answer(self, request: Request) -> Said:
        if request.path != "/v2/enqueue":
            return Said(404)
        try:
            event = msgspec.json.decode(request.body, type=dict[str, Any])
        except msgspec.MsgspecError:
            return _invalid("JSON is invalid")
        if event.get("event_action") not in ("trigger", "acknowledge", "resolve"):
            return _invalid("'event_action' is missing or unknown")
        if event.get("routing_key") != self.routing_key:
            return _invalid("Length of 'routing_key' is incorrect (should be 32 characters)")
        payload = event.get("payload", {})
        if event["event_action"] == "trigger":
            if missing := [name for name in ("summary", "source", "severity") if not payload.get(name)]:
                return _invalid(f"'payload.{missing[0]}' is missing or blank")
            if payload["severity"] not in ("critical", "error", "warning", "info"):
                return _invalid("'payload.severity' is invalid")
        self._note(event["event_action"], event["dedup_key"])
        self.events.append(event)
        return Said(202, {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]})

    def _note(self, action: str, key: str) -> None:
        if action == "resolve":
            self.open.pop(key, None)
        elif action == "trigger" or key in self.open:
            self.open[key] = "triggered" if action == "trigger" else "acknowledged"


def _invalid(error: str) -> Said:
    return Said(400, {"status": "invalid event", "message": "Event object is invalid", "errors": [error]})
