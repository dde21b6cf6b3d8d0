"""What both clients put on the wire and read from it; no IO here."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
import msgspec

from tallystick.client.problem import ProblemError
from tallystick.errors import ConfigError
from tallystick.event.ids import IdMaker

T = TypeVar("T")


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


class Page(msgspec.Struct, frozen=True):
    """One page of a search."""

    events: list[dict[str, Any]]
    next: str | None = None


def decode(response: httpx.Response, kind: type[T]) -> T:
    """The body of an answer. Raises ProblemError when it is not what a Tallystick server sends."""
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.MsgspecError as error:
        detail = f"the answer is none of a Tallystick server: {error}"
        raise ProblemError(response.status_code, {"detail": detail, "code": "answer_unreadable"}) from error


def encode_events(events: Iterable[Mapping[str, Any]]) -> bytes:
    """NDJSON with an id in every event, so that the same bytes can be sent again."""
    given = list(events)
    ids = IdMaker(time.time_ns() // 1_000_000).make(len(given))
    return msgspec.json.Encoder().encode_lines([{"id": made, **event} for made, event in zip(ids, given, strict=True)])


def headers(key: str) -> dict[str, str]:
    """Authorization and the form of the answers."""
    return {"Authorization": f"Bearer {key}", "Accept": "application/json"}


def settings_from_environment(url: str | None, key: str | None) -> tuple[str, str]:
    """Fill what is missing from TALLYSTICK_URL and TALLYSTICK_KEY. Raises ConfigError when they are of no use."""
    url = url or os.environ.get("TALLYSTICK_URL") or "http://127.0.0.1:8420"
    key = key or os.environ.get("TALLYSTICK_KEY")
    if not key:
        raise ConfigError("no key given", hint="Pass one, or set TALLYSTICK_KEY")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError("the key given is none: it holds blanks or other odd characters", hint="A key looks like ts_…_…")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is no address of a server", hint="Write http://127.0.0.1:8420")
    return url.rstrip("/"), key


def retry_after_s(response: httpx.Response) -> float:
    """The server's advice in seconds; 0 when it gave none. A proxy's date (RFC 9110 section 10.2.3) counts from now."""
    value = response.headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


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
