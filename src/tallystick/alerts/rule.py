"""A rule as its file says it, and the reader of such files. Every mistake is told with file and line.

A file is TOML with any number of `[[rules]]` and `[[tests]]` tables. What can be known without an event is found when it is read:
unknown keys, queries that do not parse, fields that no event has, keys that the kind does not use or cannot do without.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from tallystick.config import Duration
from tallystick.config.base import Settings
from tallystick.config.load import decode_unit
from tallystick.errors import ConfigError, QueryError
from tallystick.query.evaluate import compile_query
from tallystick.query.fields import resolve_path

Kind = Literal["match", "threshold", "distinct", "absence", "first_seen", "sequence"]
SEVERITIES: Final[Mapping[str, int]] = {"informational": 1, "low": 2, "medium": 3, "high": 4, "critical": 5, "fatal": 6}
COUNT_MAX: Final = 1_000
RULES_MAX: Final = 10_000

_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "match": (),
    "threshold": ("count", "window"),
    "distinct": ("count", "window", "field"),
    "absence": ("window",),
    "first_seen": ("group",),
    "sequence": ("then", "window"),
}
_MAY: Final[Mapping[str, tuple[str, ...]]] = {"first_seen": ("learn",)}
_OF_KINDS: Final = ("count", "window", "field", "then", "learn")


class Rule(Settings, frozen=True):
    """`[[rules]]`"""

    name: Annotated[str, Meta(description="Its name, one of its kind over all files.", pattern=r"\A[a-z0-9][a-z0-9_-]{0,62}\Z")]
    title: Annotated[str, Meta(description="What happened, in one line.", min_length=1, max_length=200)]
    severity: Annotated[
        Literal["informational", "low", "medium", "high", "critical", "fatal"], Meta(description="How bad that is.")
    ]
    query: Annotated[str, Meta(description="The events that it is about (docs/query.md).")]
    description: Annotated[str, Meta(description="Why it matters and what to look at first.", max_length=2_000)] = ""
    kind: Annotated[Kind, Meta(description="When it fires.")] = "match"
    group: Annotated[
        tuple[str, ...], Meta(description="Fields whose values tell groups apart; each is judged for itself.", max_length=8)
    ] = ()
    window: Annotated[
        Duration | None, Meta(description="The time that `threshold`, `distinct`, `absence`, `sequence` speak of.")
    ] = None
    count: Annotated[
        Annotated[int, Meta(ge=2, le=COUNT_MAX)] | None,
        Meta(description="How many events (`threshold`) or values (`distinct`) it takes."),
    ] = None
    field: Annotated[str | None, Meta(description="The field whose values `distinct` counts.")] = None
    then: Annotated[str | None, Meta(description="The events that must follow, of the same group (`sequence`).")] = None
    learn: Annotated[
        Duration | None, Meta(description="`first_seen` keeps silent for so long after its first event of a tenant.")
    ] = None
    suppress: Annotated[Duration | None, Meta(description="No further alert of the same group for so long.")] = None
    attack: Annotated[tuple[str, ...], Meta(description="MITRE ATT&CK techniques, as in T1562.008; put into the alert.")] = ()
    own: Annotated[bool, Meta(description="Judge alerts too (`action:tallystick.alert`). Otherwise no alert raises another.")] = (
        False
    )

    def __post_init__(self) -> None:
        needed = _NEEDS[self.kind]
        for key in needed:
            if not getattr(self, key):
                raise ValueError(f"kind = a rule of kind {self.kind!r} needs `{key}`")
        for key in _OF_KINDS:
            if getattr(self, key) is not None and key not in (*needed, *_MAY.get(self.kind, ())):
                raise ValueError(f"{key} = has no meaning in a rule of kind {self.kind!r}")
        if self.window is not None and self.window.seconds <= 0:
            raise ValueError("window = is no time at all")
        for key in ("query", "then"):
            text = getattr(self, key)
            _try(key, lambda text=text: compile_query(text) if text else None)
        for key, name in (*(("group", name) for name in self.group), ("field", self.field)):
            _try(key, lambda name=name: resolve_path(name, f"`{name}`", f'"{name}"') if name else None)
        if not all(re.fullmatch(r"T\d{4}(\.\d{3})?", one) for one in self.attack):
            raise ValueError("attack = is a list of techniques as in T1562.008")

    @property
    def window_s(self) -> float:
        return self.window.seconds if self.window is not None else 0.0

    @property
    def judges(self) -> str:
        """What its state depends on: a rule that judges otherwise begins with an empty one."""
        told = (self.kind, self.query, self.then, self.group, self.window_s, self.count, self.field, self.own)
        return msgspec.json.encode(told).decode()


class RuleTest(Settings, frozen=True):
    """`[[tests]]` of a rule file: events that must fire the rule or leave it silent."""

    rule: Annotated[str, Meta(description="The rule of this file that it tests.")]
    name: Annotated[str, Meta(description="What it shows.", min_length=1)]
    events: Annotated[
        tuple[dict[str, Any], ...],
        Meta(
            description="Events, in order; with `mapping`, records. `at_s` is the second it comes at (the one before's, without), "
            "`times` repeats it, and `{n}` in texts becomes the number of the repetition."
        ),
    ]
    fires: Annotated[int, Meta(description="How many alerts there are then; 0: it must stay silent.", ge=0)]
    mapping: Annotated[str | None, Meta(description="The built-in mapping that makes events of `events`.")] = None
    until_s: Annotated[float | None, Meta(description="The second at which the test ends, for `absence`.")] = None


@dataclass(frozen=True)
class RuleFile:
    """What one file holds. ``places``: `file:line` of each rule and test."""

    path: str
    rules: list[Rule]
    tests: list[RuleTest]
    places: dict[str, str]
    test_places: list[str]


def _try(key: str, compile_it: Any) -> None:
    try:
        compile_it()
    except QueryError as error:
        raise ValueError(f"{key} = {error}") from error


def read_rules(text: bytes, path: str) -> RuleFile:
    """The rules and tests of one file. Raises ConfigError with `path:line`."""
    try:
        raw = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ConfigError(f"the rule file is not valid TOML: {error}", place=f"{path}:{line[1] if line else 1}") from error
    for key in raw:
        if key not in ("rules", "tests"):
            raise ConfigError(
                f"unknown key `{key}`", place=f"{path}:{_line_of(text, key)}", hint="A rule file has [[rules]] and [[tests]]"
            )
    rules, places = _tables(raw, text, path, "rules", Rule)
    tests, test_places = _tables(raw, text, path, "tests", RuleTest)
    named: dict[str, str] = {}
    for rule, place in zip(rules, places, strict=True):
        if rule.name in named:
            raise ConfigError(f"there is a rule `{rule.name}` already", place=place, hint=f"The other is at {named[rule.name]}")
        named[rule.name] = place
    for test, place in zip(tests, test_places, strict=True):
        if test.rule not in named:
            raise ConfigError(f"the test is for `{test.rule}`, which is no rule of this file", place=place)
    return RuleFile(path, rules, tests, named, test_places)


def _tables(raw: dict[str, Any], text: bytes, path: str, name: str, kind: Any) -> tuple[list[Any], list[str]]:
    tables = raw.get(name, [])
    lines = [number for number, line in enumerate(text.decode().split("\n"), 1) if re.match(rf"\s*\[\[\s*{name}\s*\]\]", line)]
    if not isinstance(tables, list) or len(lines) != len(tables):
        raise ConfigError(
            f"`{name}` is no list of tables", place=f"{path}:{_line_of(text, name)}", hint=f"Write each under [[{name}]]"
        )
    found, places = [], []
    for table, line in zip(tables, lines, strict=True):
        try:
            found.append(msgspec.convert(table, kind, dec_hook=decode_unit))
        except msgspec.ValidationError as error:
            raise _refused(str(error), table, text, path, line) from error
        places.append(f"{path}:{line}")
    return found, places


def _refused(said: str, table: dict[str, Any], text: bytes, path: str, line: int) -> ConfigError:
    """msgspec's words as ours, at the line of the key that they are about."""
    unknown, named = re.search(r"unknown field `([^`]+)`", said), re.match(r"(\w+) = ", said)
    at = re.search(r"at `\$\.(\w+)", said)
    key = unknown[1] if unknown else named[1] if named else at[1] if at else ""
    what = f"unknown key `{key}`" if unknown else said.split(" - at `")[0]
    if at and not unknown and not named:
        what = f"{key}: {what}"
    name = table.get("name", table.get("rule", ""))
    return ConfigError(f"{name}: {what}" if name else what, place=f"{path}:{_line_of(text, key, line)}", hint="See docs/alerts.md")


def _line_of(text: bytes, key: str, first: int = 1) -> int:
    """The line of a key in the table whose header is at ``first``; that line itself when the key is not there."""
    for number, line in enumerate(text.decode().split("\n")[first - 1 :], first):
        if number > first and re.match(r"\s*\[", line) and first > 1:
            break
        if re.match(rf"\s*\[*\s*{re.escape(key)}\b", line) and key:
            return number
    return first
