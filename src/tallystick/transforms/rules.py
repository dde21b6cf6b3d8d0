"""What a mapping file says of the envelope, compiled for records with certain members, on top and one level down, and kept by those.

Compiling takes longer than mapping a record, so only so many sets of rules are kept, and records whose members differ all the time
are mapped with the general rules in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from typing import Any, NamedTuple

from msgspec import UNSET

from tallystick.errors import EventInvalidError
from tallystick.event import Actor, Context, Delegate, Event, Ingest, Target
from tallystick.event.stamp import add_flag
from tallystick.event.times import ParsedTime
from tallystick.transforms.columns import REASON_MAX, Columns, NotFlatError
from tallystick.transforms.expressions import (
    ALWAYS,
    NEVER,
    NOTHING,
    Condition,
    Constant,
    Expression,
    Scope,
    as_action,
    compile_condition,
    compile_expression,
)
from tallystick.transforms.record_paths import Path, Roots, split_path, value_at
from tallystick.transforms.record_time import TimeRule
from tallystick.transforms.sorting import Sorting

TARGETS_MAX = 32
KEPT_MAX = 512
_MISSES_MAX = 100 * KEPT_MAX
_SHAPES_MAX = 1_024
_SHAPE_CHARACTERS_MAX = 1_024

_SEVERITIES = frozenset("0123456")


class Members:
    """Expressions by the names of what they fill."""

    def __init__(self, expressions: list[tuple[str, Expression]]) -> None:
        self.names = frozenset(name for name, _ in expressions)
        self._constants: dict[str, Any] = {name: one.text for name, one in expressions if isinstance(one, Constant)}
        self._others = [(name, one) for name, one in expressions if not isinstance(one, Constant)]

    def texts(self, scope: Scope) -> dict[str, Any]:
        """What they give for one record."""
        found = self._constants.copy()
        for name, expression in self._others:
            text = expression(scope)
            if text is not None:
                found[name] = text
        return found


class _Known(NamedTuple):
    """What rules were compiled for: as `Roots` takes it."""

    known: frozenset[str]
    nested: frozenset[str]
    texts: frozenset[str]
    inner: frozenset[tuple[str, str]]


class _TargetRule(NamedTuple):
    each: Path | None
    when: Condition
    members: Members


class Rules:
    """One mapping's rules for the envelope. ``roots``: what is known of the records' members, and what these rules ask for.

    ``columns``: the same for many records at once, where they are flat.
    """

    def __init__(self, spec: MappingType[str, Any], roots: Roots) -> None:
        envelope = spec["envelope"]
        self._mapping: str = spec["name"]
        self._sort = Sorting(spec, roots)
        self._action = None if self._sort.has_action else compile_expression(envelope["action"], roots)
        self._reason = compile_expression(envelope.get("reason", []), roots)
        self._severity = compile_expression(envelope.get("severity", []), roots)
        self._time = TimeRule(spec.get("time", {}), roots)
        actor = {name: part for name, part in spec["actor"].items() if name != "type" or not self._sort.has_type}
        self._actor = _compile_members(actor, roots)
        self._delegates = [_compile_members(table, roots) for table in spec.get("on_behalf_of", [])]
        self._delegates = [members for members in self._delegates if "id" in members.names]
        targets = [_compile_target(table, roots) for table in spec.get("targets", [])]
        self._targets = [rule for rule in targets if rule is not None]
        self._context = _compile_members(spec.get("context", {}), roots)
        self.own_id = compile_expression(spec.get("dedupe", {}).get("key", []), roots)
        self.has_own_id = self.own_id is not NOTHING
        self.columns: Columns | None = None

    def fill(self, scope: Scope, carried_at: ParsedTime | None = None) -> Event:
        """The event with its envelope; what moved there is noted in ``scope``. Raises EventInvalidError without an action.

        ``carried_at``: the time that the protocol says. A product's own time goes before it, any other time in the record behind it.
        """
        action, outcome, type_, category, severity = self._sort(scope)
        if self._action is not None:
            action = self._action(scope)
        if action is None:
            raise EventInvalidError("nothing in the record gives an action", code="field_missing", pointer="/action")
        if as_action(action) is None:
            message = f'an event cannot have the action {action[:100]!r}: a mapping makes one of it by `as = "slug"`'
            raise EventInvalidError(message, code="field_invalid", pointer="/action")
        actor = self._actor.texts(scope)
        if type_ is not None:
            actor["type"] = type_
        if "id" not in actor or "type" not in actor:
            missing = "type" if "id" in actor else "id"
            raise EventInvalidError(
                f"nothing in the record gives the actor's {missing}", code="field_missing", pointer=f"/actor/{missing}"
            )
        if carried_at is None:
            occurred_at, flags = self._time.read(scope)
        else:
            occurred_at, flags = self._time.read_beside(scope, carried_at)
        event = Event(
            action=action,
            actor=Actor(**actor),
            outcome=outcome or "unknown",  # type: ignore[arg-type]
            occurred_at=occurred_at,
            category=category,
            severity=severity,
            ingest=Ingest(mapping=self._mapping, flags=list(flags) if flags else UNSET),
        )
        if self._reason is not NOTHING:
            self._add_reason(event, scope)
        if self._targets:
            event.targets = self._find_targets(scope) or UNSET
        if self._delegates:
            event.on_behalf_of = self._find_delegates(scope) or UNSET
        context = self._context.texts(scope)
        if context:
            event.context = Context(**context)
        if severity is UNSET and self._severity is not NOTHING and (said := self._severity(scope)) in _SEVERITIES:
            event.severity = int(said)
        return event

    def _add_reason(self, event: Event, scope: Scope) -> None:
        reason = self._reason(scope)
        if reason:
            event.reason = reason[:REASON_MAX]
            if len(reason) > REASON_MAX:
                add_flag(event, "reason_cut")

    def _find_delegates(self, scope: Scope) -> list[Delegate]:
        return [Delegate(**texts) for members in self._delegates if "id" in (texts := members.texts(scope))]

    def _find_targets(self, scope: Scope) -> list[Target]:
        """All targets that the record names, in the order of the rules, none twice."""
        if len(self._targets) == 1 and self._targets[0].each is None and self._targets[0].when is ALWAYS:
            texts = self._targets[0].members.texts(scope)
            return [Target(**texts)] if "id" in texts and "type" in texts else []
        targets: dict[tuple[str, str], Target] = {}
        for rule in self._targets:
            if rule.when is not ALWAYS and not rule.when(scope):
                continue
            if rule.each is None:
                scopes = [scope]
            else:
                elements = value_at(scope.record, rule.each)
                scopes = [Scope(element, scope.variables) for element in elements] if isinstance(elements, list) else []
            for one in scopes:
                texts = rule.members.texts(one)
                if "id" in texts and "type" in texts:
                    targets.setdefault((texts["type"], texts["id"]), Target(**texts))
        return list(targets.values())[:TARGETS_MAX]


class RuleBook:
    """All rules of one mapping: the general ones, and those for the sets of members seen lately."""

    def __init__(self, spec: MappingType[str, Any]) -> None:
        self._spec = spec
        roots = Roots()
        self.general = Rules(spec, roots)
        self._roots = frozenset(roots.asked)
        self._inner = [
            (root, frozenset(name for one, name in roots.asked_inner if one == root))
            for root in sorted({root for root, _ in roots.asked_inner})
        ]
        self._by_known: dict[_Known, Rules] = {}
        self._by_shape: dict[tuple[Any, ...], Rules] = {}
        self._misses = 0

    def of(self, members: MappingType[str, Any]) -> Rules:
        """The rules for a record with these members, as decoded values."""
        shape = (*members, *map(type, members.values()), *self._inner_of(members))
        rules = self._by_shape.get(shape)
        if rules is None:
            rules = self._rules_of(self._known_of(members))
            if rules is not self.general and sum(map(len, members)) <= _SHAPE_CHARACTERS_MAX:
                if len(self._by_shape) >= _SHAPES_MAX:
                    self._by_shape.clear()
                self._by_shape[shape] = rules
        return rules

    def columns_of(self, records: Iterable[MappingType[str, Any]]) -> list[Columns | None]:
        """The columns for each of ``records``, as decoded values; None where they are not flat."""
        if self._inner:
            return [self.of(members).columns for members in records]
        found = []
        by_shape = self._by_shape
        for members in records:
            rules = by_shape.get((*members, *map(type, members.values()))) or self.of(members)
            found.append(rules.columns)
        return found

    def _inner_of(self, members: MappingType[str, Any]) -> list[frozenset[str]]:
        """Those members that rules ask for, of each object that they ask in."""
        return [asked.intersection(value) for root, asked in self._inner if type(value := members.get(root)) is dict]

    def _known_of(self, members: MappingType[str, Any]) -> _Known:
        known = self._roots.intersection(members)
        nested = frozenset(name for name in known if type(members[name]) in (dict, list))
        texts = frozenset(name for name in known if type(members[name]) is str)
        inner = frozenset(
            (root, name)
            for root, asked in self._inner
            if type(value := members.get(root)) is dict
            for name in asked.intersection(value)
        )
        return _Known(known, nested, texts, inner)

    def _rules_of(self, known: _Known) -> Rules:
        rules = self._by_known.get(known)
        if rules is None:
            if len(self._by_known) >= KEPT_MAX:
                self._misses += 1
                if self._misses < _MISSES_MAX:
                    return self.general
                self._misses = 0
                self._by_known.clear()
                self._by_shape.clear()
            roots = Roots(*known)
            rules = self._by_known[known] = Rules(self._spec, roots)
            rules.columns = _columns(self._spec, roots)
        return rules


def _columns(spec: MappingType[str, Any], roots: Roots) -> Columns | None:
    try:
        return Columns(spec, roots)
    except NotFlatError:
        return None


def _compile_members(table: MappingType[str, Any], roots: Roots) -> Members:
    found = [(name, compile_expression(spec, roots)) for name, spec in table.items()]
    return Members([(name, expression) for name, expression in found if expression is not NOTHING])


def _compile_target(table: MappingType[str, Any], roots: Roots) -> _TargetRule | None:
    """One rule; None when the records cannot have such a target."""
    when = compile_condition(table.get("when", []), roots)
    each = split_path(table["each"]) if "each" in table else None
    is_possible = each is None or roots.may_have(each)
    # Inside a list the paths begin at its elements.
    members = _compile_members(
        {name: spec for name, spec in table.items() if name not in ("each", "when")}, roots if each is None else Roots()
    )
    is_possible = is_possible and when is not NEVER and {"id", "type"} <= members.names
    return _TargetRule(each, when, members) if is_possible else None
