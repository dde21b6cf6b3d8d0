"""One plain sentence per event: "Ana (support) granted role admin to Bob in Acme".

Built from actor, action, primary target and outcome alone, so it never claims more than the event says. An action whose last
word is no verb that we know is quoted as it is ("Ana: okta.weird_thing on Bob"). Parts carry the query they stand for, so that
the page can make them links. Pure; gives text, never markup.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tallystick.console.text import shorten

_NAME_MAX = 80
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_@.-]*")
_OPERATORS = frozenset({"AND", "OR", "NOT", "TO"})
_COUNT_KEYS = ("rows", "count", "records", "row_count")

# base form: (past, preposition before the target when the action names something else than the target's type)
_VERBS: dict[str, tuple[str, str]] = {
    "accept": ("accepted", "of"), "access": ("accessed", "of"), "add": ("added", "to"), "apply": ("applied", "to"),
    "approve": ("approved", "for"), "archive": ("archived", "of"), "assign": ("assigned", "to"), "assume": ("assumed", "of"),
    "attach": ("attached", "to"), "block": ("blocked", "for"), "cancel": ("cancelled", "of"), "change": ("changed", "of"),
    "clone": ("cloned", "of"), "close": ("closed", "of"), "complete": ("completed", "of"), "create": ("created", "on"),
    "delete": ("deleted", "of"), "deploy": ("deployed", "to"), "describe": ("described", "of"), "destroy": ("destroyed", "of"),
    "detach": ("detached", "from"), "disable": ("disabled", "for"), "discard": ("discarded", "of"), "download": ("downloaded", "of"),
    "edit": ("edited", "of"), "enable": ("enabled", "for"), "end": ("ended", "of"), "execute": ("executed", "on"),
    "export": ("exported", "from"), "fail": ("failed", "on"), "get": ("read", "of"), "grant": ("granted", "to"),
    "import": ("imported", "into"), "invite": ("invited", "to"), "issue": ("issued", "to"), "list": ("listed", "of"),
    "lock": ("locked", "of"), "login": ("logged in", "to"), "logout": ("logged out", "of"), "merge": ("merged", "into"),
    "modify": ("modified", "of"), "move": ("moved", "of"), "open": ("opened", "of"), "pause": ("paused", "of"),
    "probe": ("probed", "of"), "publish": ("published", "to"), "push": ("pushed", "to"), "put": ("stored", "in"),
    "read": ("read", "of"), "register": ("registered", "for"), "reject": ("rejected", "of"), "remove": ("removed", "from"),
    "rename": ("renamed", "of"), "replay": ("replayed", "of"), "request": ("requested", "for"), "reset": ("reset", "of"),
    "restore": ("restored", "of"), "resume": ("resumed", "of"), "retrieve": ("retrieved", "of"), "revoke": ("revoked", "from"),
    "rotate": ("rotated", "of"), "run": ("ran", "on"), "search": ("searched", "in"), "send": ("sent", "to"),
    "set": ("set", "on"), "share": ("shared", "with"), "start": ("started", "of"), "stop": ("stopped", "of"),
    "suspend": ("suspended", "of"), "tail": ("watched", "in"), "transfer": ("transferred", "to"), "unlock": ("unlocked", "of"),
    "update": ("updated", "of"), "upload": ("uploaded", "to"), "verify": ("verified", "of"), "view": ("viewed", "of"),
    "write": ("wrote", "to"),
}  # fmt: skip
_PAST = {past: base for base, (past, _) in _VERBS.items() if " " not in past} | {"failure": "fail", "success": "complete"}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the sentence. ``query`` finds the events of the thing it names; empty for plain words."""

    text: str
    query: str = ""
    kind: str = ""


def quote_value(value: str) -> str:
    """A value as it stands in the query grammar after ``field:``."""
    if _PLAIN_VALUE.fullmatch(value) and value not in _OPERATORS:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def build_sentence(event: dict[str, Any]) -> list[Part]:
    """The event as text parts with blanks included; joined they are the sentence."""
    parts = _actor_parts(event)
    targets = [target for target in event.get("targets") or [] if isinstance(target, dict)]
    parts += _action_parts(event, targets)
    return [part for part in parts if part.text]


def _actor_parts(event: dict[str, Any]) -> list[Part]:
    actor = event.get("actor") or {}
    label = _short(actor.get("name") or actor.get("email") or actor.get("id") or "someone")
    parts = [Part(label, f"actor.id:{quote_value(str(actor.get('id', '')))}", "actor")]
    roles = actor.get("roles")
    if isinstance(roles, list) and roles:
        parts.append(Part(f" ({_short(roles[0], 32)})", kind="aside"))
    for delegate in (event.get("on_behalf_of") or [])[:1]:
        word = " as " if delegate.get("mode") == "impersonation" else " for "
        name = _short(delegate.get("name") or delegate.get("email") or delegate.get("id") or "")
        parts += [Part(word), Part(name, f"on_behalf_of.id:{quote_value(str(delegate.get('id', '')))}", "actor")]
    return parts


def _action_parts(event: dict[str, Any], targets: list[dict[str, Any]]) -> list[Part]:
    action = str(event.get("action", ""))
    verb, noun = split_action(action)
    outcome = event.get("outcome", "unknown")
    primary = targets[0] if targets else None
    if not verb or outcome == "denied":
        lead = {"denied": " was denied ", "failure": " failed at "}.get(outcome, ": ")
        quoted = [Part(lead), Part(_short(action), f"action:{quote_value(action)}", "verb")]
        return quoted + ([Part(" on "), *_target(primary)] if primary else []) + _where(targets)
    past, preposition = _VERBS[verb]
    phrase = f" failed to {_base(verb)}" if outcome == "failure" else f" {past}"
    parts = [Part(phrase, f"action:{quote_value(action)}", "verb")]
    count = _count(event)
    detail = _detail(event, noun)
    same = primary is not None and _same_word(noun, str(primary.get("type", "")))
    if count:
        parts.append(Part(f" {count}"))
        noun = noun if noun.endswith("s") or not noun else f"{noun}s"
    if noun and not (same and primary):
        parts.append(Part(f" {noun}"))
    if detail:
        parts.append(Part(f" {detail}", kind="detail"))
    if primary:
        lead = f" {noun} " if same and not detail else (f" {preposition} " if noun or detail or count else _lead(verb, primary))
        parts += [Part(lead), *_target(primary)]
    return parts + _where(targets)


def split_action(action: str) -> tuple[str, str]:
    """Verb (base form, or empty) and noun of an action: ``role.grant``, ``CreateUser``, ``user_added`` and their like."""
    segments = [segment for segment in re.split(r"[.:/]", action) if segment]
    if not segments:
        return "", ""
    words = [word.lower() for word in _WORDS.findall(segments[-1])]
    if not words:
        return "", ""
    last = "".join(words[-2:])
    if last.endswith(("login", "logout", "signin", "signout")):
        return ("logout" if last.endswith("out") else "login"), ""
    for place in (0, -1):
        verb = words[place] if words[place] in _VERBS else _PAST.get(words[place], "")
        if verb:
            rest = words[1:] if place == 0 else words[:-1]
            noun = " ".join(rest) or (_words(segments[-2]) if len(segments) > 1 else "")
            return verb, "" if verb in ("login", "logout") or noun == "tallystick" else noun
    return "", ""


def _words(segment: str) -> str:
    return " ".join(word.lower() for word in _WORDS.findall(segment))


def _base(verb: str) -> str:
    return {"login": "log in", "logout": "log out", "get": "read", "put": "store"}.get(verb, verb)


def _lead(verb: str, primary: dict[str, Any]) -> str:
    kind = _short(primary.get("type", ""), 32)
    if verb in ("login", "logout"):
        return f" {_VERBS[verb][1]} "
    return f" {kind.replace('_', ' ')} " if kind else " "


def _target(target: dict[str, Any] | None) -> list[Part]:
    if target is None:
        return []
    name = _short(target.get("name") or target.get("id") or "")
    return [Part(name, f"target.id:{quote_value(str(target.get('id', '')))}", "target")]


def _where(targets: list[dict[str, Any]]) -> list[Part]:
    if len(targets) < 2:
        return []
    more = f" and {len(targets) - 2} more" if len(targets) > 2 else ""
    return [Part(" in "), *_target(targets[1]), Part(more, kind="aside")]


def _same_word(noun: str, kind: str) -> bool:
    a, b = noun.lower().rstrip("s"), _words(kind).rstrip("s")
    return bool(a) and (a == b or b.endswith(f" {a}"))


def _count(event: dict[str, Any]) -> str:
    metadata = event.get("metadata")
    for key in _COUNT_KEYS if isinstance(metadata, dict) else ():
        value = metadata.get(key)  # type: ignore[union-attr]
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            return f"{value:,}"
    return ""


def _detail(event: dict[str, Any], noun: str) -> str:
    """The value that the action is about: from the one change of that name, or from metadata of that name."""
    word = noun.replace(" ", "_")
    if not word:
        return ""
    for change in event.get("changes") or []:
        tail = str(change.get("path", "")).rsplit("/", 1)[-1]
        if tail.rstrip("s") == word.rstrip("s") and isinstance(change.get("after"), str) and not change.get("masked"):
            return _short(change["after"], 48)
    metadata = event.get("metadata")
    value = metadata.get(word) if isinstance(metadata, dict) else None
    return _short(value, 48) if isinstance(value, str) else ""


def _short(value: Any, limit: int = _NAME_MAX) -> str:
    return shorten(value, limit)
