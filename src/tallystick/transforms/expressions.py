"""Expressions of mapping files, compiled once to closures.

An expression gives a text or nothing. Empty text, null and anything that is neither text, number nor boolean count as
nothing, so that the next candidate gets its turn. In TOML:

    "userIdentity.arn"                                   a member, by path; `name[]` takes the first element that gives something
    ["repo", "repository"]                               the first of these that gives something
    { const = "success" }                                this text
    { var = "peer" }                                     what the caller knows: `peer`, `source_record` (`<source type>.record`)
    { path = "type", lookup = { Root = "user" }, default = "service" }
    { path = "sourceIPAddress", as = "ip" }              only when it is an IP address
    { template = "{eventSource|head}.{eventName}" }      all parts must be there; `head` cuts at the first dot, `tail` after the last slash
    { use = <expression>, when = <condition> }           only when the condition holds

A condition is `{ path = …, equals | in | prefix | suffix | contains = … }` or `{ path = …, present = true }`; a list of
conditions must hold together. Comparison is on the text of the value, case-sensitive.

A path taken over as it is counts as *used*: the member moves to the envelope and is left out of `metadata`. What is
looked up, cut, or put into a template stays there too, since its own text would be lost.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from tallystick.errors import ConfigError
from tallystick.event.fields import ACTION

Path = tuple[str, ...]
Expression = Callable[["Scope"], str | None]
Condition = Callable[["Scope"], bool]

_PART = re.compile(r"\{([^{}|]+)(?:\|(head|tail))?\}")
_CUTS: Mapping[str, Callable[[str], str]] = {
    "head": lambda text: text.partition(".")[0],
    "tail": lambda text: text.rpartition("/")[2],
}
_TESTS: Mapping[str, Callable[[str, Any], bool]] = {
    "equals": lambda text, wanted: text == wanted,
    "in": lambda text, wanted: text in wanted,
    "prefix": lambda text, wanted: text.startswith(tuple(wanted) if isinstance(wanted, list) else wanted),
    "suffix": lambda text, wanted: text.endswith(tuple(wanted) if isinstance(wanted, list) else wanted),
    "contains": lambda text, wanted: any(part in text for part in (wanted if isinstance(wanted, list) else [wanted])),
}
_FORMS = ({"const"}, {"var"}, {"path"}, {"path", "lookup"}, {"path", "lookup", "default"}, {"path", "as"}, {"template"}, {"template", "as"},
          {"use", "when"})  # fmt: skip


class Scope:
    """One record while it is mapped: its decoded value, what the caller knows, and the paths used so far."""

    __slots__ = ("record", "used", "variables")

    def __init__(self, record: Any, variables: Mapping[str, str]) -> None:
        self.record = record
        self.variables = variables
        self.used: list[Path] = []


def compile_expression(spec: Any) -> Expression:
    """The closure for one expression. Raises ConfigError for a form that does not exist."""
    if isinstance(spec, str):
        return _path(spec)
    if isinstance(spec, list):
        return _first_of([compile_expression(one) for one in spec])
    if not isinstance(spec, dict) or set(spec) not in _FORMS:
        raise ConfigError(f"{spec!r} is no expression")
    if "const" in spec:
        return lambda scope, text=spec["const"]: text  # type: ignore[misc]
    if "var" in spec:
        return lambda scope, name=spec["var"]: scope.variables.get(name) or None  # type: ignore[misc]
    if "template" in spec:
        return _template(spec["template"], _as(spec["as"]) if "as" in spec else None)
    if "use" in spec:
        return _conditional(compile_expression(spec["use"]), compile_condition(spec["when"]))
    if "lookup" in spec:
        return _lookup(spec["path"], spec["lookup"], spec.get("default"))
    return _path(spec["path"], _as(spec["as"]) if "as" in spec else None)


def compile_condition(spec: Any) -> Condition:
    """The closure for one condition, or for a list of them that must hold together."""
    if isinstance(spec, list):
        parts = [compile_condition(one) for one in spec]
        return lambda scope: all(part(scope) for part in parts)
    names = set(spec) - {"path"}
    if "path" not in spec or len(names) != 1 or not names <= {*_TESTS, "present"}:
        raise ConfigError(f"{spec!r} is no condition")
    path, name = split_path(spec["path"]), names.pop()
    wanted = spec[name]
    if name == "present":
        return lambda scope: (text_at(scope.record, path) is not None) is wanted
    test = _TESTS[name]

    def holds(scope: Scope) -> bool:
        text = text_at(scope.record, path)
        return text is not None and test(text, wanted)

    return holds


def split_path(path: str) -> Path:
    """``a.b[].c`` as ``("a", "b", "[]", "c")``."""
    return tuple(part for name in path.split(".") for part in ((name[:-2], "[]") if name.endswith("[]") else (name,)))


def value_at(value: Any, path: Path) -> Any:
    """What lies at ``path``, or None. ``[]`` takes the first element in which the rest of the path gives something."""
    for place, name in enumerate(path):
        if type(value) is dict:
            value = value.get(name)
        elif name == "[]" and type(value) is list:
            found = (value_at(element, path[place + 1 :]) for element in value)
            return next((one for one in found if one not in (None, "")), None)
        else:
            return None
    return value


def as_text(value: Any) -> str | None:
    """Text, or the JSON text of a number or boolean; None for everything else and for empty text."""
    kind = type(value)
    if kind is str:
        return value or None
    if kind is bool:
        return "true" if value else "false"
    return str(value) if kind is int or kind is float else None


def text_at(record: Any, path: Path) -> str | None:
    """The text at ``path``, or None."""
    if len(path) == 1 and type(record) is dict:
        return as_text(record.get(path[0]))
    return as_text(value_at(record, path))


def as_ip(text: str) -> str | None:
    """``text`` when it is an IPv4 or IPv6 address, as sent."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return None
    return text


def as_action(text: str) -> str | None:
    """``text`` when an event may have it as its action."""
    return text if ACTION.fullmatch(text) else None


def _as(name: str) -> Callable[[str], str | None]:
    try:
        return {"ip": as_ip, "action": as_action}[name]
    except KeyError:
        raise ConfigError(f"{name!r} is no form of text; there are `ip` and `action`") from None


def _path(spec: str, form: Callable[[str], str | None] | None = None) -> Expression:
    path = split_path(spec)
    is_plain = "[]" not in path

    def take(scope: Scope) -> str | None:
        text = text_at(scope.record, path)
        if text is not None and form is not None:
            text = form(text)
        if text is not None and is_plain:
            scope.used.append(path)
        return text

    return take


def _first_of(candidates: list[Expression]) -> Expression:
    def first(scope: Scope) -> str | None:
        for candidate in candidates:
            text = candidate(scope)
            if text is not None:
                return text
        return None

    return first


def _lookup(spec: str, table: Mapping[str, str], default: str | None) -> Expression:
    path = split_path(spec)

    def look(scope: Scope) -> str | None:
        text = text_at(scope.record, path)
        return default if text is None else table.get(text, default)

    return look


def _conditional(use: Expression, when: Condition) -> Expression:
    return lambda scope: use(scope) if when(scope) else None


def _template(template: str, form: Callable[[str], str | None] | None) -> Expression:
    """Literal text and ``{path}`` or ``{path|cut}`` parts."""
    parts: list[tuple[str, Path, Callable[[str], str]]] = []
    end = 0
    for match in _PART.finditer(template):
        parts.append((template[end : match.start()], split_path(match[1]), _CUTS.get(match[2] or "", str)))
        end = match.end()
    rest = template[end:]

    def fill(scope: Scope) -> str | None:
        filled = []
        for literal, path, cut in parts:
            text = text_at(scope.record, path)
            if text is None:
                return None
            filled += [literal, cut(text)]
        whole = "".join([*filled, rest])
        return whole if form is None else form(whole)

    return fill
