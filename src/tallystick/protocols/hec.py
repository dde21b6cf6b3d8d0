"""Splunk's HTTP Event Collector (HEC): what a body holds.

A body of `/event` is a run of JSON objects, with or without blanks between them (an array of them is read too):

    {"time": 1426279439.123, "host": "web-1", "source": "app", "sourcetype": "_json", "index": "main",
     "fields": {"region": "eu"}, "event": <text or any JSON>}

Only ``event`` is required. A body of `/raw` is text, one record a line; what an object would say stands in the query string. The
other members are metadata here: ``host`` may name the actor, ``time`` is the time of the event, and all of them are kept under
``hec``. The index is only kept: it never chooses a tenant.

What is wrong with the form is told with Splunk's own codes (`hec_answers`) and the number of the event, from 0. What is right in form
but not strict JSON (a key twice, half of a surrogate pair) Splunk would take and we do not store as an event: an EventInvalidError.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import add
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from tallystick.errors import EventInvalidError, TerminalError
from tallystick.event import strict, times
from tallystick.event.codec import split_lines
from tallystick.event.plain import BYTES_MAX, Plain, read_plain, read_run, tuples
from tallystick.plugin import Carrier
from tallystick.protocols.hec_answers import EVENT_BLANK, EVENT_REQUIRED, FIELDS_INVALID, INVALID_FORMAT, NO_DATA, HecError

DEPTH_MAX = 32
"""Levels of one object: one more than a record may have."""
_ELEMENT_COMMAS = 20
_CLAIM_MAX = 64
_RUN_BYTES_MAX = 1 << 20
"""Values take up to thirty times their text, so only so much is read at once."""
_SECONDS_MAX = 1e18
_BLANKS = b" \t\r\n"
_BORDER = re.compile(rb"\}([ \t\r\n]*)\{")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\]]', re.DOTALL)
_LEADING_TIME = re.compile(rb'\{"time":(-?[0-9]+\.[0-9]+)(?=[,}])')
_NUMBERS = (int, float)
_CHANNEL = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_NOTHING: Mapping[str, Any] = {}
_SYNTAX = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class TooManyError(TerminalError):
    """More events than one request may hold."""

    code = "too_many_events"


class HecObject(NamedTuple):
    """One object of a body as sent, and its members as values; None when they have to be looked at one by one."""

    record: bytes
    value: dict[str, Any] | None


class HecFault(NamedTuple):
    """What is wrong with one event; ``line`` counts from 1."""

    line: int
    error: HecError | EventInvalidError
    record: bytes


@dataclass(slots=True)
class HecBatch:
    """The events of one body: parallel lists. ``records`` are the objects as sent (of `/raw`, the lines), ``events`` the JSON or text
    inside, ``lines`` their numbers, from 1."""

    records: Sequence[bytes] = field(default_factory=list)
    events: Sequence[bytes | Plain] = field(default_factory=list)
    carriers: Sequence[Carrier] = field(default_factory=list)
    lines: Sequence[int] = field(default_factory=list)
    faults: list[HecFault] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every event that does not say otherwise: the query string, and the sender's address."""

    host: str = ""
    source: str = ""
    sourcetype: str = ""
    index: str = ""
    time: str = ""
    peer: str = ""

    def texts(self) -> dict[str, str]:
        """Those of `_NAMES` that say something."""
        return {name: text for name in _NAMES if (text := getattr(self, name))}


_NAMES = ("host", "source", "sourcetype", "index")
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


# Bodies


def read_objects(body: bytes, limit: int) -> list[HecObject]:
    """The objects of a body of `/event`, in order. Raises HecError 5 and 6, TooManyError past ``limit`` objects."""
    text = body.strip(_BLANKS)
    if not text:
        raise HecError(NO_DATA)
    if text.startswith(b"["):
        return list(map(_read_object, _split_array(text, limit)))
    guess = _BORDER.search(text)
    for separator in dict.fromkeys((guess[1] if guess else b"", b"")):
        objects = _read_run(text, separator, limit)
        if objects is not None:
            return objects
    return list(map(_read_object, _walk(text, limit)))


def _read_run(text: bytes, separator: bytes, limit: int) -> list[HecObject] | None:
    """The objects when just ``separator`` stands between them all; None when it does not, or cannot be told so."""
    # A border inside a string is no border. Then a piece is no JSON, or the objects do not give the text again.
    pieces = text.split(b"}" + separator + b"{", limit)
    if len(pieces) > limit:
        return None
    if len(pieces) > 1:
        pieces = [pieces[0] + b"}", *(b"{%b}" % piece for piece in pieces[1:-1]), b"{" + pieces[-1]]
    if len(text) <= _RUN_BYTES_MAX and _read_object(pieces[0]).value is not None:
        plain = pieces if read_plain(pieces[0], DEPTH_MAX) is not None else list(map(_with_text_time, pieces))
        values = read_run(b"[%b]" % b",".join(plain), plain)
        if values is not None:
            return _objects(values, pieces)
    try:
        records = list(map(bytes, _decode_list(b"[%b]" % b",".join(pieces))))
    except _SYNTAX:
        return None
    return list(map(_read_object, records)) if separator.join(records) == text else None


def _objects(values: list[Any], records: list[bytes]) -> list[HecObject]:
    """What `read_run` found; those that are no objects, or deep, or long have to be looked at one by one."""
    braces, brackets = [record.count(b"{") for record in records], [record.count(b"[") for record in records]
    if max(braces) + max(brackets) <= DEPTH_MAX and max(map(len, records)) <= BYTES_MAX and set(map(type, values)) == {dict}:
        return tuples(HecObject, records, values)
    return [
        HecObject(record, value if type(value) is dict and len(record) <= BYTES_MAX and depth <= DEPTH_MAX else None)
        for record, value, depth in zip(records, values, map(add, braces, brackets), strict=True)
    ]


def _read_object(record: bytes) -> HecObject:
    plain = read_plain(record, DEPTH_MAX) or read_plain(_with_text_time(record), DEPTH_MAX)
    return HecObject(record, None if plain is None else plain.value)


def _with_text_time(record: bytes) -> bytes:
    """Some clients write the time with more digits than the number has: it is taken as the text that it is."""
    time = _LEADING_TIME.match(record)
    return record if time is None else b'{"time":"%b"%b' % (time[1], record[time.end() :])


def split_raw(body: bytes, limit: int) -> tuple[list[bytes], Sequence[int]]:
    """The lines of a body of `/raw` without the blank ones, and their numbers from 1. Raises HecError 5, TooManyError."""
    if body.count(b"\n") > 2 * limit:
        raise _too_many(limit)
    lines, numbers = split_lines(body)
    if not lines:
        raise HecError(NO_DATA)
    if len(lines) > limit:
        raise _too_many(limit)
    return [line.rstrip(b"\r") for line in lines], numbers


def _split_array(text: bytes, limit: int) -> list[bytes]:
    if text.count(b",") > _ELEMENT_COMMAS * limit:
        raise _too_many(limit)
    try:
        objects = list(map(bytes, _decode_list(text)))
    except _SYNTAX:
        raise HecError(INVALID_FORMAT, 0) from None
    if not objects:
        raise HecError(NO_DATA)
    if len(objects) > limit:
        raise _too_many(limit)
    return objects


def _walk(text: bytes, limit: int) -> list[bytes]:
    """The same by counting braces, for objects with any blanks between them, and to say which one is at fault."""
    objects: list[bytes] = []
    start = depth = 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                if len(objects) == limit:
                    raise _too_many(limit)
                objects.append(_one(text[start : token.end()], len(objects)))
                start = token.end()
    if text[start:].strip(_BLANKS):
        raise HecError(INVALID_FORMAT, len(objects))
    return objects


def _one(text: bytes, number: int) -> bytes:
    """One object without the blanks around it. Raises HecError 6 unless it is JSON."""
    text = text.strip(_BLANKS)
    try:
        _decode_members(text)
    except _SYNTAX:
        raise HecError(INVALID_FORMAT, number) from None
    return text


def _too_many(limit: int) -> TooManyError:
    return TooManyError(f"more than {limit} events in one request; send smaller ones")


# Events


def read_events(objects: Sequence[HecObject], defaults: Defaults) -> HecBatch:
    """What ``objects`` hold, and what is wrong with those that hold no event."""
    return _read_alike(objects, defaults) or _read_each(objects, defaults)


def read_lines(lines: Sequence[bytes], numbers: Sequence[int], defaults: Defaults) -> HecBatch:
    """The events of the lines of a body of `/raw`."""
    head = defaults.texts()
    time = parse_time(defaults.time) if defaults.time else None
    carrier = Carrier(defaults.host or defaults.peer, time, {"hec": head} if head else _NOTHING)
    return HecBatch(lines, lines, [carrier] * len(lines), numbers)


def _read_alike(objects: Sequence[HecObject], defaults: Defaults) -> HecBatch | None:
    """The usual body: events all objects or all texts, times numbers or absent, the rest texts. None, nothing touched, for others."""
    values = [value for _, value in objects if value is not None]
    if len(values) != len(objects) or defaults.texts() or defaults.time:
        return None
    kind = _event_kind(values)
    if kind is None:
        return None
    records = [record for record, _ in objects]
    found = [value.pop("event") for value in values]
    events: list[Any] = tuples(Plain, found, records) if kind is dict else list(map(str.encode, found))
    moments = [value.pop("time", None) for value in values]
    parsed: list[Any] = moments
    if set(map(type, moments)) <= {int, float}:
        parsed = times.parse_moments(moments)
    if None in parsed or parsed is moments:
        parsed = [None if moment is None else parse_time(moment) for moment in moments]
    peer = defaults.peer
    peers = [head.get("host") or peer for head in values]
    carriers = tuples(Carrier, peers, parsed, [{"hec": head} if head else _NOTHING for head in values])
    return HecBatch(records, events, carriers, range(1, len(records) + 1))


def _event_kind(values: Sequence[dict[str, Any]]) -> type | None:
    """What all events are, dict or str, where time is a number or absent and all other members are texts; else None."""
    events: list[Any] = [value.get("event") for value in values]
    kinds = set(map(type, events))
    timed = sum(1 for value in values if type(value.get("time")) in _NUMBERS)
    all_kinds = Counter(map(type, chain.from_iterable(map(dict.values, values))))
    others = sum(count for kind, count in all_kinds.items() if kind is not str)
    if kinds == {dict} and others == len(values) + timed and all_kinds[dict] == len(values):
        return dict
    if kinds == {str} and others == timed and all(map(str.strip, events)):
        return str
    return None


def _read_each(objects: Sequence[HecObject], defaults: Defaults) -> HecBatch:
    """The same one by one."""
    records, events, carriers, lines = [], [], [], []
    batch, texts = HecBatch(), defaults.texts()
    for line, (record, value) in enumerate(objects, 1):
        try:
            event, time, head = _take_apart(record) if value is None else _split(value)
            head = {**texts, **head}
            _check_head(head)
            event = _event_of(event, record)
        except HecError as error:
            batch.faults.append(HecFault(line, HecError(error.answer, line - 1), record))
            continue
        except EventInvalidError as error:
            batch.faults.append(HecFault(line, error, record))
            continue
        moment = parse_time(time) if time is not None else parse_time(defaults.time) if defaults.time else None
        records.append(record)
        events.append(event)
        carriers.append(Carrier(head.get("host") or defaults.peer, moment, {"hec": head} if head else _NOTHING))
        lines.append(line)
    batch.records, batch.events, batch.carriers, batch.lines = records, events, carriers, lines
    return batch


def _event_of(event: Any, record: bytes) -> bytes | Plain:
    """The record inside an object. Raises HecError 12 and 13."""
    if event is None:
        raise HecError(EVENT_REQUIRED)
    if isinstance(event, dict):
        return Plain(event, record)
    if isinstance(event, str):
        event = event.encode()
        if not event.strip():
            raise HecError(EVENT_BLANK)
    return event if isinstance(event, bytes) else _encode(event)


def parse_time(claim: Any) -> times.ParsedTime:
    """Seconds since 1970, or milli-, micro- or nanoseconds, as told from the size; or RFC 3339. What is neither is flagged."""
    text = claim if type(claim) is str else str(claim)
    if "e" in text or "E" in text:
        text = _without_exponent(text)
    parsed = times.parse_epoch(text) or times.parse_time(text)
    return parsed or times.ParsedTime(None, (times.INVALID, times.CLAIMED + text[:_CLAIM_MAX]))


def is_channel(text: str) -> bool:
    """Whether this is a channel's name: a GUID."""
    return _CHANNEL.fullmatch(text) is not None


def _split(members: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Event, time, and the rest of an object's members."""
    return members.pop("event", None), members.pop("time", None), members


def _take_apart(record: bytes) -> tuple[Any, Any, dict[str, Any]]:
    """The same for an object that cannot be worked on as values: the event stays the bytes it is.

    Raises HecError 6, EventInvalidError.
    """
    try:
        content = strict.compact(record)
        members = _decode_members(content)
    except _SYNTAX:
        raise HecError(INVALID_FORMAT) from None
    strict.require_strict(content, DEPTH_MAX + 1)
    event = bytes(members.pop("event", b"null"))
    time = _value_of(bytes(members.pop("time", b"null")))
    head: dict[str, Any] = {name: _decode(member) if name in _NAMES else member for name, member in members.items()}
    return (event if event[:1] in (b"{", b"[") else _value_of(event)), time, head


def _value_of(value: bytes) -> Any:
    """A text, or a number or word as text, so that it stays as it is; None for null."""
    if value == b"null":
        return None
    return _decode_text(value) if value[:1] == b'"' else value.decode()


def _check_head(head: dict[str, Any]) -> None:
    """What stands beside event and time: null is nothing, names are plain values, indexed fields one flat object."""
    for name in [name for name, value in head.items() if value is None]:
        del head[name]
    if any(isinstance(head.get(name), dict | list) for name in _NAMES):
        raise HecError(INVALID_FORMAT)
    fields = head.get("fields")
    if isinstance(fields, Raw):
        fields = _decode(fields)
    if fields is not None and (not isinstance(fields, dict) or any(map(_is_nested, fields.values()))):
        raise HecError(FIELDS_INVALID)
    host = head.get("host")
    if host is not None and not isinstance(host, str):
        head["host"] = _encode(host).decode()


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict | list) for one in value))


def _without_exponent(text: str) -> str:
    """``1.426279439123E9`` as ``1426279439.123000``; other text as it is."""
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:.6f}" if abs(value) < _SECONDS_MAX else text
