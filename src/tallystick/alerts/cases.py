"""The tests in rule files: events that must fire a rule, and events that must leave it silent.

Events go through the real engine as they would in service: decoded canonical lines, or records through the built-in mapping that the
test names. Time is the test's own: it begins at `BEGIN`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from tallystick.alerts.engine import Engine
from tallystick.alerts.rule import Rule, RuleFile, RuleTest
from tallystick.errors import ConfigError
from tallystick.event.codec import EventReader, Limits, encode_lines
from tallystick.event.model import Event, Source
from tallystick.event.stamp import Stamp
from tallystick.event.times import format_utc
from tallystick.query.evaluate import values_at
from tallystick.query.fields import resolve_path
from tallystick.query.grammar import parse
from tallystick.query.nodes import Field, leaves
from tallystick.transforms.library import find_mapping
from tallystick.transforms.map_result import MapOptions

BEGIN: Final = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
_LIMITS: Final = Limits(65_535, 32, 100_000)
_TENANT: Final = "default"


class RuleResult(msgspec.Struct):
    """What one test came to. ``fired``: alerts that there were."""

    rule: str
    name: str
    place: str
    expected: int
    fired: int

    @property
    def ok(self) -> bool:
        return self.expected == self.fired


def run_rule_tests(file: RuleFile) -> list[RuleResult]:
    """All tests of one file, in order. Raises ConfigError when an event of a test is none."""
    rules = {rule.name: rule for rule in file.rules}
    return [
        RuleResult(test.rule, test.name, place, test.fires, len(_alerts(rules[test.rule], test, place)))
        for test, place in zip(file.tests, file.test_places, strict=True)
    ]


def _alerts(rule: Rule, test: RuleTest, place: str) -> list[Any]:
    engine = Engine([rule])
    alerts: list[Any] = []
    second = 0.0
    for seq, (second, event) in enumerate(events_of(test, place), 1):
        at = (BEGIN + timedelta(seconds=second)).timestamp()
        alerts += engine.due(at)
        if engine.is_wanted(event["action"]):
            alerts += engine.take(event, at, seq)
    end = second if test.until_s is None else test.until_s
    return alerts + engine.due((BEGIN + timedelta(seconds=end)).timestamp())


def events_of(test: RuleTest, place: str) -> Iterator[tuple[float, dict[str, Any]]]:
    """Each event of a test as it would be in the journal, with the second at which it comes."""
    second = 0.0
    for table in test.events:
        said = dict(table)
        second = float(said.pop("at_s", second))
        for number in range(int(said.pop("times", 1))):
            record = msgspec.json.encode(_numbered(said, number), enc_hook=str)
            for event in _read(record, test.mapping, place):
                yield second, _decoded(event, second)


def _read(record: bytes, mapping: str | None, place: str) -> list[Event]:
    if mapping is None:
        batch = EventReader(_LIMITS).read(record, "object")
        if batch.errors:
            raise ConfigError(f"an event of the test is none: {batch.errors[0]}", place=place)
        return batch.events
    result = find_mapping(mapping, Path()).map_batch([record], options=MapOptions(source_type="http", keep_raw=False))
    if result.problems:
        raise ConfigError(f"a record of the test is none of {mapping}: {result.problems[0]}", place=place)
    return result.events


def _decoded(event: Event, second: float) -> dict[str, Any]:
    stamp = Stamp(_TENANT, format_utc(BEGIN + timedelta(seconds=second)), Source(name="test", type="http"))
    decoded: dict[str, Any] = msgspec.json.decode(encode_lines([event], stamp, _LIMITS)[0])
    return decoded


def _numbered(value: Any, number: int) -> Any:
    if isinstance(value, str):
        return value.replace("{n}", str(number))
    if isinstance(value, dict):
        return {key: _numbered(inner, number) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbered(inner, number) for inner in value]
    return value


def fields_of(rule: Rule) -> dict[str, tuple[str, ...]]:
    """Every field that a rule reads, by its path as text."""
    paths = {leaf.path for text in (rule.query, rule.then) if text for leaf in leaves(parse(text)) if isinstance(leaf, Field)}
    paths |= {resolve_path(name, "", "") for name in (*rule.group, *((rule.field,) if rule.field else ()))}
    return {".".join(path): path for path in sorted(paths)}


def unresolved(rule: Rule, events: list[dict[str, Any]]) -> list[str]:
    """The fields of a rule that no event of these has: nothing is wrong with one event, and with all of them the rule is deaf."""
    return [name for name, path in fields_of(rule).items() if not any(values_at(path)(event) for event in events)]


def warnings_of(file: RuleFile) -> Iterator[tuple[str, str, str]]:
    """``file:line``, rule and words for each rule that no test fires or that may be deaf. Raises ConfigError as the tests do."""
    for rule in file.rules:
        tests = [(test, at) for test, at in zip(file.tests, file.test_places, strict=True) if test.rule == rule.name]
        if not any(test.fires for test, _ in tests):
            yield file.places[rule.name], rule.name, "no test fires it"
            continue
        events = [event for test, at in tests for _, event in events_of(test, at)]
        if deaf := unresolved(rule, events):
            yield file.places[rule.name], rule.name, f"no event of its tests has {', '.join(deaf)}"
