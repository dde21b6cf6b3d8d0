"""One record at a time through a mapping: the way for everything that is not flat and alike (`columns`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping as MappingType
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tallystick.errors import EventInvalidError
from tallystick.event import Event, strict
from tallystick.event.fields import ID
from tallystick.event.plain import Plain, read_plain
from tallystick.event.stamp import add_flag
from tallystick.plugin import Carrier
from tallystick.protocols.syslog_time import SyslogClock
from tallystick.transforms.expressions import Scope
from tallystick.transforms.lines import LineParser
from tallystick.transforms.map_result import MapOptions, MapResult, Problem
from tallystick.transforms.record_paths import Path
from tallystick.transforms.unwrap import unwrap

if TYPE_CHECKING:
    from tallystick.transforms.mapping import Mapping

DEPTH_MAX = 31
"""One level less than an event: the record becomes its metadata."""
RECORD_BYTES_MAX = 1 << 20
"""No canonical line is longer than that, so no record need be taken apart that is."""
MEMBERS_MAX = 2_000_000
"""Commas in one received text: what bounds the memory that opening a container takes."""
RAW_BYTES_MAX = 24_576
"""Longer records are kept as metadata only, with the flag ``raw_omitted``: two copies would not fit into one line."""

_decode = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


class RecordRun:
    """One batch on its way through a mapping."""

    __slots__ = ("_carrier", "_clock", "_mapping", "_names_by_digest", "_options", "_result", "_variables")

    def __init__(self, mapping: Mapping, options: MapOptions, result: MapResult) -> None:
        self._mapping = mapping
        self._options = options
        self._result = result
        self._carrier = Carrier()
        self._clock = SyslogClock()
        if mapping._lines is not None:
            self._clock.set_now(options.now or datetime.now(UTC))
        # Two lines that are the same may well tell of two events.
        self._names_by_digest = options.names_by_digest and mapping._lines is None
        self._variables = {"source_record": f"{options.source_type or mapping.name}.record", "peer": ""}

    def take(self, record: bytes | Plain, position: int, carrier: Carrier, read: Plain | None = None) -> None:
        """Put the events and problems of one received record into the result. ``read``: what it was read as, when it was already."""
        self._carrier = carrier
        peer = carrier.peer or "unknown"
        if self._variables["peer"] != peer:
            self._variables = {**self._variables, "peer": peer}
        if isinstance(record, Plain):
            plain: Plain | None = record
            text = record.content
        else:
            text = record.strip()
            plain = read or read_plain(text, DEPTH_MAX)
        if plain is not None and self._mapping._is_record(plain.value):
            self._add(text, None, position, plain)
        else:
            self._open(_encode(record.value) if isinstance(record, Plain) else text, position)

    def _open(self, record: bytes, position: int) -> None:
        """The same for what may be a container."""
        if record.count(b",") > MEMBERS_MAX:
            problem = Problem("too_many_records", "the file holds too many records; send smaller ones", record, position)
            self._result.problems.append(problem)
            return
        for found, members in unwrap(record, self._mapping._steps, self._mapping._keys):
            self._add(found, members, position, None if members is None else read_plain(found, DEPTH_MAX))

    def _add(self, found: bytes, members: MappingType[str, Raw] | None, position: int, plain: Plain | None) -> None:
        """One record without its containers."""
        try:
            if plain is not None:
                event, content = self._map_plain(plain), plain.content
            elif members is not None:
                event, content = self._map_members(found, members)
            else:
                event, content = self._map_text(found)
        except EventInvalidError as error:
            self._result.problems.append(Problem(error.code, error.message, found, position))
            return
        if self._options.keep_raw:
            keep_raw(event, found)
        result = self._result
        result.events.append(event)
        result.contents.append(content)
        result.positions.append(position)

    def _map_plain(self, plain: Plain) -> Event:
        """The short way."""
        mapping, value = self._mapping, plain.value
        if mapping._is_particular:
            mapping._check(value)
        if mapping._reads_carrier:
            self._add_more(value)
        rules = mapping._rules.of(value)
        scope = Scope(value, self._variables)
        event = rules.fill(scope, self._carrier.time)
        if mapping._changes:
            raws = {key: Raw(_encode(member)) for key, member in value.items() if mapping._changes.may_ask(key)}
            event.changes = mapping._changes.find(raws, scope.taken)
        if rules.has_own_id or self._names_by_digest:
            event.id = self._make_id(rules.own_id(scope), plain.content, event)
        for name in scope.taken:
            value.pop(name, None)
        if scope.used:
            _drop(value, scope.used)
        if self._carrier.more and not mapping._reads_carrier:
            self._add_more(value)
        if value:
            event.metadata = Raw(_encode(value))
        return event

    def _map_members(self, record: bytes, members: MappingType[str, Raw]) -> tuple[Event, bytes]:
        """The long way, member by member with their own bytes."""
        mapping = self._mapping
        mapping._check({key: bytes(value) for key, value in members.items()})
        content = strict.compact(record)
        if len(content) > RECORD_BYTES_MAX:
            raise EventInvalidError(f"the record has {len(content)} bytes", code="event_too_large")
        strict.require_strict(content, DEPTH_MAX)
        if mapping._reads_carrier and self._carrier.more:
            joined: dict[str, Any] = dict(_decode_members(content))
            self._add_more(joined)
            members_text = _encode(joined)
        else:
            members_text = content
        value, own = _decode(members_text), _decode_members(members_text)
        rules = mapping._rules.of(value)
        scope = Scope(value, self._variables)
        event = rules.fill(scope, self._carrier.time)
        if mapping._changes:
            event.changes = mapping._changes.find(own, scope.taken)
        event.id = self._make_id(rules.own_id(scope), content, event)
        rest = _without(own, [*((name,) for name in scope.taken), *scope.used])
        if not mapping._reads_carrier:
            self._add_more(rest)
        if rest:
            event.metadata = Raw(_encode(rest))
        return event, content

    def _map_text(self, record: bytes) -> tuple[Event, bytes]:
        if self._mapping._lines is not None:
            return self._map_line(record, self._mapping._lines), record
        if not self._mapping._takes_text:
            if record.startswith(b"{") and len(record) <= RECORD_BYTES_MAX:
                strict.check_strict(record, DEPTH_MAX)
            raise EventInvalidError("the record is not a JSON object", code="record_not_json")
        text = record.decode("utf-8", "replace").replace("\0", "\ufffd")
        event = self._mapping._rules.of({}).fill(Scope({}, self._variables), self._carrier.time)
        rest: dict[str, Any] = {"message": text}
        self._add_more(rest)
        event.metadata = Raw(_encode(rest))
        if text.encode() != record:
            add_flag(event, "text_replaced")
        return event, record

    def _map_line(self, record: bytes, lines: LineParser) -> Event:
        """A line of text, or several that are one record: what is parsed of it is mapped like an object."""
        if len(record) > RECORD_BYTES_MAX:
            raise EventInvalidError(f"the record has {len(record)} bytes", code="event_too_large")
        text = record.decode("utf-8", "replace").replace("\0", "\ufffd")
        line = lines.parse(text, self._clock)
        carrier = self._carrier
        if line.time is not None:
            self._carrier = carrier._replace(time=line.time)
        try:
            event = self._map_plain(Plain(line.members, record))
        finally:
            self._carrier = carrier
        if text.encode() != record:
            add_flag(event, "text_replaced")
        return event

    def _add_more(self, rest: dict[str, Any]) -> None:
        """Put the carrier's members beside the record's own."""
        for name, value in self._carrier.more.items():
            while name in rest:
                name += "_"
            rest[name] = value

    def _make_id(self, own: str | None, content: bytes, event: Event) -> str | UnsetType:
        if own is None and (event.occurred_at is UNSET or not self._names_by_digest):
            return UNSET
        digest = hashlib.sha256(content).hexdigest()
        if own is not None and ID.fullmatch(made := f"{own}.{digest[:12]}"):
            return made
        return f"{self._mapping.name}.{digest[:32]}"


def keep_raw(event: Event, found: bytes) -> None:
    """Put the record's own text into ``raw``, unless it is too long for a second copy."""
    if len(found) <= RAW_BYTES_MAX:
        event.raw = found.decode("utf-8", "replace").replace("\0", "\ufffd")
    else:
        add_flag(event, "raw_omitted")


def _without(members: MappingType[str, Raw], used: list[Path]) -> dict[str, Raw]:
    """The members that were not used, in their order; objects that lost all their members are left out too."""
    rest = dict(members)
    for name, paths in _inner_paths(used).items():
        if () in paths:
            rest.pop(name, None)
        elif name in rest:
            left = _without(_decode_members(rest[name]), paths)
            if left:
                rest[name] = Raw(_encode(left))
            else:
                del rest[name]
    return rest


def _drop(members: dict[str, Any], used: list[Path]) -> None:
    """The same with values, in place."""
    for path in used:
        holders, holder = [], members
        for name in path[:-1]:
            inner = holder.get(name)
            if inner is None:
                break  # another path took all of it
            holders.append((holder, name, inner))
            holder = inner
        else:
            holder.pop(path[-1], None)
            for outer, name, inner in reversed(holders):
                if inner:
                    break
                del outer[name]


def _inner_paths(used: list[Path]) -> dict[str, list[Path]]:
    inner: dict[str, list[Path]] = {}
    for path in used:
        inner.setdefault(path[0], []).append(path[1:])
    return inner
