"""Rules by path: what stands at a place of the event goes, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tallystick.errors import ConfigError
from tallystick.event import Event, Redaction
from tallystick.event.strict import escape
from tallystick.privacy.detectors.checks import is_marked
from tallystick.transforms.redact.actions import Replacer
from tallystick.transforms.redact.settings import Action, PathRule
from tallystick.transforms.redact.walk import encode

RULE = "path"
_ANY = "*"
_ACTOR = ("id", "name", "email", "credential")
_PLACES = {
    "actor": _ACTOR,
    "on_behalf_of": _ACTOR,
    "targets": ("id", "name", "owner"),
    "context": ("ip", "user_agent", "session_id", "request_id", "trace_id", "span_id", "location"),
}
_LISTS = ("on_behalf_of", "targets")

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


class PathRules:
    """The rules of one transform, compiled. Raises ConfigError for a path that leads nowhere, or to what an event cannot be without."""

    def __init__(self, rules: Sequence[PathRule]) -> None:
        self._rules = [(_segments(rule), rule.action) for rule in rules]

    def names(self) -> set[str]:
        """For each path a member name without which it cannot be in an event."""
        return {next(name for name in reversed(segments) if name != _ANY) for segments, _ in self._rules}

    def apply(self, event: Event, replacer: Replacer) -> list[Redaction]:
        """What was done. An event's ``raw`` goes when something went outside it and no path says what goes inside."""
        done: list[Redaction] = []
        for segments, action in self._rules:
            _Path(segments, action, replacer, done).apply(event)
        if done and event.raw is not UNSET and not any(one.path.startswith("/raw") for one in done):
            event.raw = UNSET
            done.append(Redaction(path="/raw", rule=RULE, action="drop"))
        return done


class _Path:
    def __init__(self, segments: tuple[str, ...], action: Action, replacer: Replacer, done: list[Redaction]) -> None:
        self._segments = segments
        self._action = action
        self._replacer = replacer
        self._done = done

    def apply(self, event: Event) -> None:
        root, *inner = self._segments
        value = getattr(event, root)
        if value is UNSET:
            return
        if root == "metadata":
            made = self._json(bytes(value), inner, "/metadata")
            event.metadata = UNSET if made is None else Raw(made)
        elif root == "raw":
            self._raw(event, value, inner)
        elif root == "reason":
            self._member(event, "reason", "/reason")
        elif root in _LISTS:
            number, name = inner
            for place, one in enumerate(value):
                if number in (_ANY, str(place)):
                    self._member(one, name, f"/{root}/{place}/{name}")
        else:
            self._member(value, inner[0], f"/{root}/{inner[0]}")

    def _member(self, owner: Any, name: str, path: str) -> None:
        text = getattr(owner, name)
        if text is not UNSET and not is_marked(text):
            setattr(owner, name, self._put(text, path) or UNSET)

    def _raw(self, event: Event, raw: str, inner: list[str]) -> None:
        if not inner:
            self._member(event, "raw", "/raw")
        elif raw.lstrip().startswith(("{", "[")):
            try:
                made = self._json(raw.encode(), inner, "/raw")
            except (msgspec.MsgspecError, RecursionError):
                return
            event.raw = UNSET if made is None else made.decode()

    def _json(self, value: bytes, segments: Sequence[str], path: str) -> bytes | None:
        """JSON ``value`` without what is at ``segments`` in it; None when that is all of it and goes."""
        first = value.lstrip()[:1]
        if not segments:
            text = msgspec.json.decode(value) if first == b'"' else value.decode()
            if text == "null" or is_marked(text):
                return value
            made = self._put(text, path)
            return None if made is None else encode(made)
        if first == b"{":
            members = {key: bytes(member) for key, member in _decode_members(value).items()}
            kept = dict(self._inside(members.items(), segments, path))
            return value if kept == members else encode({key: Raw(member) for key, member in kept.items()})
        if first == b"[":
            elements = [(str(place), bytes(element)) for place, element in enumerate(_decode_list(value))]
            inside = list(self._inside(elements, segments, path))
            return value if inside == elements else b"[" + b",".join(element for _, element in inside) + b"]"
        return value

    def _inside(self, members: Any, segments: Sequence[str], path: str) -> Iterator[tuple[str, bytes]]:
        for key, member in members:
            made = self._json(member, segments[1:], f"{path}/{escape(key)}") if segments[0] in (_ANY, key) else member
            if made is not None:
                yield key, made

    def _put(self, text: str, path: str) -> str | None:
        self._done.append(Redaction(path=path, rule=RULE, action=self._action))
        return None if self._action == "drop" else self._replacer.text(text, RULE, self._action)


def _segments(rule: PathRule) -> tuple[str, ...]:
    root, *inner = (part.replace("~1", "/").replace("~0", "~") for part in rule.path.removeprefix("/").split("/"))
    known = _PLACES.get(root)
    is_right = rule.path.startswith("/") and (
        (root in ("metadata", "raw") and (bool(inner) or root == "raw"))
        or (root == "reason" and not inner)
        or (known is not None and len(inner) == 1 + (root in _LISTS) and inner[-1] in known)
    )
    if not is_right:
        raise ConfigError(
            f"there is nothing to redact at the path `{rule.path}`",
            hint="Paths lead into /metadata and /raw, to /reason, or to a text of /actor, /on_behalf_of/*, /targets/* or /context",
        )
    if rule.action == "drop" and inner[-1:] == ["id"] and root in ("actor", *_LISTS):
        raise ConfigError(f"an event cannot be without `{rule.path}`", hint='Choose action = "mask" or "hash"')
    return (root, *inner)
