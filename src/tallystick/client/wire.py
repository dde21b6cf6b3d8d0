"""What both clients put on the wire and read from it; no IO here."""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import httpx
import msgspec

from tallystick.errors import TallystickError

RETRY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


class Receipt(msgspec.Struct, frozen=True):
    """Where events of one tenant are in the log: ``ranges`` are [first index, count]."""

    log: str
    ranges: list[tuple[int, int]]
    batch_root: str
    received_at: str
    durability: str
    signed: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """The server's account of one request; given after the events are on disk."""

    accepted: int
    duplicates: int
    filtered: int
    quarantined: list[dict[str, Any]]
    receipts: list[Receipt]
    ids: list[str] = []


def make_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | (0x7 << 76) | (secrets.randbits(12) << 64) | (0b10 << 62) | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def encode_events(events: Iterable[Mapping[str, Any]]) -> bytes:
    """NDJSON with an id in every event, so that the same bytes can be sent again."""
    return msgspec.json.Encoder().encode_lines([{"id": make_id(), **event} for event in events])


def headers(key: str) -> dict[str, str]:
    """Authorization and the form of the answers."""
    return {"Authorization": f"Bearer {key}", "Accept": "application/json"}


def settings_from_environment(url: str | None, key: str | None) -> tuple[str, str]:
    """Fill what is missing from TALLYSTICK_URL and TALLYSTICK_KEY. Raises TallystickError when no key is to be had."""
    url = url or os.environ.get("TALLYSTICK_URL") or "http://127.0.0.1:8420"
    key = key or os.environ.get("TALLYSTICK_KEY")
    if not key:
        raise TallystickError("no key given", hint="Pass one, or set TALLYSTICK_KEY")
    return url.rstrip("/"), key


def retry_after_s(response: httpx.Response) -> float:
    """The server's advice in seconds; 0 when it gave none."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0


def pause_s(attempt: int, advice_s: float) -> float:
    """Exponential backoff from 0.1 to 10 seconds with full jitter, never below the server's advice."""
    return advice_s + min(10.0, 0.1 * 2.0 ** min(attempt, 10)) * (secrets.randbelow(1000) + 1) / 1000


def event_fields(action: str, actor: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """One event's members, those that are None left out."""
    return {"action": action, "actor": actor, **{name: value for name, value in fields.items() if value is not None}}


def search_params(query: str, fields: dict[str, Any]) -> dict[str, str]:
    """Query parameters of a reading call; ``from_`` is spelt ``from`` on the wire."""
    params = {name.rstrip("_"): str(value) for name, value in fields.items() if value is not None}
    return {"query": query, **params} if query else params
