"""What a mapping file says of the envelope, compiled for records with certain top-level members, and kept by those.

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
    NEVER,
    NOTHING,
    Condition,
    Expression,
    Path,
    Roots,
    Scope,
    compile_condition,
    compile_expression,
    split_path,
    value_at,
)
from tallystick.transforms.record_time import TimeRule

TARGETS_MAX = 32
KEPT_MAX = 256
_MISSES_MAX = 100 * KEPT_MAX
_SHAPES_MAX = 1_024
_SHAPE_CHARACTERS_MAX = 1_024

_SEVERITIES = frozenset("0123456")

Members = list[tuple[str, Expression]]


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
        self._action = compile_expression(envelope["action"], roots)
        self._outcome = compile_expression(envelope.get("outcome", []), roots)
        self._reason = compile_expression(envelope.get("reason", []), roots)
        self._severity = compile_expression(envelope.get("severity", []), roots)
        self._time = TimeRule(spec.get("time", {}), roots)
        self._actor = _compile_members(spec["actor"], roots)
        self._delegates = [_compile_members(table, roots) for table in spec.get("on_behalf_of", [])]
        self._delegates = [members for members in self._delegates if any(name == "id" for name, _ in members)]
        targets = [_compile_target(table, roots) for table in spec.get("targets", [])]
        self._targets = [rule for rule in targets if rule is not None]
        self._context = _compile_members(spec.get("context", {}), roots)
        dispatch = [
            (compile_condition(rule["when"], roots), rule.get("category", UNSET), rule.get("severity", UNSET))
            for rule in spec.get("dispatch", [])
        ]
        self._dispatch = [rule for rule in dispatch if rule[0] is not NEVER]
        self.own_id = compile_expression(spec.get("dedupe", {}).get("key", []), roots)
        self.has_own_id = self.own_id is not NOTHING
        self.columns: Columns | None = None

    def fill(self, scope: Scope, carried_at: ParsedTime | None = None) -> Event:
        """The event with its envelope; what moved there is noted in ``scope``. Raises EventInvalidError without an action.

        ``carried_at``: the time that the protocol says. A product's own time goes before it, any other time in the record behind it.
        """
        action = self._action(scope)
        if action is None:
            raise EventInvalidError("nothing in the record gives an action", code="field_missing", pointer="/action")
        actor = _texts(self._actor, scope)
        if "id" not in actor or "type" not in actor:
            missing = "type" if "id" in actor else "id"
            raise EventInvalidError(
                f"nothing in the record gives the actor's {missing}", code="field_missing", pointer=f"/actor/{missing}"
            )
        reason = self._reason(scope)
        if carried_at is None:
            occurred_at, flags = self._time.read(scope)
        else:
            occurred_at, flags = self._time.read_beside(scope, carried_at)
        event = Event(
            action=action,
            actor=Actor(**actor),
            outcome=self._outcome(scope) or "unknown",  # type: ignore[arg-type]
            occurred_at=occurred_at,
            ingest=Ingest(mapping=self._mapping, flags=list(flags) if flags else UNSET),
            reason=reason[:REASON_MAX] if reason else UNSET,
        )
        if reason and len(reason) > REASON_MAX:
            add_flag(event, "reason_cut")
        if self._targets:
            event.targets = self._find_targets(scope) or UNSET
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
        if event.severity is UNSET and (said := self._severity(scope)) in _SEVERITIES:
            event.severity = int(said)
        return event

    def _find_targets(self, scope: Scope) -> list[Target]:
        """All targets that the record names, in the order of the rules, none twice."""
        targets: dict[tuple[str, str], Target] = {}
        for rule in self._targets:
            if not rule.when(scope):
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


class RuleBook:
    """All rules of one mapping: the general ones, and those for the sets of members seen lately."""

    def __init__(self, spec: MappingType[str, Any]) -> None:
        self._spec = spec
        roots = Roots()
        self.general = Rules(spec, roots)
        self._roots = frozenset(roots.asked)
        self._by_known: dict[tuple[frozenset[str], frozenset[str], frozenset[str]], Rules] = {}
        self._by_shape: dict[tuple[Any, ...], Rules] = {}
        self._misses = 0

    def of(self, members: MappingType[str, Any]) -> Rules:
        """The rules for a record with these top-level members, as decoded values."""
        shape = (*members, *map(type, members.values()))
        rules = self._by_shape.get(shape)
        if rules is None:
            known = self._roots.intersection(members)
            nested = frozenset(name for name in known if type(members[name]) in (dict, list))
            texts = frozenset(name for name in known if type(members[name]) is str)
            rules = self._rules_of(known, nested, texts)
            if rules is not self.general and sum(map(len, members)) <= _SHAPE_CHARACTERS_MAX:
                if len(self._by_shape) >= _SHAPES_MAX:
                    self._by_shape.clear()
                self._by_shape[shape] = rules
        return rules

    def columns_of(self, records: Iterable[MappingType[str, Any]]) -> list[Columns | None]:
        """The columns for each of ``records``, as decoded values; None where they are not flat."""
        found = []
        by_shape = self._by_shape
        for members in records:
            rules = by_shape.get((*members, *map(type, members.values()))) or self.of(members)
            found.append(rules.columns)
        return found

    def _rules_of(self, known: frozenset[str], nested: frozenset[str], texts: frozenset[str]) -> Rules:
        rules = self._by_known.get((known, nested, texts))
        if rules is None:
            if len(self._by_known) >= KEPT_MAX:
                self._misses += 1
                if self._misses < _MISSES_MAX:
                    return self.general
                self._misses = 0
                self._by_known.clear()
                self._by_shape.clear()
            roots = Roots(known, nested, texts)
            rules = self._by_known[known, nested, texts] = Rules(self._spec, roots)
            rules.columns = _columns(self._spec, roots)
        return rules


def _columns(spec: MappingType[str, Any], roots: Roots) -> Columns | None:
    try:
        return Columns(spec, roots)
    except NotFlatError:
        return None


def _compile_members(table: MappingType[str, Any], roots: Roots) -> Members:
    found = [(name, compile_expression(spec, roots)) for name, spec in table.items()]
    return [(name, expression) for name, expression in found if expression is not NOTHING]


def _compile_target(table: MappingType[str, Any], roots: Roots) -> _TargetRule | None:
    """One rule; None when the records cannot have such a target."""
    when = compile_condition(table.get("when", []), roots)
    each = split_path(table["each"]) if "each" in table else None
    is_possible = each is None or roots.may_have(each)
    # Inside a list the paths begin at its elements.
    members = _compile_members(
        {name: spec for name, spec in table.items() if name not in ("each", "when")}, roots if each is None else Roots()
    )
    is_possible = is_possible and when is not NEVER and {"id", "type"} <= {name for name, _ in members}
    return _TargetRule(each, when, members) if is_possible else None


def _texts(members: Members, scope: Scope) -> dict[str, Any]:
    return {name: text for name, expression in members if (text := expression(scope)) is not None}
