"""Key and value pairs, for formats without structure (CEF, LEEF).

An event becomes pairs with the format's own keys, and one pair more: a JSON object with the members that single values cannot hold, so nothing is
lost. A value that the format cannot carry exactly is in it too, under ``exact`` and its key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from tallystick.destinations.encodings.rest import rest_of
from tallystick.event import Event

REST_KEY = "tallystickRest"
_MEMBERS = (
    "v", "occurred_at", "received_at", "actor", "on_behalf_of", "targets", "context", "changes", "metadata", "enrichment", "producer", "source",
    "raw", "ingest", "sealed",
)  # fmt: skip
_encode = msgspec.json.Encoder().encode
_BEYOND_ASCII = re.compile("[\x7f-\x9f\u2028\u2029]")


def rest_json(event: Event, exact: dict[str, str]) -> str:
    """The value of ``tallystickRest``, without a character that any reader takes for a control or a line's end."""
    rest: dict[str, Any] = rest_of(event, _MEMBERS)
    if exact:
        rest["exact"] = exact
    return _BEYOND_ASCII.sub(lambda found: f"\\u{ord(found[0]):04x}", _encode(rest).decode())


def carry(pairs: Iterable[tuple[str, str]], change: Callable[[str], str]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The pairs that have a value, each as ``change`` makes it, and those that it changed as they were."""
    carried, exact = [], {}
    for key, value in pairs:
        if value:
            changed = change(value)
            carried.append((key, changed))
            if changed != value:
                exact[key] = value
    return [(key, value) for key, value in carried if value], exact
