"""Records of the forward protocol become events. Pure, and batch by batch: one call decodes many entries, one encodes them.

Members that the envelope has a place for move there when they fit (`_KNOWN`); the rest stays, in its order, in ``metadata`` beside
the ``tag``. A record without any of them, as container logs are, is not taken apart at all.

What JSON has no form for is made into what has one by `transforms.forward_values`. A map with one key twice keeps the second, as every reader
of msgpack does.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
import re2
from msgspec import UNSET, Raw
from msgspec.msgpack import Ext

from tallystick.event import Actor, Context, Event, Ingest, times
from tallystick.event.fields import ACTION
from tallystick.event.model import ActorType
from tallystick.plugin import Carrier
from tallystick.protocols import forward
from tallystick.protocols.forward import EntrySlice, ForwardInvalidError
from tallystick.transforms.forward_values import TEXT_REPLACED, TooDeepError, clean_record, plain_texts, strict_texts
from tallystick.transforms.map_result import MapOptions, MapResult, Problem

MAPPING = "forward"
INVALID = "forward_invalid"
DEPTH_EXCEEDED = "depth_exceeded"

_DEFAULT_ACTION = "forward.record"
_OUTCOMES = frozenset({"success", "failure", "denied", "unknown"})
_ACTOR_TYPES = frozenset({"user", "service", "agent", "system", "anonymous"})
_ACTOR_MEMBERS = frozenset({"type", "id", "name", "email"})
_OTHER_ACTORS: tuple[tuple[str, ActorType], ...] = (("user", "user"), ("host", "system"), ("hostname", "system"))
_CONTEXT = frozenset({"user_agent", "session_id", "request_id", "trace_id", "span_id"})
_IPS = frozenset({"ip", "client_ip", "remote_addr"})
_FOR_CONTEXT = _CONTEXT | _IPS
_KNOWN = frozenset({"action", "actor", "user", "host", "hostname", "outcome", "reason", *_FOR_CONTEXT})
_REASON_MAX = 2_048
_SECONDS_MAX = 253_402_300_799  # the end of the year 9999
_MINUTES_MAX = 4_096
_EVENT_TIME = struct.Struct(">II")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!\Z)|\Z)){4}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BYTES = re2.Options()
_BYTES.encoding = re2.Options.Encoding.LATIN1
_ODD_FLOAT = re2.compile(rb"\xca[\x7f\xff][\x80-\xff]|\xcb[\x7f\xff][\xf0-\xff]", _BYTES)
"""A float that is no number, if these bytes are a float: then each record is looked at by itself."""

_NO_FLAGS: tuple[str, ...] = ()
_Moment = tuple[str | None, tuple[str, ...], dict[str, Any] | None]
"""Canonical time (None: none is named), flags, and the metadata that Fluent Bit puts beside a time."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_kept = msgspec.json.Decoder(tuple[str, str | None, dict[str, Any]]).decode


@dataclass(slots=True)
class Batch:
    """What is being decoded: parallel lists of what will be events, and the faults among the records."""

    peer: str = ""
    tags: list[str] = field(default_factory=list)
    moments: list[Any] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    flags: dict[int, list[str]] = field(default_factory=dict)
    positions: list[int] = field(default_factory=list)


class ForwardMapping:
    """The mapping `forward`."""

    name = MAPPING

    def __init__(self, *, keep_raw: bool = False) -> None:
        self._keep_raw = keep_raw
        self._minutes: dict[int, str] = {}

    def map_slice(self, part: EntrySlice, tag: str, id_prefix: str = "", peer: str = "") -> MapResult:
        """The events of some entries of one message. ``id_prefix``: their ids are that and the entry's place in the message."""
        result, batch = MapResult(), Batch(peer)
        entries = None if _ODD_FLOAT.search(part.data) else forward.decode_entries(part)
        texts = None if entries is None else strict_texts([record for _, record in entries])
        if entries is None or texts is None:
            for position, entry in enumerate(forward.split_entries(part)):
                self._add_alone(batch, entry, position, result)
            texts = plain_texts(batch.records)
        else:
            batch.moments = [moment for moment, _ in entries]
            batch.records = [record for _, record in entries]
            batch.positions = list(range(len(entries)))
        batch.tags = [tag] * len(batch.records)
        if id_prefix:
            batch.ids = [f"{id_prefix}{part.first + position}" for position in batch.positions]
        self._make(batch, texts, result)
        return result

    def map_messages(self, messages: list[bytes], peer: str = "") -> MapResult:
        """The events of messages of one record each, without option."""
        result, batch = MapResult(), Batch(peer)
        found = None if _ODD_FLOAT.search(b"".join(messages)) else forward.decode_messages(messages)
        texts = None if found is None else strict_texts([record for _, _, record in found])
        if found is None or texts is None:
            for position, message in enumerate(messages):
                tag, entry = forward.without_tag(message)
                if self._add_alone(batch, entry, position, result):
                    batch.tags.append(tag)
            texts = plain_texts(batch.records)
        else:
            batch.tags = [tag for tag, _, _ in found]
            batch.moments = [moment for _, moment, _ in found]
            batch.records = [record for _, _, record in found]
            batch.positions = list(range(len(found)))
        self._make(batch, texts, result)
        return result

    def map_batch(
        self, records: Sequence[bytes], carriers: Sequence[Carrier] | None = None, options: MapOptions | None = None
    ) -> MapResult:
        """Records as the quarantine keeps them: JSON arrays of tag, time and record."""
        result = MapResult()
        for position, text in enumerate(records):
            try:
                tag, moment, members = _decode_kept(text)
                record, flags = clean_record(members)
            except (msgspec.MsgspecError, RecursionError, TooDeepError):
                message = "not the JSON form of a record: an array of tag, time and record"
                result.problems.append(Problem(INVALID, message, text, position))
                continue
            batch = Batch(carriers[position].peer if carriers else "", [tag], [moment], [record], positions=[position])
            batch.flags = {0: flags} if flags else {}
            self._make(batch, plain_texts(batch.records), result)
        return result

    def _add_alone(self, batch: Batch, entry: bytes, position: int, result: MapResult) -> bool:
        """Decode one entry by itself; what cannot be one becomes a problem."""
        try:
            (moment, members), was_replaced = forward.decode_entry(entry)
            record, flags = clean_record(members)
        except ForwardInvalidError as error:
            result.problems.append(Problem(INVALID, str(error), entry, position))
            return False
        except TooDeepError:
            result.problems.append(Problem(DEPTH_EXCEEDED, "the record is nested too deep", entry, position))
            return False
        if was_replaced:
            flags.append(TEXT_REPLACED)
        if flags:
            batch.flags[len(batch.records)] = sorted(set(flags))
        batch.moments.append(moment)
        batch.records.append(record)
        batch.positions.append(position)
        return True

    def _make(self, batch: Batch, texts: list[bytes], result: MapResult) -> None:
        """Events, contents and positions of a batch; ``texts`` are its records as JSON."""
        moments = self._event_times(batch.moments) or list(map(self._moment, batch.moments))
        made = [_event_of(record, batch.peer) for record in batch.records]
        rests = iter(plain_texts([record for record, (_, is_touched) in zip(batch.records, made, strict=True) if is_touched]))
        heads = {tag: _head(tag) for tag in set(batch.tags)}
        for (event, is_touched), tag, (occurred_at, _, beside), record, text in zip(
            made, batch.tags, moments, batch.records, texts, strict=True
        ):
            if occurred_at is not None:
                event.occurred_at = occurred_at
            encoded, metadata_head, content_head = heads[tag]
            rest = next(rests) if is_touched else text
            if record and beside is None and "tag" not in record:
                event.metadata = Raw(metadata_head + rest[1:])
            else:
                event.metadata = _odd_metadata(encoded, record, rest, beside)
            result.events.append(event)
            when = b"null," if occurred_at is None else b'"%b",' % occurred_at.encode()
            result.contents.append(b"".join((content_head, when, text, b"]")))
        for event, name in zip(result.events, batch.ids, strict=False):
            event.id = name
        self._add_flags(batch, moments, result)
        if self._keep_raw:
            for event, text in zip(result.events, texts, strict=True):
                event.raw = text.decode()
        result.positions += batch.positions

    def _add_flags(self, batch: Batch, moments: Sequence[_Moment], result: MapResult) -> None:
        for place, (_, flags, _) in enumerate(moments) if any(flags for _, flags, _ in moments) or batch.flags else ():
            found = [*flags, *batch.flags.get(place, ())]
            if found:
                result.events[place].ingest = Ingest(flags=found)

    def _event_times(self, moments: list[Any]) -> list[_Moment] | None:
        """The canonical times of a batch in which every one is an EventTime; None where one is not."""
        if set(map(type, moments)) != {Ext} or {moment.code for moment in moments} != {0}:
            return None
        data = [moment.data for moment in moments]
        if set(map(len, data)) != {_EVENT_TIME.size}:
            return None
        found = list(_EVENT_TIME.iter_unpack(b"".join(data)))
        seconds = {second: f"{self._minute(second // 60)}{second % 60:02d}." for second in {second for second, _ in found}}
        if max([nanos for _, nanos in found]) >= 10**9:
            return None
        return [(f"{seconds[second]}{nanos // 1000:06d}Z", _NO_FLAGS, None) for second, nanos in found]

    def _moment(self, moment: Any) -> _Moment:
        """The canonical time, flags, and the metadata that Fluent Bit puts beside a time."""
        beside = None
        if type(moment) is list and len(moment) == 2 and isinstance(moment[1], dict):
            moment, beside = moment[0], clean_record(moment[1])[0] or None
        if type(moment) is Ext and moment.code == 0 and len(data := bytes(moment.data)) == _EVENT_TIME.size:
            second, nanos = _EVENT_TIME.unpack(data)
            if nanos < 10**9:
                return f"{self._minute(second // 60)}{second % 60:02d}.{nanos // 1000:06d}Z", (), beside
        elif type(moment) in (int, float) and 0 <= moment <= _SECONDS_MAX:
            second, micros = divmod(round(moment * 10**6), 10**6)
            return f"{self._minute(second // 60)}{second % 60:02d}.{micros:06d}Z", (), beside
        elif type(moment) is str and (parsed := times.parse_time(moment)) is not None:
            return parsed.text, parsed.flags, beside
        elif moment is None:
            return None, (), beside
        claimed = str(moment)[:64] if isinstance(moment, str | int | float) else type(moment).__name__
        return None, (times.INVALID, f"{times.CLAIMED}{claimed}"), beside

    def _minute(self, minute: int) -> str:
        text = self._minutes.get(minute)
        if text is None:
            if len(self._minutes) >= _MINUTES_MAX:
                self._minutes.clear()
            text = self._minutes[minute] = times.format_utc(_EPOCH + timedelta(minutes=minute))[:17]
        return text


def _event_of(record: dict[str, Any], peer: str) -> tuple[Event, bool]:
    """The envelope of a record, and True when members of it moved there."""
    known = _KNOWN.intersection(record)
    if not known:
        actor = Actor(type="system", id=peer or "unknown")
        return Event(action=_DEFAULT_ACTION, actor=actor, context=Context(ip=peer) if peer else UNSET), False
    before = len(record)
    event = Event(action=_DEFAULT_ACTION, actor=_actor_of(record, known, peer))
    if "action" in known and type(action := record["action"]) is str and _is_action(action):
        event.action = action
        del record["action"]
    if "outcome" in known and type(outcome := record["outcome"]) is str and outcome in _OUTCOMES:
        event.outcome = outcome  # type: ignore[assignment]
        del record["outcome"]
    if "reason" in known and type(reason := record["reason"]) is str and len(reason) <= _REASON_MAX:
        event.reason = reason
        del record["reason"]
    context = _context_of(record, known, peer)
    if context is not None:
        event.context = context
    return event, len(record) < before


def _actor_of(record: dict[str, Any], known: frozenset[str], peer: str) -> Actor:
    if "actor" in known:
        actor = record["actor"]
        if type(actor) is str and actor:
            del record["actor"]
            return Actor(type="user", id=actor)
        if type(actor) is dict and _ACTOR_MEMBERS.issuperset(actor) and all(type(text) is str for text in actor.values()):
            kind = actor.get("type", "user")
            if actor.get("id") and kind in _ACTOR_TYPES:
                del record["actor"]
                return Actor(type=kind, id=actor["id"], name=actor.get("name", UNSET), email=actor.get("email", UNSET))
    for name, kind in _OTHER_ACTORS:
        if name in known and type(text := record[name]) is str and text:
            del record[name]
            return Actor(type=kind, id=text)
    return Actor(type="system", id=peer or "unknown")


def _context_of(record: dict[str, Any], known: frozenset[str], peer: str) -> Context | None:
    if known.isdisjoint(_FOR_CONTEXT):
        return Context(ip=peer) if peer else None
    found: dict[str, str] = {"ip": peer} if peer else {}
    if not _IPS.isdisjoint(known):
        for name in ("ip", "client_ip", "remote_addr"):
            if name in known and type(text := record[name]) is str and _is_ip(text):
                found["ip"] = text
                del record[name]
                break
    for name in _CONTEXT.intersection(known):
        text = record[name]
        if type(text) is str and text:
            found[name] = text
            del record[name]
    return Context(**found) if found else None


def _is_ip(text: str) -> bool:
    if _IPV4.fullmatch(text):
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4_096)
def _is_action(text: str) -> bool:
    return ACTION.fullmatch(text) is not None


def _head(tag: str) -> tuple[bytes, bytes, bytes]:
    """A tag as JSON, and how metadata and content of its records begin."""
    encoded = _encode(tag)
    return encoded, b'{"tag":%b,' % encoded, b"[%b," % encoded


def _odd_metadata(tag: bytes, record: dict[str, Any], rest: bytes, beside: dict[str, Any] | None) -> Raw:
    """``{"tag":…, members of the record}`` where more is to be thought of: ours steps aside where the record has a member of that name."""
    ours = b'"%b":%b' % (_free_name("tag", record), tag)
    if beside is not None:
        ours += b',"%b":%b' % (_free_name("fluent_metadata", record), _encode(beside))
    return Raw(b"{%b%b%b" % (ours, b"," if record else b"", rest[1:]))


def _free_name(name: str, record: dict[str, Any]) -> bytes:
    while name in record:
        name += "_"
    return name.encode()
