"""What stands in the place of what was found. Neither says how long it was; only `hash` can be compared, by who has the tenant's key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from tallystick.privacy.detectors.rule import Rule
from tallystick.transforms.redact.settings import Action

Derive = Callable[[str], bytes]
"""The key store's `derive`: 32 bytes that are always the same for a purpose."""

_PARTIAL_LENGTH = 12
_HASH_DIGITS = 24


class Replacer:
    """Makes what stands in place, for one tenant. ``key`` gives the tenant's key; it is asked for when a hash is made."""

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._key = key

    def text(self, found: str, name: str, action: Action, visible: int = 4) -> str:
        """In place of ``found``. `drop` is the caller's, who can take a member away; here it is as `mask`."""
        if action == "hash":
            digest = hmac.digest(self._key(), found.encode(), hashlib.sha256).hex()
            return f"[HASH:{name}:{digest[:_HASH_DIGITS]}]"
        if action == "partial":
            return f"[PARTIAL:{name}:…{_rest(found, name, visible)}]"
        return f"[REDACTED:{name}]"

    def finding(self, found: str, rule: Rule, action: Action) -> str:
        """The same for what a rule found."""
        return self.text(found, rule.name, action, rule.visible)


def _rest(found: str, name: str, visible: int) -> str:
    """The part that stays: an address's domain, else the last characters of what is long."""
    if name == "email":
        return found[found.rindex("@") :]
    return found[len(found) - visible :] if visible and len(found) >= _PARTIAL_LENGTH else ""


def tenant_key(derive: Derive, tenant: str) -> bytes:
    """The key of a tenant's hashes, the same for its whole life."""
    return derive(f"redact1/{tenant}")
