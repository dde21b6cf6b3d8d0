"""What rules would have raised over events that are past: the real engine, over each tenant's events in their order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tallystick.alerts.cases import fields_of
from tallystick.alerts.engine import ACTION, Alert, Engine
from tallystick.alerts.rule import Rule
from tallystick.query.evaluate import values_at


class Backtest:
    """Takes decoded events, each tenant's in its order; tenants may follow one another.

    An absence that lasts to the end of the period is not told: whether it ended is not known.
    """

    def __init__(self, rules: Sequence[Rule], groups_max: int = 10_000) -> None:
        self._rules = rules
        self._groups_max = groups_max
        self._engine = Engine(rules, groups_max)
        self._tenant = ""
        self._events = 0
        self._alerts = dict.fromkeys((rule.name for rule in rules), 0)
        self._unresolved = {rule.name: {name: values_at(path) for name, path in fields_of(rule).items()} for rule in rules}

    def take(self, event: dict[str, Any]) -> list[Alert]:
        """What this event would have raised."""
        if event["tenant"] != self._tenant:
            self._tenant, self._engine = event["tenant"], Engine(self._rules, self._groups_max)
        self._events += 1
        if event["action"] != ACTION:
            self._resolve(event)
        at = datetime.fromisoformat(event["received_at"]).timestamp()
        alerts = self._engine.due(at)
        if self._engine.is_wanted(event["action"]):
            alerts += self._engine.take(event, at, self._events)
        for alert in alerts:
            self._alerts[alert.rule.name] += 1
        return alerts

    def _resolve(self, event: dict[str, Any]) -> None:
        for waiting in self._unresolved.values():
            for name in [name for name, read in waiting.items() if read(event)] if waiting else ():
                del waiting[name]

    def report(self) -> dict[str, Any]:
        """Events, alerts, and by rule its alerts and the fields that no event had."""
        rules = {
            rule.name: {
                "severity": rule.severity,
                "alerts": self._alerts[rule.name],
                "unresolved": sorted(self._unresolved[rule.name]),
            }
            for rule in self._rules
        }
        return {"events": self._events, "alerts": sum(self._alerts.values()), "rules": rules}
