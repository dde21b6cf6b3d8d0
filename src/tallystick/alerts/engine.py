"""The engine: events in, alerts out. No IO; time is given.

1. Events go in by their order in the journal, which is the order of acceptance; windows are over `received_at`, which a sender cannot choose.
2. The state of all rules is one plain value (`state`, `restore`). The same events over the same state give the same alerts, with the
   same ids, so whoever keeps the state beside a position of the journal may go over events again and raises nothing twice.
3. Bounds: a rule remembers ``groups_max`` groups (over all tenants) and as many suppressions; a group is at most `rule.COUNT_MAX` short
   entries. A rule that was changed begins with an empty state; changing title, description, severity or `suppress` keeps it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from tallystick.alerts.candidates import Candidates
from tallystick.alerts.kinds import Fired, Judge, Seen, build_judge
from tallystick.alerts.kinds.judge import Group, Memory
from tallystick.alerts.rule import SEVERITIES, Rule
from tallystick.event.times import format_utc

ACTION: Final = "tallystick.alert"
_IDS_MAX = 20
_VALUES_MAX = 20


@dataclass(frozen=True, slots=True)
class Alert:
    """``event`` is the alert as an event of ours, for the log of ``tenant``."""

    rule: Rule
    tenant: str
    event: dict[str, Any]


class RuleState(msgspec.Struct, array_like=True):
    """What one rule remembers: ``judges`` is `Rule.judges`, ``quiet`` groups and until when no alert of them is raised."""

    judges: str
    memory: list[tuple[list[str], Any]] = []
    quiet: list[tuple[list[str], float]] = []
    forgotten: int = 0
    suppressed: int = 0


@dataclass
class _Rule:
    judge: Judge
    memory: Memory = field(default_factory=OrderedDict)
    quiet: OrderedDict[Group, float] = field(default_factory=OrderedDict)
    forgotten: int = 0
    suppressed: int = 0


class Engine:
    """The rules over one stream of events."""

    def __init__(self, rules: Sequence[Rule], groups_max: int = 10_000) -> None:
        self._rules = [_Rule(build_judge(rule)) for rule in rules]
        self._groups_max = groups_max
        self._candidates = Candidates([one.judge for one in self._rules])
        self._timed = [one for one in self._rules if one.judge.rule.kind == "absence"]

    def is_wanted(self, action: str) -> bool:
        """False: no rule can say anything about an event of this action, and it need not be decoded."""
        return bool(self._candidates.of(action))

    def take(self, event: dict[str, Any], at: float, seq: int) -> list[Alert]:
        """Judge one decoded event, received at ``at`` (Unix seconds), entry ``seq`` of the journal."""
        seen = Seen(event, at, seq)
        is_own = event["action"] == ACTION
        alerts = []
        for number in self._candidates.of(event["action"]):
            one = self._rules[number]
            if is_own and not _may_judge(one.judge.rule, event):
                continue
            fired = one.judge.take(seen, one.memory)
            while len(one.memory) > self._groups_max:
                one.memory.popitem(last=False)
                one.forgotten += 1
            if fired is not None and (alert := self._raise(one, fired)) is not None:
                alerts.append(alert)
        return alerts

    def due(self, now: float) -> list[Alert]:
        """What fires because nothing came up to ``now``: every event received before it has been taken."""
        fired = [(one, found) for one in self._timed for found in one.judge.due(now, one.memory)]
        return [alert for one, found in fired if (alert := self._raise(one, found)) is not None]

    def _raise(self, one: _Rule, fired: Fired) -> Alert | None:
        rule = one.judge.rule
        if rule.suppress is not None:
            if one.quiet.get(fired.group, 0.0) > fired.last_at:
                one.suppressed += 1
                return None
            one.quiet[fired.group] = fired.last_at + rule.suppress.seconds
            one.quiet.move_to_end(fired.group)
            if len(one.quiet) > self._groups_max:
                one.quiet.popitem(last=False)
        return Alert(rule, fired.group[0], alert_event(rule, fired))

    def state(self) -> dict[str, RuleState]:
        """All that is remembered, by rule, for `restore`."""
        return {
            one.judge.rule.name: RuleState(
                one.judge.rule.judges,
                [(list(group), kept) for group, kept in one.memory.items()],
                [(list(group), until) for group, until in one.quiet.items()],
                one.forgotten,
                one.suppressed,
            )
            for one in self._rules
        }

    def restore(self, state: dict[str, RuleState]) -> None:
        """Go on where `state` was taken; rules that are not in it, or judge otherwise now, begin anew."""
        for one in self._rules:
            kept = state.get(one.judge.rule.name)
            if kept is None or kept.judges != one.judge.rule.judges:
                continue
            one.memory = OrderedDict((tuple(group), value) for group, value in kept.memory[-self._groups_max :])
            one.quiet = OrderedDict((tuple(group), until) for group, until in kept.quiet[-self._groups_max :])
            one.forgotten, one.suppressed = kept.forgotten, kept.suppressed

    def counts(self) -> dict[str, dict[str, int]]:
        """By rule: groups that are remembered, groups that had to be forgotten, alerts that were suppressed."""
        return {
            one.judge.rule.name: {"groups": len(one.memory), "forgotten": one.forgotten, "suppressed": one.suppressed}
            for one in self._rules
        }


def alert_event(rule: Rule, fired: Fired) -> dict[str, Any]:
    """The alert as an event. Its id is made of the rule and of what fired it, so the same alert has it always."""
    _, *values = fired.group
    whose = hashlib.sha256("\0".join((rule.name, *fired.group, str(fired.seq))).encode("utf-8", "surrogatepass")).hexdigest()
    facts: dict[str, Any] = {
        "rule": rule.name,
        "kind": rule.kind,
        "severity": rule.severity,
        "group": dict(zip(rule.group, values, strict=True)),
        "count": fired.count,
        "first_at": _text(fired.first_at),
        "last_at": _text(fired.last_at),
        "events": fired.ids[-_IDS_MAX:],
        "attack": list(rule.attack),
    }
    if fired.values:
        facts["values"] = list(fired.values[:_VALUES_MAX])
    if fired.event is not None:
        facts["action"] = fired.event["action"]
        facts["actor"] = {key: value for key, value in fired.event["actor"].items() if key in ("type", "id")}
    event: dict[str, Any] = {
        "id": f"alert:{rule.name}:{whose[:32]}",
        "occurred_at": _text(fired.last_at),
        "action": ACTION,
        "category": "system",
        "severity": SEVERITIES[rule.severity],
        "actor": {"type": "system", "id": "tallystick", "name": "Tallystick"},
        "targets": [{"type": "rule", "id": rule.name, "name": rule.title}],
        "outcome": "success",
        "reason": rule.description or rule.title,
        "metadata": facts,
    }
    if fired.event is not None and (ip := (fired.event.get("context") or {}).get("ip")):
        event["context"] = {"ip": ip}
    return event


def _may_judge(rule: Rule, alert: dict[str, Any]) -> bool:
    """Whether the rule is to judge an alert: never its own, and none that was raised over another alert, so that no alert comes back."""
    facts = alert.get("metadata") or {}
    return rule.own and facts.get("rule") != rule.name and facts.get("action") != ACTION


def _text(seconds: float) -> str:
    return format_utc(datetime.fromtimestamp(seconds, UTC))
