"""Ids from places: a record that is read again from the same place of a stream is the same event, and is stored once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from msgspec import UNSET

from tallystick.event import Event

_PLACE_MAX = 96
_ODD = re.compile(r"[^A-Za-z0-9._:-]+")


def place_id(stream: str, number: str, moment: object, data: bytes) -> str:
    """The id of the record ``number`` of ``stream``, at most 128 characters.

    Behind the place stand 12 digits of a digest over the record and its time there: when a stream is made anew and counts from the
    beginning, its records are others, and not repeats or conflicts.
    """
    digest = hashlib.sha256(b"%b\0%b" % (str(moment).encode(), data)).hexdigest()[:12]
    place = f"{stream}:{number}"
    if len(place) > _PLACE_MAX or _ODD.search(place) or not place[0].isalnum():
        place = f"{hashlib.sha256(stream.encode()).hexdigest()[:32]}:{number}"
    return f"{place}.{digest}"


def name_by_place(events: Sequence[Event], places: Iterable[str]) -> bool:
    """Give each event without an id the id of the place that its record comes from; True when that changed any.

    ``places`` is parallel to ``events``, empty where nothing is known; equal ones stand together. The second event of a record
    gets ``.2`` behind it.
    """
    is_changed, last, count = False, "", 0
    for event, place in zip(events, places, strict=True):
        count = count + 1 if place == last else 1
        last = place
        if place and event.id is UNSET:
            event.id = place if count == 1 else f"{place}.{count}"
            is_changed = True
    return is_changed
