"""Expressions of mapping files, compiled once to closures.

An expression gives a text or nothing. Empty text, null and anything that is neither text, number nor boolean count as
nothing, so that the next candidate gets its turn. In TOML:

    "userIdentity.arn"                                   a member, by path; `name[]` takes the first element that gives something
    'annotations."a.b/c"'                                a name with dots in it
    "Parameters[Name=User].Value"                        in the first element of a list whose member `Name` has the text `User`
    ["repo", "repository"]                               the first of these that gives something
    { const = "success" }                                this text
    { var = "peer" }                                     what the caller knows: `peer`, `source_record` (`<source type>.record`)
    { path = "type", lookup = { Root = "user" }, default = "service" }
    { path = "sourceIPAddress", as = "ip" }              only when it is an IP address
    { path = "ClientIP", as = "endpoint" }               the address of `192.0.2.1:443`, `[2001:db8::1]:443` or an address alone
    { path = "user", as = "said" }                       unless it is a word for nothing: `-`, `?`, `null`, `N/A` and the like
    { path = "activity", as = "slug" }                   as an action: what an action cannot have becomes `_`, the rest stays as sent
    { template = "{eventSource|head}.{eventName}" }      all parts must be there; `head` cuts at the first dot, `tail` after the last slash
    { use = <expression>, when = <condition> }           only when the condition holds

A condition is `{ path = …, equals | in | prefix | suffix | contains = … }` or `{ path = …, present = true }`; a list of
conditions must hold together. Comparison is on the text of the value, case-sensitive.

A path taken over as it is counts as *used*: the member moves to the envelope and is left out of `metadata`. What is
looked up, cut (`endpoint` of an address with a port too), or put into a template stays there too, since its own text would be lost.

Most records of a product have the same few members, and a mapping asks for many. So expressions may be compiled for records
with certain members only, on top and one level down (`Roots`): what asks for others is settled then, as `NOTHING`, `NEVER` or `ALWAYS`,
and costs no call for each record.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from tallystick.errors import ConfigError
from tallystick.event.fields import ACTION
from tallystick.transforms.record_paths import Path, Pick, Roots, as_text, reader, split_path

Expression = Callable[["Scope"], str | None]
Condition = Callable[["Scope"], bool]

ACTION_MAX = 128
_IP_MAX = 64
"""An address with a zone can be longer than 45 characters, but not by much; kept texts must be short."""
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::\d{1,5})?", re.ASCII)
_NOTHING_SAID = frozenset({"-", "--", "?", "n/a", "null", "(null)", "none", "(none)", "nil", "undefined", "not available"})
_NO_ACTION = re.compile(r"[^A-Za-z0-9_./:-]+")
_PART = re.compile(r"\{([^{}|]+)(?:\|(head|tail))?\}")
_CUTS: Mapping[str, Callable[[str], str]] = {
    "head": lambda text: text.partition(".")[0],
    "tail": lambda text: text.rpartition("/")[2],
}
TESTS: Mapping[str, Callable[[str, Any], bool]] = {
    "equals": lambda text, wanted: text == wanted,
    "in": lambda text, wanted: text in wanted,
    "prefix": lambda text, wanted: text.startswith(tuple(wanted) if isinstance(wanted, list) else wanted),
    "suffix": lambda text, wanted: text.endswith(tuple(wanted) if isinstance(wanted, list) else wanted),
    "contains": lambda text, wanted: any(part in text for part in (wanted if isinstance(wanted, list) else [wanted])),
}
_FORMS = ({"const"}, {"var"}, {"path"}, {"path", "lookup"}, {"path", "lookup", "default"}, {"path", "as"}, {"template"}, {"template", "as"},
          {"use", "when"})  # fmt: skip


class Scope:
    """One record while it is mapped: its decoded value, what the caller knows, and what was used so far.

    ``taken`` are names of top-level members, ``used`` paths to deeper ones.
    """

    __slots__ = ("record", "taken", "used", "variables")

    def __init__(self, record: Any, variables: Mapping[str, str]) -> None:
        self.record = record
        self.variables = variables
        self.taken: list[str] = []
        self.used: list[Path] = []

    def use(self, path: Path) -> None:
        """Note that what lies at ``path`` has moved."""
        if len(path) == 1:
            self.taken.append(path[0])
        else:
            self.used.append(path)


def NOTHING(scope: Scope) -> str | None:  # noqa: N802
    """The expression that never gives anything."""
    return None


class Constant:
    """The expression that gives the same text for every record."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, scope: Scope) -> str | None:
        """The text."""
        return self.text


def ALWAYS(scope: Scope) -> bool:  # noqa: N802
    """The condition that always holds."""
    return True


def NEVER(scope: Scope) -> bool:  # noqa: N802
    """The condition that never holds."""
    return False


def compile_expression(spec: Any, roots: Roots) -> Expression:
    """The closure for one expression. Raises ConfigError for a form that does not exist."""
    if isinstance(spec, str):
        return _path(spec, roots)
    if isinstance(spec, list):
        return _first_of([compile_expression(one, roots) for one in spec])
    if not isinstance(spec, dict) or set(spec) not in _FORMS:
        raise ConfigError(f"{spec!r} is no expression")
    if "const" in spec:
        return Constant(spec["const"])
    if "var" in spec:
        return lambda scope, name=spec["var"]: scope.variables.get(name) or None  # type: ignore[misc]
    if "template" in spec:
        return _template(spec["template"], form_of(spec["as"]) if "as" in spec else None, roots)
    if "use" in spec:
        return _conditional(compile_expression(spec["use"], roots), compile_condition(spec["when"], roots))
    if "lookup" in spec:
        return _lookup(spec["path"], spec["lookup"], spec.get("default"), roots)
    return _path(spec["path"], roots, form_of(spec["as"]) if "as" in spec else None)


def compile_condition(spec: Any, roots: Roots) -> Condition:
    """The closure for one condition, or for a list of them that must hold together."""
    if isinstance(spec, list):
        return _all_of([compile_condition(one, roots) for one in spec])
    names = set(spec) - {"path"}
    if "path" not in spec or len(names) != 1 or not names <= {*TESTS, "present"}:
        raise ConfigError(f"{spec!r} is no condition")
    path, name = split_path(spec["path"]), names.pop()
    wanted = spec[name]
    if not roots.may_have(path):
        return ALWAYS if name == "present" and not wanted else NEVER
    read = reader(path, roots)
    if name == "present":
        return lambda scope: (read(scope.record) is not None) is wanted
    test = TESTS[name]

    def holds(scope: Scope) -> bool:
        text = read(scope.record)
        return text is not None and test(text, wanted)

    return holds


def _all_of(parts: list[Condition]) -> Condition:
    if NEVER in parts:
        return NEVER
    parts = [part for part in parts if part is not ALWAYS]
    if not parts:
        return ALWAYS
    return parts[0] if len(parts) == 1 else lambda scope: all(part(scope) for part in parts)


def asked_paths(spec: Any) -> set[Path] | None:
    """The paths on whose texts alone an expression depends, or a condition; None when it moves members or asks for more.

    What it gives is the same for the same texts, so it need not be asked again.
    """
    if isinstance(spec, str):
        return None
    if isinstance(spec, list):
        found = [asked_paths(one) for one in spec]
        return None if None in found else set().union(*(one for one in found if one is not None))
    if "const" in spec:
        return set()
    if "template" in spec:
        return {split_path(match[1]) for match in _PART.finditer(spec["template"])}
    if "use" in spec:
        return asked_paths([spec["use"], spec["when"]])
    if "path" in spec and (set(spec) - {"path", "as"}):
        return {split_path(spec["path"])}
    return None


@lru_cache(maxsize=4096)
def as_ip(text: str) -> str | None:
    """``text`` when it is an IPv4 or IPv6 address, as sent."""
    if len(text) > _IP_MAX:
        return None
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return None
    return text


def as_action(text: str) -> str | None:
    """``text`` when an event may have it as its action."""
    return _as_action(text) if len(text) <= ACTION_MAX else None


@lru_cache(maxsize=4096)
def _as_action(text: str) -> str | None:
    return text if ACTION.fullmatch(text) else None


@lru_cache(maxsize=4096)
def as_endpoint(text: str) -> str | None:
    """The address in ``text``: an IP address, alone or with a port behind a colon (IPv6 then in brackets)."""
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed is not None:
        return as_ip(bracketed[1])
    host, colon, port = text.partition(":")
    return as_ip(host) if colon and port.isdecimal() and "." in host else as_ip(text)


def as_said(text: str) -> str | None:
    """``text`` unless it is what products write where there is nothing to say."""
    return None if text.lower() in _NOTHING_SAID else text


@lru_cache(maxsize=4096)
def as_slug(text: str) -> str | None:
    """``text`` as an action, with `_` for each run of what an action cannot have; None when nothing is left."""
    return as_action(_NO_ACTION.sub("_", text).strip("_").lstrip("_./:-")[:ACTION_MAX])


_AS: Mapping[str, Callable[[str], str | None]] = {
    "ip": as_ip, "endpoint": as_endpoint, "action": as_action, "slug": as_slug, "said": as_said,
}  # fmt: skip


def form_of(name: str) -> Callable[[str], str | None]:
    """The function behind ``as``. Raises ConfigError."""
    try:
        return _AS[name]
    except KeyError:
        raise ConfigError(f"{name!r} is no form of text; there are {', '.join(_AS)}") from None


def _path(spec: str, roots: Roots, form: Callable[[str], str | None] | None = None) -> Expression:
    path = split_path(spec)
    if not roots.may_have(path):
        return NOTHING
    if len(path) == 1 and roots.is_known:
        return _member(path[0], form)
    is_plain = not any(name == "[]" or type(name) is Pick for name in path)
    if form is None and len(path) == 2 and roots.has_inner(path):
        return _inner_member(path)
    read = reader(path, roots)

    def take(scope: Scope) -> str | None:
        text = own = read(scope.record)
        if text is not None and form is not None:
            text = form(text)
        if text is not None and is_plain and text == own:
            scope.use(path)
        return text

    return take


def _member(name: str, form: Callable[[str], str | None] | None) -> Expression:
    """The same for a top-level member of an object: where most of the time goes."""

    def take(scope: Scope) -> str | None:
        value = scope.record.get(name)
        text: str | None = value if type(value) is str else as_text(value)
        if text and form is not None:
            own, text = text, form(text)
            if text != own:
                return text
        if not text:
            return None
        scope.taken.append(name)
        return text

    return take


def _inner_member(path: Path) -> Expression:
    """The same for a member of a top-level object that is there for sure."""
    outer, inner = path

    def take(scope: Scope) -> str | None:
        value = scope.record[outer][inner]
        text: str | None = value if type(value) is str else as_text(value)
        if not text:
            return None
        scope.used.append(path)
        return text

    return take


def _first_of(candidates: list[Expression]) -> Expression:
    candidates = [candidate for candidate in candidates if candidate is not NOTHING]
    constant = next((place for place, candidate in enumerate(candidates) if type(candidate) is Constant), len(candidates))
    candidates = candidates[: constant + 1]
    if len(candidates) < 2:
        return candidates[0] if candidates else NOTHING

    def first(scope: Scope) -> str | None:
        for candidate in candidates:
            text = candidate(scope)
            if text is not None:
                return text
        return None

    return first


def _lookup(spec: str, table: Mapping[str, str], default: str | None, roots: Roots) -> Expression:
    path = split_path(spec)
    if not roots.may_have(path):
        return NOTHING if default is None else lambda scope: default

    read = reader(path, roots)

    def look(scope: Scope) -> str | None:
        text = read(scope.record)
        return default if text is None else table.get(text, default)

    return look


def _conditional(use: Expression, when: Condition) -> Expression:
    if use is NOTHING or when is NEVER:
        return NOTHING
    return use if when is ALWAYS else lambda scope: use(scope) if when(scope) else None


def _template(template: str, form: Callable[[str], str | None] | None, roots: Roots) -> Expression:
    """Literal text and ``{path}`` or ``{path|cut}`` parts."""
    parts: list[tuple[str, Path, Callable[[str], str] | None]] = []
    end = 0
    for match in _PART.finditer(template):
        parts.append((template[end : match.start()], split_path(match[1]), _CUTS.get(match[2] or "")))
        end = match.end()
    rest = template[end:]
    known = [roots.may_have(path) for _, path, _ in parts]  # every one, so that all are noted
    if not all(known):
        return NOTHING
    readers = [(literal, reader(path, roots), cut) for literal, path, cut in parts]
    if len(readers) == 1 and not (readers[0][0] or rest or form):
        ((_, read, only_cut),) = readers
        return lambda scope: text if (text := read(scope.record)) is None or only_cut is None else only_cut(text)

    def fill(scope: Scope) -> str | None:
        filled: list[str] = []
        for literal, read, cut in readers:
            text = read(scope.record)
            if text is None:
                return None
            filled += (literal, text if cut is None else cut(text))
        filled.append(rest)
        whole = "".join(filled)
        return whole if form is None else form(whole)

    return fill
