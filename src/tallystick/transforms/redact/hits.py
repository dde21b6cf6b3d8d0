"""Which hits of the search are findings, told by a look at the few bytes around: most are none, and their events need not be opened."""

from __future__ import annotations

from tallystick.privacy.detectors import Rule
from tallystick.transforms.redact.keys import KeyRules, is_id

_FREE_MEMBERS = (b'"metadata":{', b'"changes":[', b'"raw":"')
_CREDENTIAL = b'"credential":'
_KEY_LENGTH = 96


def secret_name(keys: KeyRules, text: bytes, end: int) -> bytes | None:
    """The name of the member whose colon ends at ``end``, when its value may be a secret."""
    if text[end : end + 1] in (b"n", b"t", b"f"):
        return None
    name = _name_before(text, end)
    if not keys.names_secret(name.decode()):
        return None
    # That of an actor, or of one whom it acts for, says by what credential it came and is none.
    is_envelope = name == b"credential" and not any(text.find(member, 0, end) >= 0 for member in _FREE_MEMBERS)
    return None if is_envelope else name


def is_actors_credential(text: bytes, end: int) -> bool:
    """Whether the name whose colon ends at ``end`` is the actor's own `credential` for sure: by which it came, which is no secret.

    The actor is the first object in an event, so no brace has been closed before it ends.
    """
    return text[end - len(_CREDENTIAL) : end] == _CREDENTIAL and text.find(b"}", 0, end) < 0


def is_finding(rule: Rule, text: bytes, end: int) -> bool:
    """Whether the JSON string around ``end`` has something that the rule finds. True where only opening the event can tell."""
    start, stop = text.rfind(b'"', 0, end) + 1, text.find(b'"', end)
    value = text[start:stop]
    if b"\\" in value[:-1] or stop < 0:
        return True
    key = _name_of(text, start)
    if key is None:
        return True
    if is_id(key):
        return False
    found = value.rstrip(b"\\").decode("utf-8", "replace")
    spans = (rule.span(match) for match in rule.compiled.finditer(found))
    return any(rule.check is None or rule.check(found[start:stop]) for start, stop in spans)


def _name_before(text: bytes, end: int) -> bytes:
    quote = text.rindex(b'"', 0, end)
    stop = quote
    while text[stop - 1 : stop] == b"\\":
        stop -= 1
    return text[text.rfind(b'"', 0, stop) + 1 : stop]


def _name_of(text: bytes, start: int) -> str | None:
    """The name of the member whose string value begins at ``start``; None when it is an element or no string at all."""
    before = text[max(0, start - _KEY_LENGTH) : start - 1].rstrip(b"\\")
    if not before.endswith(b'":'):
        return None
    return before[:-2].rstrip(b"\\").rpartition(b'"')[2].decode("utf-8", "replace")
