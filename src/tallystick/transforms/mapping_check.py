"""What no mapping file may say: tables and members that there are not, and values that no event can have.

Where an event has one of a few words, a file may only give words (`const`, `lookup`), never whatever a record says. So what a mapping
makes is a valid event, whatever the record; the action alone is looked at in each event.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, get_args

from tallystick.errors import ConfigError
from tallystick.event.model import ActorType, Category, OutcomeName

_ACTOR = frozenset({"type", "id", "name", "email", "credential"})
_MEMBERS: Mapping[str, frozenset[str]] = {
    "match": frozenset({"all"}),
    "dedupe": frozenset({"key"}),
    "time": frozenset({"from", "zone", "required"}),
    "envelope": frozenset({"action", "outcome", "reason", "severity"}),
    "actor": _ACTOR,
    "on_behalf_of": _ACTOR | {"mode"},
    "targets": frozenset({"type", "id", "name", "owner", "each", "when"}),
    "context": frozenset({"ip", "user_agent", "session_id", "request_id", "trace_id", "span_id", "location"}),
    "dispatch": frozenset({"when", "category", "severity"}),
    "redact": frozenset({"allow", "keys"}),
}
_WORDS: Mapping[tuple[str, str], Collection[str]] = {
    ("envelope", "outcome"): get_args(OutcomeName),
    ("actor", "type"): get_args(ActorType),
    ("on_behalf_of", "type"): get_args(ActorType),
    ("on_behalf_of", "mode"): ("impersonation", "delegation"),
}
_SEVERITIES = range(7)


def check_tables(spec: Mapping[str, Any]) -> None:
    """Raises ConfigError; its ``place`` is the table, as in ``context``."""
    for name, members in _MEMBERS.items():
        tables = spec.get(name, {})
        for table in tables if isinstance(tables, list) else [tables]:
            if not isinstance(table, Mapping):
                raise ConfigError(f"`{name}` is no table", place=name)
            for member in table:
                if member not in members:
                    raise ConfigError(f"[{name}] has no `{member}`", place=name, hint="It has " + ", ".join(sorted(members)))
            for (owner, member), words in _WORDS.items():
                if owner == name and member in table:
                    _check_words(f"{name}.{member}", table[member], words, name)
    for rule in spec.get("dispatch", []):
        _check_dispatch(rule)


def _check_dispatch(rule: Mapping[str, Any]) -> None:
    if "when" not in rule:
        raise ConfigError("a [[dispatch]] has no `when`", place="dispatch")
    if "category" in rule and rule["category"] not in get_args(Category):
        raise ConfigError(
            f"there is no category {rule['category']!r}", place="dispatch", hint="There are " + ", ".join(get_args(Category))
        )
    if "severity" in rule and rule["severity"] not in _SEVERITIES:
        raise ConfigError(f"there is no severity {rule['severity']!r}", place="dispatch", hint="It is a number from 0 to 6")


def _check_words(what: str, spec: Any, words: Collection[str], place: str) -> None:
    for text in _texts(spec):
        if text is None:
            hint = f'Say what each text means: {{ path = "…", lookup = {{ … }} }} with {", ".join(words)}'
            raise ConfigError(f"{what} would be whatever a record says", place=place, hint=hint)
        if text not in words:
            raise ConfigError(f"{what} cannot be {text!r}", place=place, hint="It can be " + ", ".join(words))


def _texts(spec: Any) -> Iterator[Any]:
    """Every text that an expression may give; None for those that a record says."""
    if isinstance(spec, list):
        for one in spec:
            yield from _texts(one)
    elif not isinstance(spec, Mapping) or "template" in spec or "var" in spec:
        yield None
    elif "const" in spec:
        yield spec["const"]
    elif "lookup" in spec:
        yield from spec["lookup"].values()
        yield from [spec["default"]] if "default" in spec else []
    elif "use" in spec:
        yield from _texts(spec["use"])
    else:
        yield None
