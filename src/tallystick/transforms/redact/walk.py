"""Through the JSON values of one event, to what was found in it and nowhere else.

The search told *needles*: a few bytes of each finding, or the name of a member that holds a secret. A value that has none of them is left
alone without being opened, so an event with one secret costs the way to it. Values are opened level by level with `msgspec.Raw`:
all that is beside the way keeps its own bytes, number texts and escapes included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import msgspec
from msgspec import Raw

from tallystick.event import Redaction
from tallystick.event.strict import escape
from tallystick.privacy.detectors import Rule, without_escapes
from tallystick.privacy.detectors.checks import is_marked, is_shown
from tallystick.transforms.redact.actions import Replacer
from tallystick.transforms.redact.keys import KeyRules, is_id, takes_numbers
from tallystick.transforms.redact.settings import Action

_NEAR = 48
KEY_RULE = "secrets.key"
PERSONAL = "personal"

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Armed:
    """A rule with what is done with its findings; ``group`` is `secrets` or `personal`."""

    group: str
    rule: Rule
    action: Action

    @property
    def name(self) -> str:
        """As in `ingest.redactions`."""
        return f"{self.group}.{self.rule.name}"


class Walk:
    """Redacts the values of one event and keeps the account in ``done``. None in place of a value: it goes with its member.

    ``rules`` are those with a hit in the event, in the order of their tables. ``needles`` None means that everything is opened.
    Without ``has_names`` no member of the event is named for a secret.
    """

    def __init__(
        self,
        keys: KeyRules,
        action: Action,
        rules: Sequence[Armed],
        needles: Sequence[bytes] | None,
        replacer: Replacer,
        *,
        has_names: bool = True,
    ) -> None:
        self.done: list[Redaction] = []
        self.keys = keys
        self._action: Action = action
        self._rules = rules
        self._needles = needles
        self._words = None if needles is None else [needle.decode("utf-8", "ignore") for needle in needles]
        self._replacer = replacer
        self.has_names = needles is None or has_names
        self._known: dict[tuple[str, str], tuple[str | None, list[Armed]]] = {}

    def may_hold(self, value: bytes) -> bool:
        """Whether a finding may be in the JSON ``value``."""
        if self._needles is None:
            return True
        if b"\\" in value:
            value = without_escapes(value)
        for needle in self._needles:  # noqa: SIM110  (a generator costs more than what it does here)
            if needle in value:
                return True
        return False

    def may_be_in(self, text: str) -> bool:
        """The same for a text."""
        if self._words is None:
            return True
        for word in self._words:  # noqa: SIM110
            if word in text:
                return True
        return False

    def value(self, value: bytes, path: str, *, is_secret: bool = False, key: str = "", is_found: bool = False) -> bytes | None:
        """JSON ``value`` with what is found in it replaced; the very same bytes when nothing is. ``is_found``: something is surely in it."""
        if not (is_secret or is_found or self.may_hold(value)):
            return value
        first = value[:1]
        if first == b"{":
            return self._members(value, path, is_secret)
        if first == b"[":
            elements = [bytes(element) for element in _decode_list(value)]
            made = [self.value(element, f"{path}/{n}", is_secret=is_secret, key=key) for n, element in enumerate(elements)]
            kept = [element for element in made if element is not None]
            return value if kept == elements else b"[" + b",".join(kept) + b"]"
        if first == b'"':
            text = _decode_text(value)
            if is_secret:
                return self._secret(text, path) if is_shown(text) else value
            return _encoded(self.text(text, path, key), text, value)
        if first in (b"t", b"f", b"n"):
            return value
        if is_secret:
            return self._secret(value.decode(), path) if takes_numbers(key) else value
        return _encoded(self.text(value.decode(), path, key), value.decode(), value)

    def text(self, text: str, path: str, key: str = "") -> str | None:
        """``text`` without what the rules find in it. ``key``: name of the member that holds it."""
        known = self._known.get((text, key))
        if known is None:
            known = self._known[text, key] = self._find(text, key)
        kept, found = known
        self.done += [Redaction(path=path, rule=one.name, action=one.action) for one in found]
        return kept

    def _find(self, text: str, key: str) -> tuple[str | None, list[Armed]]:
        """What stays of a text, and the rules that found something. The same texts are in ``metadata`` and in ``raw``."""
        is_plain = is_id(key)
        found: list[Armed] = []
        for one in self._rules:
            if one.group == PERSONAL and is_plain:
                continue
            kept = self._apply(one, text, key)
            if kept != text:
                found.append(one)
            if kept is None:
                return None, found
            text = kept
        return text, found

    def searched(self, text: str, path: str, key: str = "") -> str | None:
        """The same for a text of which it is not known that anything is in it."""
        return self.text(text, path, key) if self.may_be_in(text) else text

    def _members(self, value: bytes, path: str, is_secret: bool) -> bytes:
        members = {key: bytes(member) for key, member in _decode_members(value).items()}
        kept: dict[str, bytes] | None = None
        for key, member in members.items():
            below = (self.has_names and self.keys.names_secret(key)) or (is_secret and self.keys.is_secret_below(key))
            name, made = key, cast("bytes | None", member)
            if self.may_be_in(key):
                name = self._name(key, path, members if kept is None else kept)
            if below or self.may_hold(member):
                made = self.value(member, f"{path}/{escape(name)}", is_secret=below, key=key, is_found=True)
            if kept is None and (made is not member or name is not key):
                kept = dict(islice(members.items(), list(members).index(key)))
            if kept is not None and made is not None:
                kept[name] = made
        return value if kept is None or kept == members else encode({key: Raw(member) for key, member in kept.items()})

    def _name(self, key: str, path: str, taken: dict[str, Any]) -> str:
        """The name of a member that may have a finding itself: a token or an address may be what a table is by."""
        made = self.text(key, path) or "[REDACTED]"
        name, number = made, 1
        while made != key and name in taken:
            number += 1
            name = f"{made}#{number}"
        return name

    def _secret(self, text: str, path: str) -> bytes | None:
        self.done.append(Redaction(path=path, rule=KEY_RULE, action=self._action))
        return None if self._action == "drop" else encode(self._replacer.text(text, "secret", self._action))

    def _apply(self, one: Armed, text: str, key: str) -> str | None:
        rule = one.rule
        parts: list[str] = []
        at = 0
        for match in rule.compiled.finditer(text):
            start, end = rule.span(match)
            found = text[start:end]
            if is_marked(found) or (rule.check is not None and not rule.check(found)):
                continue
            if rule.near is not None and not rule.near_compiled.search(f"{key} {text[max(0, start - _NEAR) : start]}"):
                continue
            parts += (text[at:start], self._replacer.finding(found, rule, one.action))
            at = end
        if not parts:
            return text
        return None if one.action == "drop" else "".join((*parts, text[at:]))


def _encoded(kept: str | None, text: str, value: bytes) -> bytes | None:
    """``value`` itself when its text stayed as it was."""
    if kept is None:
        return None
    return value if kept == text else encode(kept)
