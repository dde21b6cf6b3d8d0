"""What the name of a member says: that its value is a secret, that it only describes one, or that it is an id."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from tallystick.privacy.detectors import KEY_WORDS

_KEY = re.compile(r"(?:\A|[_.\-\s]|(?<=[a-z0-9])(?=[A-Z]))(?i:" + KEY_WORDS + r")\Z")
_NUMERIC_KEY = re.compile(r"(?i:pass(?:word|wd|phrase|code)?|pwd|otp|pin)s?\Z")
_DESCRIBES = re.compile(
    r"(?i:id|ids|type|name|status|expir\w*|creat\w*|updat\w*|version|arn)\Z|\w*(?:Id|_id|Type|_type|Name|_name)\Z"
)
# Names of members whose digits and letters are chance: no personal data is looked for in them.
_ID = re.compile(
    r"(?:(?:\A|[_.\-\s])(?i:u?id|guid|uuid|key|arn|hash|etag|sha\d*|md5|digest|checksum|fingerprint|serial|nonce|cursor|version|revision)s?"
    r"|[a-z0-9](?:I[dD]|U[Ii][Dd]|G[Uu]id|Arn|ARN|Hash|Etag|Digest|Fingerprint|Serial|Version|Key)s?)\Z"
)
ALLOWED = frozenset(
    {"accesskeyid", "tokenissuertype", "mfaused", "nexttoken", "clienttoken", "clientrequesttoken", "pagetoken", "idempotencytoken"}
)


class KeyRules:
    """Which members are secrets, by name, under one transform and one mapping. ``keys``, ``allow`` and what is asked for: in any case."""

    def __init__(self, keys: Iterable[str], allow: Iterable[str], *, has_words: bool) -> None:
        self._keys = frozenset(name.lower() for name in keys)
        self.allow = ALLOWED | frozenset(name.lower() for name in allow)
        self._has_words = has_words
        self.names_secret = lru_cache(maxsize=4096)(self._names_secret)

    def _names_secret(self, key: str) -> bool:
        lower = key.lower()
        return lower in self._keys or (self._has_words and lower not in self.allow and _KEY.search(key) is not None)

    def is_secret_below(self, key: str) -> bool:
        """Whether a member of an object that is a secret as a whole is one too."""
        return key.lower() not in self.allow and _DESCRIBES.match(key) is None


def takes_numbers(key: str) -> bool:
    """Whether a number under this name is a secret: a PIN is, `max_tokens` is a count."""
    return _NUMERIC_KEY.search(key) is not None


@lru_cache(maxsize=4096)
def is_id(key: str) -> bool:
    """Whether the name says that the value is an id or a digest."""
    return _ID.search(key) is not None
