"""Redaction of secrets, before the journal. No hash and no length of the original is kept.

Two kinds of rule:

- *Keys.* A member whose name ends in a word for a secret (``password``, ``client_secret``, ``apiKey``, ``X-Auth-Token`` …)
  loses its value. Inside an object under such a key every text goes, except what describes the secret (ids, types, names,
  times). Numbers go only under words for a PIN or a password: ``max_tokens`` is a count. True, false and null stay.
- *Forms.* Texts of a fixed form (GitHub, Slack, Stripe … tokens, JWT, private keys, passwords in URLs) are cut out of any
  text in ``metadata``, ``changes``, ``reason`` and ``raw``.

What was done is in ``ingest.redactions``: path, rule, action. In ``changes`` the last part of the path counts as the key,
and ``masked`` is set. ``raw`` is covered like metadata when it is JSON. Other text has no members to mask: there forms are cut out, and
a line that was parsed into members of which one had to be masked is dropped, since the secret stands in it somewhere.

The cost when there is nothing to redact: one RE2 search over all free values of a batch (`may_apply`), and RE2 has no bad
case. Only events that hold a hit are opened, level by level with `msgspec.Raw`, so all other members keep their own bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import re2
from msgspec import UNSET, Meta, Raw, UnsetType

from tallystick.config.settings import Settings
from tallystick.event import Event, Ingest, Redaction
from tallystick.event.strict import escape
from tallystick.transforms.batch import EachEvent

Action = Literal["mask", "drop"]

_WORDS = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[_-]?key|authorization|cookie|private[_-]?key"
    r"|client[_-]?secret|access[_-]?key|otp|pin|credential)s?"
)
_KEY = re.compile(r"(?:\A|[_.\-\s]|(?<=[a-z0-9])(?=[A-Z]))(?i:" + _WORDS + r")\Z")
_NUMERIC_KEY = re.compile(r"(?i:pass(?:word|wd|phrase|code)?|pwd|otp|pin)s?\Z")
_DESCRIBES = re.compile(
    r"(?i:id|ids|type|name|status|expir\w*|creat\w*|updat\w*|version|arn)\Z|\w*(?:Id|_id|Type|_type|Name|_name)\Z"
)
_NOTHING: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
_ALLOW = frozenset({"accesskeyid", "tokenissuertype", "mfaused", "nexttoken", "clienttoken", "clientrequesttoken", "pagetoken"})

_FORMS: Mapping[str, str] = {
    "github_token": r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}",
    "gitlab_token": r"glpat-[A-Za-z0-9_-]{20,}",
    "slack_token": r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    "stripe_key": r"[rs]k_live_[A-Za-z0-9]{16,}",
    "google_key": r"AIza[A-Za-z0-9_-]{35}",
    "npm_token": r"npm_[A-Za-z0-9]{36}",
    "vault_token": r"hv[sbr]\.[A-Za-z0-9_-]{24,}",
    "sendgrid_key": r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    "tallystick_key": r"ts_[A-Za-z0-9]+_[A-Za-z0-9]{43}",
    "jwt": r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+",
    "private_key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[^-]*-----END [A-Z ]*PRIVATE KEY-----)?",
    "url_password": r"(://[^\s:/@\"]+:)[^\s:/@\"]+@",
}
# Every match of a hint contains one of these, in lower case; tests hold them to `_WORDS` and `_FORMS`.
_LITERALS = (
    *(b"pass", b"pwd", b"secret", b"token", b"key", b"authorization", b"cookie", b"otp", b"pin", b"credential", b"\\u"),
    *(b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"glpat-", b"xox", b"k_live_", b"aiza", b"npm_"),
    *(b"hvs.", b"hvb.", b"hvr.", b"sg.", b"ts_", b"eyj", b"-----begin", b"://"),
)
_SHORT_TEXT = 2_048
_PATTERNS = {rule: re2.compile(form) for rule, form in _FORMS.items()}
_ANY_FORM = re2.compile("|".join(_FORMS.values()).encode())

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class RedactSettings(Settings, frozen=True):
    """`[transforms.x]` with `type = "redact"`."""

    keys: Annotated[tuple[str, ...], Meta(description="Further member names whose values are secrets, whole and in any case.")] = ()
    allow: Annotated[tuple[str, ...], Meta(description="Member names that are no secrets though they sound so.")] = ()
    action: Annotated[Action, Meta(description="`mask` puts `[REDACTED:secret]` in place; `drop` takes the member away.")] = "mask"


class Redact(EachEvent):
    """The transform. ``allow`` and ``keys`` of each mapping come from its file's `[redact]`."""

    def __init__(self, name: str, settings: RedactSettings, mappings: Mapping[str, tuple[Iterable[str], Iterable[str]]]) -> None:
        self.name = name
        self._action: Action = settings.action
        self._allow = _ALLOW | _lower(settings.allow)
        self._keys = _lower(settings.keys)
        self._by_mapping = {mapping: (_lower(allow), _lower(keys)) for mapping, (allow, keys) in mappings.items()}
        extra = sorted({key for _, keys in self._by_mapping.values() for key in keys} | self._keys)
        # These are whole names: with their first quote, so that `structured_data` is not taken for `data`.
        names = "".join(rf'|"{re.escape(key)}' for key in extra)
        self._literals = (*_LITERALS, *(key.encode() for key in extra))
        # Backslashes: in `raw` the quotes of the record are escaped. A key written with \u escapes is opened to be sure.
        self._hint = re2.compile(rf'(?i)(?:{_WORDS}{names})\\*"\s*:|\\u|(?-i:{"|".join(_FORMS.values())})'.encode())

    def may_apply(self, events: Sequence[Event]) -> bool:
        """Whether any of the events may hold a secret; False means `apply` would leave all as they are."""
        text = _free_values(events)
        if len(text) <= _SHORT_TEXT:
            # RE2 gives up the interpreter lock for each search; getting it back from a busy commit thread costs more than
            # looking for the few literals without which the search cannot succeed.
            lowered = text.lower()
            if not any(literal in lowered for literal in self._literals):
                return False
        return self._hint.search(text) is not None

    def apply(self, event: Event) -> list[Event]:
        """The event without its secrets."""
        if not self.may_apply([event]):
            return [event]
        mapping = event.ingest.mapping if event.ingest is not UNSET else UNSET
        allow, keys = self._by_mapping.get(mapping or "", _NOTHING)
        walk = _Walk(self._allow | allow, self._keys | keys, self._action)
        if event.metadata is not UNSET:
            event.metadata = Raw(walk.value(bytes(event.metadata), "/metadata", is_secret=False))
        if event.reason is not UNSET:
            event.reason = walk.text(event.reason, "/reason")
        if event.raw is not UNSET:
            has_masked = any(one.rule == "secrets.key" for one in walk.done)
            event.raw = _redact_raw(event.raw, walk, has_masked=has_masked)
        if event.changes is not UNSET:
            _redact_changes(event, walk)
        if walk.done:
            if event.ingest is UNSET:
                event.ingest = Ingest()
            event.ingest.redactions = [*(event.ingest.redactions or ()), *walk.done]
        return [event]


class _Walk:
    """Redacts the values of one event and keeps the account in ``done``."""

    def __init__(self, allow: frozenset[str], keys: frozenset[str], action: Action) -> None:
        self.allow = allow
        self.keys = keys
        self.action = action
        self.done: list[Redaction] = []

    def names_secret(self, key: str) -> bool:
        """Whether a member of this name is a secret."""
        lower = key.lower()
        return lower in self.keys or (lower not in self.allow and _KEY.search(key) is not None)

    def value(self, value: bytes, path: str, *, is_secret: bool, key: str = "") -> bytes:
        """JSON ``value`` with what is secret in it replaced; the very same bytes when nothing is."""
        first = value[:1]
        if first == b"{":
            return self._members(value, path, is_secret)
        if first == b"[":
            elements = [bytes(element) for element in _decode_list(value)]
            kept = [self.value(element, f"{path}/{n}", is_secret=is_secret, key=key) for n, element in enumerate(elements)]
            return value if kept == elements else b"[" + b",".join(kept) + b"]"
        if first == b'"':
            text = _decode_text(value)
            if is_secret:
                return self._mask(path) if text and not text.startswith("[REDACTED:") else value
            kept_text = self.text(text, path)
            return value if kept_text == text else _encode(kept_text)
        is_number = first not in (b"t", b"f", b"n")
        return self._mask(path) if is_secret and is_number and _NUMERIC_KEY.search(key) else value

    def text(self, text: str, path: str) -> str:
        """``text`` without secrets of a fixed form."""
        if _ANY_FORM.search(text.encode()) is None:
            return text
        for rule, pattern in _PATTERNS.items():
            if pattern.search(text) is not None:
                form = rf"\1[REDACTED:{rule}]@" if rule == "url_password" else f"[REDACTED:{rule}]"
                text = pattern.sub(form, text)
                self.done.append(Redaction(path=path, rule=f"secrets.{rule}", action="mask"))
        return text

    def _members(self, value: bytes, path: str, is_secret: bool) -> bytes:
        members = {key: bytes(member) for key, member in _decode_members(value).items()}
        kept: dict[str, Any] = {}
        for key, member in members.items():
            below = self.names_secret(key) or (is_secret and key.lower() not in self.allow and _DESCRIBES.match(key) is None)
            place = f"{path}/{escape(key)}"
            if below and self.action == "drop" and member[:1] not in b"{[tfn":
                self.done.append(Redaction(path=place, rule="secrets.key", action="drop"))
                continue
            kept[key] = self.value(member, place, is_secret=below, key=key)
        if kept == members:
            return value
        return _encode({key: Raw(member) for key, member in kept.items()})

    def _mask(self, path: str) -> bytes:
        self.done.append(Redaction(path=path, rule="secrets.key", action="mask"))
        return b'"[REDACTED:secret]"'


def _redact_raw(raw: str, walk: _Walk, *, has_masked: bool) -> str | UnsetType:
    text = raw.strip()
    if text.startswith(("{", "[")):
        try:
            kept = walk.value(text.encode(), "/raw", is_secret=False)
        except (msgspec.MsgspecError, RecursionError):
            return walk.text(raw, "/raw")
        return raw if kept == text.encode() else kept.decode()
    if has_masked:
        walk.done.append(Redaction(path="/raw", rule="secrets.key", action="drop"))
        return UNSET
    return walk.text(raw, "/raw")


def _redact_changes(event: Event, walk: _Walk) -> None:
    for number, change in enumerate(event.changes or ()):
        key = change.path.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        is_secret = walk.names_secret(key)
        count = len(walk.done)
        for side in ("before", "after"):
            value = getattr(change, side)
            if value is not UNSET:
                place = f"/changes/{number}/{side}"
                setattr(change, side, Raw(walk.value(bytes(value), place, is_secret=is_secret, key=key)))
        if len(walk.done) > count:
            change.masked = True


def _free_values(events: Sequence[Event]) -> bytes:
    """Everything in the events that may hold a secret, as one JSON text; paths of changes stand as keys."""
    values: list[Any] = [event.metadata for event in events if event.metadata is not UNSET]
    values += [event.reason for event in events if event.reason is not UNSET]
    values += [event.raw for event in events if event.raw is not UNSET]
    for event in [event for event in events if event.changes is not UNSET]:
        values += [{change.path: change} for change in event.changes or ()]
    return _encode(values)


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)
