"""`cloudevents`: CloudEvents 1.0 in JSON, structured; in an envelope, a batch of them.

    {"specversion":"1.0","id":"01JQ8","source":"urn:tallystick:acme","type":"user.login","subject":"crm","time":"…",
     "datacontenttype":"application/json","tenant":"acme","data":{"v":1,…}}

``data`` is the canonical line, byte for byte. ``source`` names the tenant, within which ``id`` is unique, as CloudEvents asks of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tallystick.event.codec import decode_line

_encode = msgspec.json.Encoder().encode


class CloudEvents:
    """One structured event for each."""

    name = "cloudevents"
    version = "1"
    content_type = "application/x-ndjson"
    record_type = "application/cloudevents+json"
    suffix = ".jsonl"

    def encode_events(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        return [_encode(_build(line)) for line in lines]


def make(options: object) -> CloudEvents:
    """No option matters here."""
    return CloudEvents()


def _build(line: bytes) -> dict[str, Any]:
    event = decode_line(line)
    found: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id or "",
        "source": f"urn:tallystick:{event.tenant or ''}",
        "type": event.action,
    }
    if event.targets:
        found["subject"] = event.targets[0].id
    return found | {
        "time": event.occurred_at or "",
        "datacontenttype": "application/json",
        "tenant": event.tenant or "",
        "data": msgspec.Raw(line),
    }
