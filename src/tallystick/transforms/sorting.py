"""What kind of event a record tells of: its action, outcome, category, severity and type of actor, remembered by the texts that decide it.

A mapping sorts by a dozen conditions on few members, and a log repeats itself: the same calls by the same kinds of actors. What depends on
texts alone, and moves no member, is asked once for each combination of these texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec import UNSET

from tallystick.transforms.expressions import NEVER, Condition, Scope, asked_paths, compile_condition, compile_expression
from tallystick.transforms.record_paths import Path, Roots, reader

_KEPT_MAX = 4_096
_CHARACTERS_MAX = 512
_PATHS_MAX = 12


class Sorted(NamedTuple):
    """``type_``: of the actor. What is not decided here is None."""

    action: str | None
    outcome: str | None
    type_: str | None
    category: Any
    severity: Any


class Sorting:
    """One mapping's rules for it, for records of which ``roots`` are known.

    ``has_action``, ``has_type``: whether these are decided here; where a member moves to become one they are not.
    """

    def __init__(self, spec: Mapping[str, Any], roots: Roots) -> None:
        envelope = spec["envelope"]
        paths: set[Path] = set()
        self.has_action = _is_decided(envelope["action"], paths)
        self.has_type = _is_decided(spec["actor"].get("type", []), paths)
        is_all = _is_decided(envelope.get("outcome", []), paths)
        self._action = compile_expression(envelope["action"] if self.has_action else [], roots)
        self._type = compile_expression(spec["actor"].get("type", []) if self.has_type else [], roots)
        self._outcome = compile_expression(envelope.get("outcome", []), roots)
        dispatch: list[tuple[Condition, Any, Any]] = []
        for rule in spec.get("dispatch", []):
            is_all = _is_decided([{"use": {"const": ""}, "when": rule["when"]}], paths) and is_all
            when = compile_condition(rule["when"], roots)
            if when is not NEVER:
                dispatch.append((when, rule.get("category", UNSET), rule.get("severity", UNSET)))
        self._dispatch = dispatch
        asked = sorted(path for path in paths if roots.may_have(path))
        texts = [path[0] for path in asked if len(path) == 1 and roots.is_text(path[0])]
        self._texts: Callable[[Any], Any] = itemgetter(*texts) if texts else _nothing
        self._readers = [reader(path, roots) for path in asked if len(path) > 1 or not roots.is_text(path[0])]
        self._is_kept = is_all and len(asked) <= _PATHS_MAX
        self._kept: dict[tuple[Any, ...], Sorted] = {}

    def __call__(self, scope: Scope) -> Sorted:
        """What is decided of one record."""
        if not self._is_kept:
            return self._decide(scope)
        record = scope.record
        key = (self._texts(record), *[read(record) for read in self._readers])
        found = self._kept.get(key)
        if found is None:
            found = self._decide(scope)
            if len(str(key)) <= _CHARACTERS_MAX:
                if len(self._kept) >= _KEPT_MAX:
                    self._kept.clear()
                self._kept[key] = found
        return found

    def _decide(self, scope: Scope) -> Sorted:
        category, severity = UNSET, UNSET
        for when, sorted_as, weight in self._dispatch:
            if when(scope):
                category, severity = sorted_as, weight
                break
        return Sorted(self._action(scope), self._outcome(scope), self._type(scope), category, severity)


def _is_decided(spec: Any, paths: set[Path]) -> bool:
    """Whether texts alone decide it; their paths are added."""
    asked = asked_paths(spec)
    paths |= asked or set()
    return asked is not None


def _nothing(record: Any) -> None:
    return None
