"""Mappings: from a product's record to an event, by one TOML data file a product (`mappings/*.toml`).

A file says how records are found in what arrives (`parse`, `match`), which member names a record (`dedupe`), where its
time is (`time`), what fills the envelope (`envelope`, `actor`, `on_behalf_of`, `targets`, `context`, `changes`), how
actions sort into categories (`dispatch`), which keys are no secrets though they sound so (`redact`), and which names
detection rules use for our fields (`aliases`). `docs/mappings.md` describes each table. A file is compiled once; mapping
a record runs closures only and does no IO.

Nothing is lost on the way: members that did not move to the envelope stay in ``metadata`` with order and number texts,
and the record's own text goes to ``raw``. A record that does not map gives a problem with code, reason and its bytes.

The id of an event is the product's own, with 12 digits of the digest of the record behind it: a repeated delivery has the
same id and is stored once, while a second record under a used id is an event of its own and not a conflict. Without an
id of its own a record that has a time is named by its digest alone; one that has neither is named by the server.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Actor, Change, Context, Delegate, Event, Ingest, Target, strict
from tallystick.event.fields import ID
from tallystick.transforms.expressions import (
    Condition,
    Expression,
    Path,
    Scope,
    compile_condition,
    compile_expression,
    split_path,
    value_at,
)
from tallystick.transforms.record_time import TimeRule
from tallystick.transforms.unwrap import unwrap

DEPTH_MAX = 31
"""One level less than an event: the record becomes its metadata."""
RECORD_BYTES_MAX = 1 << 20
"""No canonical line is longer than that, so no record need be taken apart that is."""
MEMBERS_MAX = 2_000_000
"""Commas in one received text: what bounds the memory that opening a container takes."""
RAW_BYTES_MAX = 24_576
"""Longer records are kept as metadata only, with the flag ``raw_omitted``: two copies would not fit into one line."""
REASON_MAX = 2_048
TARGETS_MAX = 32

_TABLES = {"name", "title", "documentation", "parse", "match", "dedupe", "time", "envelope", "actor", "on_behalf_of", "targets",
           "context", "changes", "dispatch", "redact", "aliases"}  # fmt: skip

_decode = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode

Members = list[tuple[str, Expression]]


class Problem(NamedTuple):
    """A record that does not map: a code, the reason for people, and the record's bytes for the quarantine."""

    code: str
    message: str
    record: bytes


@dataclass(slots=True)
class MapResult:
    """What one received record became. ``contents`` are parallel to ``events``: what dedupe compares."""

    events: list[Event] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class _TargetRule(NamedTuple):
    each: Path | None
    when: Condition | None
    members: Members


class Mapping:
    """One compiled mapping file."""

    def __init__(self, spec: MappingType[str, Any]) -> None:
        unknown = set(spec) - _TABLES
        if unknown:
            raise ConfigError(f"a mapping has no table {sorted(unknown)[0]!r}")
        self.name: str = spec["name"]
        self.title: str = spec.get("title", self.name)
        parse = spec.get("parse", {})
        self._steps = parse.get("unwrap", [])
        self._refusals = parse.get("refuse", [])
        self._takes_text = parse.get("text", False)
        self._keys: list[str] = spec.get("match", {}).get("all", [])
        self._id = compile_expression(spec.get("dedupe", {}).get("key", []))
        self._time = TimeRule(spec.get("time", {}))
        envelope = spec["envelope"]
        self._action = compile_expression(envelope["action"])
        self._outcome = compile_expression(envelope.get("outcome", {"const": "unknown"}))
        self._reason = compile_expression(envelope.get("reason", []))
        self._actor = _compile_members(spec["actor"])
        self._delegates = [_compile_members(table) for table in spec.get("on_behalf_of", [])]
        self._targets = [_compile_target(table) for table in spec.get("targets", [])]
        self._context = _compile_members(spec.get("context", {}))
        self._before = [re.compile(pattern) for pattern in spec.get("changes", {}).get("before", [])]
        self._dispatch = [_compile_dispatch(rule) for rule in spec.get("dispatch", [])]
        redact = spec.get("redact", {})
        self.redact_allow = frozenset(redact.get("allow", ()))
        self.redact_keys = frozenset(redact.get("keys", ()))
        self.aliases: dict[str, str] = spec.get("aliases", {})

    def map(self, record: bytes, *, source_type: str = "", peer: str = "", keep_raw: bool = True) -> MapResult:
        """All events in ``record``, which may be a container, and a problem for each record in it that does not map."""
        variables = {"source_record": f"{source_type or self.name}.record", "peer": peer or "unknown"}
        result = MapResult()
        if record.count(b",") > MEMBERS_MAX:
            result.problems.append(Problem("too_many_records", "the file holds too many records; send smaller ones", record))
            return result
        for found, members in unwrap(record, self._steps, self._keys):
            try:
                if members is None:
                    event, content = self._map_text(found, variables)
                else:
                    event, content = self._map_record(found, members, variables)
            except EventInvalidError as error:
                result.problems.append(Problem(error.code, error.message, found))
                continue
            if keep_raw and len(found) <= RAW_BYTES_MAX:
                event.raw = found.decode("utf-8", "replace").replace("\0", "\ufffd")
            elif keep_raw:
                _flag(event, "raw_omitted")
            result.events.append(event)
            result.contents.append(content)
        return result

    def _map_record(self, record: bytes, members: MappingType[str, Raw], known: dict[str, str]) -> tuple[Event, bytes]:
        for refusal in self._refusals:
            if refusal["has"] in members:
                raise EventInvalidError(refusal["message"], code=refusal["code"])
        for key in self._keys:
            if bytes(members.get(key, b"null")) == b"null":
                raise EventInvalidError(f"no `{key}`: not a record of {self.title}", pointer="/" + key, code="record_unknown")
        content = strict.compact(record)
        if len(content) > RECORD_BYTES_MAX:
            raise EventInvalidError(f"the record has {len(content)} bytes", code="event_too_large")
        strict.require_strict(content, DEPTH_MAX)
        scope = Scope(_decode(content), known)
        event = self._envelope(scope)
        own = _decode_members(content)
        event.changes = self._changes(own, scope.used)
        event.id = self._make_id(scope, content, event)
        rest = _without(own, scope.used)
        if rest:
            event.metadata = Raw(_encode(rest))
        return event, content

    def _map_text(self, record: bytes, known: dict[str, str]) -> tuple[Event, bytes]:
        if not self._takes_text:
            if record.startswith(b"{") and len(record) <= RECORD_BYTES_MAX:
                strict.check_strict(record, DEPTH_MAX)
            raise EventInvalidError("the record is not a JSON object", code="record_not_json")
        text = record.decode("utf-8", "replace").replace("\0", "\ufffd")
        event = self._envelope(Scope({}, known))
        event.metadata = Raw(_encode({"message": text}))
        if text.encode() != record:
            _flag(event, "text_replaced")
        return event, record

    def _envelope(self, scope: Scope) -> Event:
        action = self._action(scope)
        if action is None:
            raise EventInvalidError("nothing in the record gives an action", code="field_missing", pointer="/action")
        reason = self._reason(scope)
        occurred_at, flags = self._time.read(scope)
        event = Event(
            action=action,
            actor=Actor(**_texts(self._actor, scope)),
            outcome=self._outcome(scope) or "unknown",  # type: ignore[arg-type]
            occurred_at=occurred_at,
            ingest=Ingest(mapping=self.name, flags=list(flags) if flags else UNSET),
            reason=reason[:REASON_MAX] if reason else UNSET,
            targets=self._find_targets(scope) or UNSET,
        )
        if reason and len(reason) > REASON_MAX:
            _flag(event, "reason_cut")
        delegates = [texts for texts in (_texts(members, scope) for members in self._delegates) if "id" in texts]
        if delegates:
            event.on_behalf_of = [Delegate(**texts) for texts in delegates]
        context = _texts(self._context, scope)
        if context:
            event.context = Context(**context)
        for when, category, severity in self._dispatch:
            if when(scope):
                event.category, event.severity = category, severity
                break
        return event

    def _find_targets(self, scope: Scope) -> list[Target]:
        """All targets that the record names, in the order of the rules, none twice."""
        targets: dict[tuple[str, str], Target] = {}
        for rule in self._targets:
            if rule.when is not None and not rule.when(scope):
                continue
            if rule.each is None:
                scopes = [scope]
            else:
                elements = value_at(scope.record, rule.each)
                scopes = [Scope(element, scope.variables) for element in elements] if isinstance(elements, list) else []
            for one in scopes:
                texts = _texts(rule.members, one)
                if "id" in texts and "type" in texts:
                    targets.setdefault((texts["type"], texts["id"]), Target(**texts))
        return list(targets.values())[:TARGETS_MAX]

    def _changes(self, members: MappingType[str, Raw], used: list[Path]) -> list[Change] | UnsetType:
        changes = []
        for key, before in members.items():
            for pattern in self._before:
                match = pattern.fullmatch(key)
                if match is None:
                    continue
                name = "_".join(part for part in match.groups() if part)
                after = members.get(name)
                changes.append(
                    Change(path="/" + strict.escape(name), op="replace", before=before, after=UNSET if after is None else after)
                )
                used += [(key,), (name,)]
                break
        return changes or UNSET

    def _make_id(self, scope: Scope, content: bytes, event: Event) -> str | UnsetType:
        digest = hashlib.sha256(content).hexdigest()
        own = self._id(scope)
        if own is not None and ID.fullmatch(made := f"{own}.{digest[:12]}"):
            return made
        has_time = event.occurred_at is not UNSET
        return f"{self.name}.{digest[:32]}" if own is not None or has_time else UNSET


@cache
def load_mappings() -> dict[str, Mapping]:
    """All mappings that ship with Tallystick, by name."""
    folder = resources.files("tallystick.transforms") / "mappings"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    mappings = [Mapping(tomllib.loads(file.read_text("utf-8"))) for file in files]
    return {mapping.name: mapping for mapping in mappings}


def _compile_members(table: MappingType[str, Any]) -> Members:
    return [(name, compile_expression(spec)) for name, spec in table.items()]


def _compile_target(table: MappingType[str, Any]) -> _TargetRule:
    members = {name: spec for name, spec in table.items() if name not in ("each", "when")}
    return _TargetRule(
        split_path(table["each"]) if "each" in table else None,
        compile_condition(table["when"]) if "when" in table else None,
        _compile_members(members),
    )


def _compile_dispatch(rule: MappingType[str, Any]) -> tuple[Callable[[Scope], bool], Any, Any]:
    return compile_condition(rule["when"]), rule.get("category", UNSET), rule.get("severity", UNSET)


def _texts(members: Members, scope: Scope) -> dict[str, Any]:
    return {name: text for name, expression in members if (text := expression(scope)) is not None}


def _flag(event: Event, flag: str) -> None:
    if event.ingest is not UNSET:
        event.ingest.flags = [*(event.ingest.flags or ()), flag]


def _without(members: MappingType[str, Raw], used: list[Path]) -> dict[str, Raw]:
    """The members that were not used, in their order; objects that lost all their members are left out too."""
    inner: dict[str, list[Path]] = {}
    for path in used:
        inner.setdefault(path[0], []).append(path[1:])
    rest = dict(members)
    for name, paths in inner.items():
        if () in paths:
            rest.pop(name, None)
        elif name in rest:
            left = _without(_decode_members(rest[name]), paths)
            if left:
                rest[name] = Raw(_encode(left))
            else:
                del rest[name]
    return rest
