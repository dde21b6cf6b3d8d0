"""The transform `redact`: what is secret, and on demand what is about a person, goes before the journal.

Three kinds of rule:

- *Names.* A member whose name ends in a word for a secret (``password``, ``client_secret``, ``apiKey``, ``X-Auth-Token`` …)
  loses its value. Inside an object under such a name every text goes, except what describes the secret (ids, types, names,
  times). Numbers go only under words for a PIN or a password: ``max_tokens`` is a count. True, false and null stay.
- *Forms* (`privacy.detectors`). Tokens of known form, credentials in URLs, headers and options, and where asked for card numbers, addresses
  … are cut out of any text of ``metadata``, ``changes``, ``reason``, ``raw``, and of the texts of actor, targets and context.
- *Paths* (`paths`). What stands at a place goes.

What was done is in ``ingest.redactions``: path, rule, action; no hash and no length of the original. In ``changes`` the last part of the
path counts as the name, and ``masked`` is set. ``raw`` is covered like metadata when it is JSON. Other text has no members: forms are
cut out, and a line that was parsed into members of which one had to go is dropped, since the secret stands in it somewhere.

The cost when there is nothing to redact: one search over the events of a batch as JSON. A hit on a name is judged at once, by that name
alone; events that have others are opened on the way to the finding (`walk`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec import UNSET

from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event, Ingest, Redaction
from tallystick.plugin import NOTHING_KNOWN, BatchFacts
from tallystick.privacy.detectors import ESCAPES, KEY_WORDS, PERSONAL_RULES, SECRET_RULES, Hit, Scanner, without_escapes
from tallystick.privacy.detectors.secrets import WORD_LITERALS
from tallystick.transforms.redact.actions import Derive, Replacer, tenant_key
from tallystick.transforms.redact.hits import is_actors_credential, is_finding, secret_name
from tallystick.transforms.redact.keys import KeyRules
from tallystick.transforms.redact.paths import PathRules
from tallystick.transforms.redact.settings import RedactSettings
from tallystick.transforms.redact.values import redact_event
from tallystick.transforms.redact.walk import KEY_RULE, PERSONAL, Armed, Walk, encode

_SHORT_TEXT = 2_048
_KEY_HINT, _CHANGE_HINT, _ESCAPE_HINT, _PATH_HINT = range(4)
_FIRST_RULE = 4
_NO_NAMES = frozenset[str]()
_NEVER = r"\x00\x00"  # no JSON text has this byte


_Searched = list[tuple[bytes, list[Hit]]]
"""An event as JSON with its hits; once more, with its own hits, when it had to be searched without escapes."""


class _Search(NamedTuple):
    """``literals``: every match of the scanner contains one of these, in lower case; None when that cannot be said."""

    scanner: Scanner
    literals: tuple[bytes, ...] | None


class Redact:
    """The transform. ``mappings``: what each mapping file's `[redact]` says, as (allow, keys); ``derive`` is the key store's."""

    def __init__(
        self,
        name: str,
        settings: RedactSettings,
        mappings: Mapping[str, tuple[Iterable[str], Iterable[str]]],
        derive: Derive,
        *,
        uses_hyperscan: bool | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._derive = derive
        self._paths = PathRules(settings.paths) if settings.paths else None
        self._rules = _armed(settings)
        self._keys = {mapping: self._key_rules(*both) for mapping, both in mappings.items()}
        self._other_keys = self._key_rules((), ())
        self._tenant_keys: dict[str, bytes] = {}
        self._names = {mapping: frozenset(keys) for mapping, (_, keys) in mappings.items() if keys and settings.secrets}
        self._uses_hyperscan = uses_hyperscan
        self._searches: dict[frozenset[str], _Search] = {}

    def apply(self, event: Event) -> list[Event]:
        """The event without what is redacted, for one of no known tenant."""
        self.apply_batch([event])
        return [event]

    def apply_batch(
        self, events: Sequence[Event], contents: Sequence[bytes] = (), about: BatchFacts = NOTHING_KNOWN
    ) -> list[tuple[int, Event | EventInvalidError]] | None:
        """See `plugin.Transform`; the key of the tenant makes the hashes."""
        texts = about.said if len(about.said) == len(events) else [encode(event) for event in events]
        scanner, literals = self._search(self._names_for(events))
        if literals is not None and sum(map(len, texts)) <= _SHORT_TEXT:
            # A search gives up the interpreter lock; getting it back from a busy commit thread costs more than looking for the
            # few literals without which the search cannot succeed.
            lowered = b"\n".join(texts).lower()
            if not any(literal in lowered for literal in literals):
                return None
        found = _find(scanner, texts)
        changed = [
            place
            for place, searched in found.items()
            if not _is_nothing(searched) and self._redact(events[place], searched, about.tenant)
        ]
        return [(place, event) for place, event in enumerate(events)] if changed else None

    def _names_for(self, events: Sequence[Event]) -> frozenset[str]:
        """The names that the mappings of these events call secret."""
        mappings = {event.ingest.mapping for event in events if event.ingest is not UNSET}
        if self._names.keys().isdisjoint(mappings):
            return _NO_NAMES
        return _NO_NAMES.union(*(self._names.get(mapping or "", _NO_NAMES) for mapping in mappings))

    def _search(self, names: frozenset[str]) -> _Search:
        """The search for events whose mappings call these names secret. One for all names of all mappings would find, in the events
        of one product, what is a secret in those of another: a hit for each event, and each is judged in Python."""
        search = self._searches.get(names)
        if search is None:
            asked = sorted(names | {*self._settings.keys})
            paths = self._paths.names() if self._paths is not None else set()
            hints = [*self._name_hints(asked, paths), *(one.rule.hint for one in self._rules)]
            search = _Search(Scanner(hints, uses_hyperscan=self._uses_hyperscan), self._all_literals(asked, paths))
            self._searches[names] = search
        return search

    def _redact(self, event: Event, searched: _Searched, tenant: str) -> bool:
        """Whether anything was redacted."""
        mapping = event.ingest.mapping if event.ingest is not UNSET else UNSET
        keys = self._keys.get(mapping or "", self._other_keys)
        replacer = Replacer(lambda: self._tenant_key(tenant))
        done: list[Redaction] = []
        if self._paths is not None and any(hint == _PATH_HINT for _, hits in searched for hint, _ in hits):
            done += self._paths.apply(event, replacer)
        walk = self._walk(keys, searched, replacer)
        if walk is not None:
            redact_event(event, walk)
            done += walk.done
        if done:
            if event.ingest is UNSET:
                event.ingest = Ingest()
            event.ingest.redactions = [*(event.ingest.redactions or ()), *done]
        return bool(done)

    def _walk(self, keys: KeyRules, searched: _Searched, replacer: Replacer) -> Walk | None:
        """The way to the hits, or None when none is a finding."""
        needles: set[bytes] = set()
        rules: set[int] = set()
        has_names = False
        for text, hits in searched:
            for hint, end in hits:
                if hint >= _FIRST_RULE:
                    one = self._rules[hint - _FIRST_RULE]
                    needle = text[end - one.rule.tail : end]
                    if (
                        (needle in needles and hint - _FIRST_RULE in rules)
                        or one.group != PERSONAL
                        or is_finding(one.rule, text, end)
                    ):
                        rules.add(hint - _FIRST_RULE)
                        needles.add(needle)
                elif hint == _CHANGE_HINT:
                    needles.add(b"\n")  # is in no value: the path of the change alone says what goes
                    has_names = True
                elif hint == _KEY_HINT and (name := secret_name(keys, text, end)):
                    needles.add(name)
                    has_names = True
        if not needles:
            return None
        armed = [self._rules[number] for number in sorted(rules)]
        # In the text of `raw` a backslash is written twice.
        is_open = any(b"\\" in needle for needle in needles)
        return Walk(keys, self._settings.action, armed, None if is_open else sorted(needles), replacer, has_names=has_names)

    def _key_rules(self, allow: Iterable[str], keys: Iterable[str]) -> KeyRules:
        settings = self._settings
        more = keys if settings.secrets else ()
        return KeyRules(
            {*more, *settings.keys}, {*allow, *settings.allow}, has_words=settings.secrets and KEY_RULE not in settings.without
        )

    def _name_hints(self, names: Iterable[str], paths: Iterable[str]) -> list[str]:
        """Backslashes: in the text of `raw` the quotes of the record are escaped."""
        words = [KEY_WORDS] if self._settings.secrets else []
        words += [rf'["/]{re.escape(name)}' for name in names]
        any_word = "|".join(words)
        key = rf'(?i)(?:{any_word})\\*"\s*:' if words else _NEVER
        change = rf'(?i)"path"\s*:\s*"[^"]*(?:{any_word})"' if words else _NEVER
        path = "(?:" + "|".join(rf'"{re.escape(name)}\\*"\s*:' for name in sorted(paths)) + ")" if paths else _NEVER
        return [key, change, ESCAPES, path]

    def _all_literals(self, names: Iterable[str], paths: Iterable[str]) -> tuple[bytes, ...] | None:
        """Every match of a hint contains one of these, in lower case; None when that cannot be said."""
        found = [b"\\u00", b"\\/", *WORD_LITERALS, *(name.lower().encode() for name in (*names, *paths))]
        for one in self._rules:
            if not one.rule.literals:
                return None
            found += one.rule.literals
        return tuple(dict.fromkeys(found))

    def _tenant_key(self, tenant: str) -> bytes:
        if tenant not in self._tenant_keys:
            self._tenant_keys[tenant] = tenant_key(self._derive, tenant)
        return self._tenant_keys[tenant]


def _is_nothing(searched: _Searched) -> bool:
    """Whether it is but the hit that every event has whose actor's credential is known."""
    ((text, hits), *others) = searched
    return not others and len(hits) == 1 and hits[0][0] == _KEY_HINT and is_actors_credential(text, hits[0][1])


def _find(scanner: Scanner, texts: Sequence[bytes]) -> dict[int, _Searched]:
    """What was found, by the place of the event."""
    found = {place: [(texts[place], hits)] for place, hits in scanner.scan(texts).items()}
    places = [place for place, ((_, hits),) in found.items() if any(hint == _ESCAPE_HINT for hint, _ in hits)]
    if places:
        # A letter may be written as an escape, which no other hint takes into account.
        plain = [without_escapes(texts[place]) for place in places]
        for number, hits in scanner.scan(plain).items():
            found[places[number]].append((plain[number], hits))
    return found


def _armed(settings: RedactSettings) -> list[Armed]:
    """The rules that the settings ask for. Raises ConfigError for one that there is not."""
    known = {rule.name: rule for rule in PERSONAL_RULES}
    wanted = tuple(known) if settings.personal is True else settings.personal or ()
    for name in wanted:
        if name not in known:
            raise ConfigError(f"there is no rule `{name}` for personal data", hint="Known: " + ", ".join(known))
    armed = [Armed("secrets", rule, settings.action) for rule in SECRET_RULES if settings.secrets]
    armed += [Armed(PERSONAL, known[name], settings.personal_action) for name in wanted]
    names = {one.name for one in armed} | {KEY_RULE}
    for name in settings.without:
        if name not in names:
            raise ConfigError(f"there is no rule `{name}` to be without", hint="Known here: " + ", ".join(sorted(names)))
    return [one for one in armed if one.name not in settings.without]
