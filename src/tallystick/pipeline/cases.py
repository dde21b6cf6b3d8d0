"""`tallystick test`: the `[[tests]]` of a configuration, run against its mappings, transforms and filters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tallystick.config import CaseSettings, Config
from tallystick.errors import ConfigError
from tallystick.pipeline.rehearsal import Fate, Rehearsal

_MISSING = object()


class Difference(msgspec.Struct):
    """One place where a test is not what was expected. A side that is not there is None."""

    path: str
    expected: Any = None
    found: Any = None


class CaseResult(msgspec.Struct):
    """One test: what was different, and what became of its input."""

    name: str
    place: str
    ok: bool
    differences: list[Difference]
    fates: list[Fate]


class Untouched(msgspec.Struct):
    """What no test did anything with; filters include the `where` of destinations."""

    mappings: list[str]
    transforms: list[str]
    filters: list[str]

    def __bool__(self) -> bool:
        return bool(self.mappings or self.transforms or self.filters)


async def run_cases(config: Config) -> tuple[list[CaseResult], Untouched]:
    """Every test in order, and what none of them touched. Raises ConfigError; each test is a rehearsal of its own."""
    places = list(_places(config))
    if not config.tests:
        raise ConfigError("there are no tests", place=config.path, hint="docs/transforms.md shows [[tests]]")
    results = []
    rehearsal = Rehearsal(config)
    for case, place in zip(config.tests, places, strict=True):
        _check(case, rehearsal, place)
        rehearsal.forget()
        fates: list[Fate] = []
        for number, record in enumerate(_records(case), 1):
            fates += await rehearsal.run(case.source, record, number)
        differences = list(_compare(case, fates))
        results.append(CaseResult(case.name, place, not differences, differences, fates))
    return results, _untouched(config, rehearsal)


def _check(case: CaseSettings, rehearsal: Rehearsal, place: str) -> None:
    rehearsal.plan(case.source, place)
    if case.filtered is not None and case.filtered not in rehearsal.watched:
        raise ConfigError(f"there is no transform `{case.filtered}` that could filter", place=place)
    for name in case.destinations or ():
        if name not in rehearsal.wheres:
            raise ConfigError(f"there is no destination `{name}`", place=place)
    if [case.expect, case.filtered, case.quarantined].count(None) != 2:
        hint = "One test says one of the three; `expect = {}` is any event"
        raise ConfigError(f"the test {case.name!r} needs `expect`, `filtered` or `quarantined`", place=place, hint=hint)


def _records(case: CaseSettings) -> list[bytes]:
    parts: tuple[str | dict[str, Any], ...] = case.input if isinstance(case.input, tuple) else (case.input,)
    return [one.encode() if isinstance(one, str) else msgspec.json.encode(one) for one in parts]


def _compare(case: CaseSettings, fates: list[Fate]) -> Iterator[Difference]:
    if case.filtered is not None or case.quarantined is not None:
        yield from _compare_ends(case, fates)
        return
    wanted = [case.expect] if isinstance(case.expect, dict) else list(case.expect or ())
    events = [fate for fate in fates if fate.event is not None and fate.outcome == "accepted"]
    if len(events) != len(wanted) or len(fates) != len(events):
        expected = "1 event" if len(wanted) == 1 else f"{len(wanted)} events"
        yield Difference("outcome", expected, "; ".join(map(told, fates)))
    for number, (members, fate) in enumerate(zip(wanted, events, strict=False)):
        prefix = f"{number}." if len(wanted) > 1 else ""
        yield from _differences(members, fate.event, prefix.rstrip("."))
        for path in case.absent:
            value = _at(fate.event, path.split("."))
            if value is not _MISSING:
                yield Difference(prefix + path, None, value)
        if case.destinations is not None:
            getting = [name for name, what in fate.destinations.items() if what == "would get it"]
            if sorted(getting) != sorted(case.destinations):
                yield Difference(f"{prefix}destinations", list(case.destinations), getting)


def _compare_ends(case: CaseSettings, fates: list[Fate]) -> Iterator[Difference]:
    for fate in fates:
        if case.filtered is not None and (fate.outcome, fate.by) != ("filtered", case.filtered):
            yield Difference("outcome", f"filtered by {case.filtered}", told(fate))
        if case.quarantined is not None and (fate.outcome not in ("quarantined", "refused") or fate.code != case.quarantined):
            yield Difference("outcome", f"quarantined: {case.quarantined}", told(fate))


def told(fate: Fate) -> str:
    """What became of a record, in one line."""
    match fate.outcome:
        case "accepted" | "duplicate":
            return f"{fate.outcome}: {(fate.event or {}).get('action', '')}"
        case "filtered":
            return f"filtered by {fate.by}"
        case "nothing":
            return fate.message
    where = f" at {fate.pointer}" if fate.pointer else ""
    by = f", said by {fate.by}" if fate.by else ""
    return f"{fate.outcome}: {fate.code}{where}: {fate.message}{by}"


def _differences(expected: Any, found: Any, path: str) -> Iterator[Difference]:
    """Members that are not expected may be there; elements of lists may not."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            yield from _differences(value, found.get(key, _MISSING), f"{path}.{key}".lstrip("."))
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(one, other, f"{path}.{number}")
    elif expected != found or isinstance(expected, bool) != isinstance(found, bool):
        yield Difference(path or "event", expected, None if found is _MISSING else found)


def _at(value: Any, parts: list[str]) -> Any:
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part, _MISSING)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _MISSING
    return value


def _untouched(config: Config, rehearsal: Rehearsal) -> Untouched:
    plans = [rehearsal.plans[name] for name in config.sources]
    mappings = {plan.mapping.name for plan in plans if plan.mapping is not None} - rehearsal.mapped
    idle = {name for name, watched in rehearsal.watched.items() if not watched.has_acted} | {
        name for name in config.transforms if name not in rehearsal.watched
    }
    filters = {name for name in idle if config.transforms.get(name, {}).get("type") in ("filter", "sample")}
    wheres = [
        f"where of {name}" for name, where in rehearsal.wheres.items() if where is not None and name not in rehearsal.held_back
    ]
    return Untouched(sorted(mappings), sorted(idle - filters), sorted(filters) + sorted(wheres))


def _places(config: Config) -> Iterator[str]:
    """``file:line`` of each `[[tests]]`; of the file alone where they are written as one list."""
    text = Path(config.path).read_text("utf-8") if config.path else ""
    lines = [number for number, line in enumerate(text.split("\n"), 1) if re.match(r"\s*\[\[\s*tests\s*\]\]", line)]
    exact = len(lines) == len(config.tests)
    for number in range(len(config.tests)):
        yield f"{config.path}:{lines[number]}" if exact else config.path
