"""Mappings: from a product's record to an event, by one TOML data file a product (`mappings/*.toml`).

A file says how records are found in what arrives (`parse`, `match`), which member names a record (`dedupe`), where its
time is (`time`), what fills the envelope (`envelope`, `actor`, `on_behalf_of`, `targets`, `context`, `changes`), how
actions sort into categories (`dispatch`), which keys are no secrets though they sound so (`redact`), and which names
detection rules use for our fields (`aliases`). `docs/mappings.md` describes each table. A file is compiled once (`rules`);
mapping a record runs closures only and does no IO.

Nothing is lost on the way: members that did not move to the envelope stay in ``metadata`` with order and number texts,
and the record's own text goes to ``raw``. A record that does not map gives a problem with code, reason and its bytes.

The id of an event is the product's own, with 12 digits of the digest of the record behind it: a repeated delivery has the
same id and is stored once, while a second record under a used id is an event of its own and not a conflict. Without an
id of its own a record that has a time is named by its digest alone; one that has neither is named by the server.

Most records take the short way: what an encoder makes of the decoded record is the record again (blanks and escapes aside), so it
is strict and its members can be moved as values without any number text changing. All others are taken apart member by member.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event, strict
from tallystick.event.fields import ID
from tallystick.event.plain import Plain, read_plain
from tallystick.event.stamp import add_flag
from tallystick.plugin import Carrier
from tallystick.transforms.changes import ChangeRules
from tallystick.transforms.expressions import Path, Scope
from tallystick.transforms.rules import RuleBook
from tallystick.transforms.unwrap import unwrap

DEPTH_MAX = 31
"""One level less than an event: the record becomes its metadata."""
RECORD_BYTES_MAX = 1 << 20
"""No canonical line is longer than that, so no record need be taken apart that is."""
MEMBERS_MAX = 2_000_000
"""Commas in one received text: what bounds the memory that opening a container takes."""
RAW_BYTES_MAX = 24_576
"""Longer records are kept as metadata only, with the flag ``raw_omitted``: two copies would not fit into one line."""

_TABLES = {"name", "title", "documentation", "parse", "match", "dedupe", "time", "envelope", "actor", "on_behalf_of", "targets",
           "context", "changes", "dispatch", "redact", "aliases"}  # fmt: skip

_ASKING = ("parse", "match", "dedupe", "time", "envelope", "actor", "on_behalf_of", "targets", "context", "dispatch")

_PATH = re.compile(r"[\w@$-]+(?:[.][\w@$-]+)*")

_decode = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


class Problem(NamedTuple):
    """A record that does not map: a code, the reason for people, and the record's bytes for the quarantine.

    ``position``: which of the received records it was in.
    """

    code: str
    message: str
    record: bytes
    position: int = 0


@dataclass(slots=True)
class MapResult:
    """What received records became. ``contents`` (what dedupe compares) and ``positions`` are parallel to ``events``.

    ``positions`` tell which of the received records an event comes from.
    """

    events: list[Event] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MapOptions:
    """How records are mapped besides the file: the source's type, raw kept or not.

    ``names_by_digest``: a record without an id of its own is named by its digest when it has a time, so that a repeat is stored
    once; False where two equal records may well be two events.
    """

    source_type: str = ""
    keep_raw: bool = True
    names_by_digest: bool = True


class RecordMapping(Protocol):
    """What a source makes events with: a mapping file, or code of its own where one file a product is not the way."""

    name: str

    def map_batch(
        self, records: Sequence[bytes], carriers: Sequence[Carrier] | None = None, options: MapOptions | None = None
    ) -> MapResult:
        """All events in ``records``, which may be containers, and a problem for each record in them that does not map."""


class Mapping:
    """One compiled mapping file."""

    def __init__(self, spec: MappingType[str, Any]) -> None:
        unknown = set(spec) - _TABLES
        if unknown:
            raise ConfigError(f"a mapping has no table {sorted(unknown)[0]!r}")
        self.name: str = spec["name"]
        self.title: str = spec.get("title", self.name)
        self.has_own_time: bool = spec.get("time", {}).get("required", False)
        parse = spec.get("parse", {})
        self._steps = parse.get("unwrap", [])
        self._step_keys = {step[kind] for step in self._steps for kind in ("list", "object", "text") if kind in step}
        self._splits = [step["split"] for step in self._steps if "split" in step]
        self._reads_carrier = parse.get("carrier", False)
        self._refusals = parse.get("refuse", [])
        self._takes_text = parse.get("text", False)
        self._keys: list[str] = spec.get("match", {}).get("all", [])
        self._rules = RuleBook(spec)
        self._is_particular = bool(self._keys or self._refusals)
        self._changes = ChangeRules(spec.get("changes", {}))
        redact = spec.get("redact", {})
        self.redact_allow = frozenset(redact.get("allow", ()))
        self.redact_keys = frozenset(redact.get("keys", ()))
        self.aliases: dict[str, str] = spec.get("aliases", {})
        self.asked = frozenset(path for text in _strings([spec.get(one) for one in _ASKING]) for path in _PATH.findall(text))

    @property
    def particularity(self) -> int:
        """By how many members it tells its records from others; 0 takes anything."""
        return len(self._keys)

    def asks_for(self, path: str) -> bool:
        """Whether the file names this member (``a``, ``a.b``), the object it is in, or something within it."""
        outer = path.rpartition(".")[0]
        return path in self.asked or outer in self.asked or any(text.startswith(path + ".") for text in self.asked)

    def map(self, record: bytes, *, source_type: str = "", peer: str = "", keep_raw: bool = True) -> MapResult:
        """All events in ``record``, which may be a container, and a problem for each record in it that does not map."""
        return self.map_batch([record], [Carrier(peer)], MapOptions(source_type, keep_raw))

    def map_batch(
        self, records: Sequence[bytes | Plain], carriers: Sequence[Carrier] | None = None, options: MapOptions | None = None
    ) -> MapResult:
        """The same for many records, each with its carrier. Those that have been read already come as `Plain`, which is used up."""
        result = MapResult()
        run = _Run(self, options or MapOptions(), result)
        for position, (record, carrier) in enumerate(zip(records, carriers or repeat(Carrier()), strict=False)):
            run.take(record, position, carrier)
        return result

    def _is_record(self, members: MappingType[str, Any]) -> bool:
        """Whether an object with these members is a record for sure, and no container of records."""
        if self._splits and any(type(several := members.get(key)) is list and len(several) > 1 for key in self._splits):
            return False
        return (bool(self._keys) and all(key in members for key in self._keys)) or self._step_keys.isdisjoint(members)

    def _check(self, members: MappingType[str, Any]) -> None:
        """Raises EventInvalidError for what is no record of this product. ``members`` are values, or their bytes."""
        for refusal in self._refusals:
            if refusal["has"] in members:
                raise EventInvalidError(refusal["message"], code=refusal["code"])
        for key in self._keys:
            value = members.get(key)
            if value is None or value == b"null":
                raise EventInvalidError(f"no `{key}`: not a record of {self.title}", pointer="/" + key, code="record_unknown")


class _Run:
    """One batch on its way through a mapping."""

    __slots__ = ("_carrier", "_mapping", "_options", "_result", "_variables")

    def __init__(self, mapping: Mapping, options: MapOptions, result: MapResult) -> None:
        self._mapping = mapping
        self._options = options
        self._result = result
        self._carrier = Carrier()
        self._variables = {"source_record": f"{options.source_type or mapping.name}.record", "peer": ""}

    def take(self, record: bytes | Plain, position: int, carrier: Carrier) -> None:
        """Put the events and problems of one received record into the result."""
        self._carrier = carrier
        peer = carrier.peer or "unknown"
        if self._variables["peer"] != peer:
            self._variables = {**self._variables, "peer": peer}
        if isinstance(record, Plain):
            plain: Plain | None = record
            text = record.content
        else:
            text = record.strip()
            plain = read_plain(text, DEPTH_MAX)
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
            if len(found) <= RAW_BYTES_MAX:
                event.raw = found.decode("utf-8", "replace").replace("\0", "\ufffd")
            else:
                add_flag(event, "raw_omitted")
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
        if rules.has_own_id or self._options.names_by_digest:
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

    def _add_more(self, rest: dict[str, Any]) -> None:
        """Put the carrier's members beside the record's own."""
        for name, value in self._carrier.more.items():
            while name in rest:
                name += "_"
            rest[name] = value

    def _make_id(self, own: str | None, content: bytes, event: Event) -> str | UnsetType:
        if own is None and (event.occurred_at is UNSET or not self._options.names_by_digest):
            return UNSET
        digest = hashlib.sha256(content).hexdigest()
        if own is not None and ID.fullmatch(made := f"{own}.{digest[:12]}"):
            return made
        return f"{self._mapping.name}.{digest[:32]}"


def _strings(spec: Any) -> Iterator[str]:
    """Every text in a table, the paths that it asks for among them."""
    if isinstance(spec, str):
        yield spec
    elif isinstance(spec, dict | list):
        for inner in spec.values() if isinstance(spec, dict) else spec:
            yield from _strings(inner)


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
    for name, paths in _inner_paths(used).items():
        if () in paths:
            members.pop(name, None)
        elif name in members:
            _drop(members[name], paths)
            if not members[name]:
                del members[name]


def _inner_paths(used: list[Path]) -> dict[str, list[Path]]:
    inner: dict[str, list[Path]] = {}
    for path in used:
        inner.setdefault(path[0], []).append(path[1:])
    return inner
