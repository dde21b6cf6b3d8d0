"""What single texts are: an address, an e-mail address, a country's code."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

_EMAIL = re.compile(r"[a-zA-Z0-9!#$%&'*+\-/=?^_`{|}~.]+@[a-zA-Z0-9-]+\.[a-zA-Z0-9.-]+")
_ADDRESS_MAX = 40


@lru_cache(maxsize=4096)
def is_address(text: str) -> bool:
    """Whether the text is an IP address, without a zone."""
    if len(text) > _ADDRESS_MAX or "%" in text:
        return False
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_email(text: str) -> bool:
    """Whether the text is an e-mail address of the plain kind."""
    return _EMAIL.fullmatch(text) is not None


def is_country(text: str) -> bool:
    """Whether the text may be a country's code of two letters."""
    return len(text) == 2 and text.isascii() and text.isupper()
