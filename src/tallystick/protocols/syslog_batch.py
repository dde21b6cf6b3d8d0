"""Many syslog messages at once: the ordinary line of RFC 5424 without a regular expression, every other one by `syslog.parse`.

    <86>1 2026-03-04T10:00:00.000001Z web-1 sshd 4711 ID47 [auth@32473 user="u_1" ip="203.0.113.7"] Accepted publickey …
    head  time                        host  app  proc msg  rest

Why there are two ways: taking a message apart with patterns costs more than all that is done with it afterwards. Senders write
the same few heads, and the same few elements of structured data with other values in them; so heads are looked up, an element's
names are checked once and remembered, and all times of a batch are checked by one call. What does not look exactly so (RFC 3164,
two elements, escapes, a doubled blank) goes to `parse`, which is the definition; a test holds this to it, message by message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from tallystick.event import times
from tallystick.protocols.syslog import BOM, PRIORITIES, SD_NAME, StructuredData, SyslogMessage, parse
from tallystick.protocols.syslog_time import SyslogClock

_FIELDS = 7
_HEADS = {f"<{number}>1": priority for number, priority in PRIORITIES.items()}
_BLANKS = "\t\n\v\f\r"
"""What ends a field besides a space; a message may have them."""

_SHAPE = re.compile(rf'\[{SD_NAME} {SD_NAME}=(?:" {SD_NAME}=)*+')
_SHAPE_MAX = 512
"""Characters: names are kept, so long ones must not be."""

_Names = tuple[str, tuple[str, ...]]
_Data = tuple[StructuredData | None, str]


@dataclass(slots=True)
class ParsedBatch:
    """`syslog.Parsed` by columns, parallel to the texts; ``flags`` by place, of those that have some."""

    messages: list[SyslogMessage] = field(default_factory=list)
    moments: list[str | None] = field(default_factory=list)
    severities: list[int | None] = field(default_factory=list)
    flags: dict[int, tuple[str, ...]] = field(default_factory=dict)


def parse_batch(texts: Sequence[str], clock: SyslogClock) -> ParsedBatch:
    """The same as `parse` for each of ``texts``."""
    batch = ParsedBatch()
    joined = "".join(texts)
    has_blanks = any(blank in joined for blank in _BLANKS)
    ordinary, claimed = [], []
    for place, text in enumerate(texts):
        parts = text.split(" ", _FIELDS - 1)
        priority = _HEADS.get(parts[0]) if len(parts) == _FIELDS else None
        body = None if priority is None else _body(parts[6])
        if priority is None or body is None or "" in parts or (has_blanks and _has_blank(parts)):
            _add_other(batch, place, text, clock)
            continue
        _, time, host, app, procid, msgid, _ = parts
        ordinary.append(place)
        claimed.append(time)
        batch.messages.append(
            SyslogMessage(
                priority[0],
                priority[1],
                "" if host == "-" else host,
                "" if app == "-" else app,
                "" if procid == "-" else procid,
                "" if msgid == "-" else msgid,
                body[0],
                body[1],
            )
        )
        batch.moments.append(None)
        batch.severities.append(priority[2])
    if claimed:
        _set_moments(batch, ordinary, claimed, clock)
    return batch


def _add_other(batch: ParsedBatch, place: int, text: str, clock: SyslogClock) -> None:
    message, moment, severity, flags = parse(text, clock)
    batch.messages.append(message)
    batch.moments.append(moment)
    batch.severities.append(severity)
    if flags:
        batch.flags[place] = flags


def _has_blank(parts: list[str]) -> bool:
    """Whether one of the fields before the message is really two."""
    head = "".join(parts[:-1])
    return any(blank in head for blank in _BLANKS)


def _body(rest: str) -> _Data | None:
    """Structured data and message of the text behind the message's id; None for `parse`."""
    if rest.startswith("["):
        found = _one_element(rest)
        if found is None:
            return None
        data, message = found
    elif rest.startswith("- "):
        data, message = None, rest[2:]
    elif rest == "-":
        return None, ""
    else:
        return None
    return data, message[1:] if message.startswith(BOM) else message


def _one_element(rest: str) -> _Data | None:
    """The one element that ``rest`` begins with, and the message; None unless it has parameters and is written without escapes.

    No value has a quote inside it, so quotes are borders: names and values take turns between them. An odd number of them means
    that the end looked for was a quote's beginning.
    """
    element, end, message = rest.partition('"] ')
    if not end or "\\" in element:
        return None
    pieces = element.split('"')
    if len(pieces) % 2:
        return None
    shape = '"'.join(pieces[::2])
    names = _names_of(shape) if len(shape) <= _SHAPE_MAX else None
    return None if names is None else ({names[0]: dict(zip(names[1], pieces[1::2], strict=False))}, message)


@lru_cache(maxsize=1_024)
def _names_of(shape: str) -> _Names | None:
    """The name of an element and those of its parameters, from all that stands between its values: ``[id name="`` …; None when that is
    not how an element is written, or a name is there twice."""
    if _SHAPE.fullmatch(shape) is None:
        return None
    element, *names = shape[1:-1].replace('="', "").split(" ")
    return (element, tuple(names)) if len(set(names)) == len(names) else None


def _set_moments(batch: ParsedBatch, places: Sequence[int], claimed: list[str], clock: SyslogClock) -> None:
    """The times of the ordinary messages. Where one is not in the usual form, each is looked at."""
    settled = times.normalize(claimed)
    if settled is not None:
        for place, text in zip(places, settled, strict=True):
            batch.moments[place] = text
        return
    for place, text in zip(places, claimed, strict=True):
        batch.moments[place], flags = clock.rfc5424(text)
        if flags:
            batch.flags[place] = flags
