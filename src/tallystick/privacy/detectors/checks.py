"""Exact tests behind patterns: checksums and number plans, and what stands in a secret's place without being one. All pure."""

from __future__ import annotations

import base64
import binascii
import re

_MARKS = ("[REDACTED:", "[PARTIAL:", "[HASH:")
_HIDDEN = re.compile(r"[*.•]{3,}|HIDDEN_DUE_TO_SECURITY_REASONS")
_NO_VALUE = re.compile(
    r"(?i)\A(?:(?:true|false|yes|no|on|off|null|nil|none|undefined|empty|unset|hidden|masked|redacted|invalid|missing|required|expired"
    r"|hidden_due_to_security_reasons)\b\W*\Z|[*.xX•?-]+\Z|\$[({A-Za-z_]|<|%[({a-z]|\{\{)"
)
_KEY_ID = re.compile(
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}(?:\Z|[/%,\s])"
)  # the id of an access key of AWS, and what follows in a credential scope
_CARDS = (  # first digits from, to (both inclusive, of the same length), lengths; ISO/IEC 7812 as the schemes publish their ranges
    ("4", "4", (13, 16, 19)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("300", "305", (14,)),
    ("36", "36", (14,)),
    ("38", "39", (14,)),
    ("3528", "3589", (16, 17, 18, 19)),
    ("6011", "6011", (16, 17, 18, 19)),
    ("644", "659", (16, 17, 18, 19)),
    ("62", "62", (16, 17, 18, 19)),
)
# Length of an IBAN by country (ISO 13616).
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28, "CH": 21, "CR": 22,
    "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22,
    "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30,
    "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27,
    "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31,
    "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip


def is_marked(text: str) -> bool:
    """Whether this is what redaction puts in place."""
    return text.startswith(_MARKS)


def is_shown(text: str) -> bool:
    """Whether a member named for a secret holds something: not nothing, not what a product or we put in its place, not the id of a key."""
    return bool(text) and not is_marked(text) and _HIDDEN.fullmatch(text) is None and _KEY_ID.fullmatch(text) is None


def is_value(text: str) -> bool:
    """Whether a text under a secret's name can be the secret: no flag, no word for "nothing", no stars, no variable
    to be filled in, and no id of a key."""
    return bool(text) and not any(mark in text for mark in _MARKS) and _NO_VALUE.match(text) is None and _KEY_ID.match(text) is None


def is_header_value(text: str) -> bool:
    """The same for the value of a header, which goes as a whole even when a part of it went already."""
    return not is_marked(text) and _NO_VALUE.match(text) is None


def is_luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def is_card_number(text: str) -> bool:
    """A number of a card scheme's range and length whose check digit is right."""
    digits = re.sub(r"[ -]", "", text)
    fits = any(first <= digits[: len(first)] <= last and len(digits) in lengths for first, last, lengths in _CARDS)
    return fits and is_luhn(digits) and len(set(digits)) > 1


def is_iban(text: str) -> bool:
    """A country's length, and mod 97 of ISO 7064 is 1."""
    compact = text.replace(" ", "")
    if _IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 == 1


def is_ssn(text: str) -> bool:
    """A number that the Social Security Administration may have issued."""
    digits = text.replace("-", "").replace(" ", "")
    return digits[:3] not in ("000", "666") and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"


def is_persons_address(text: str) -> bool:
    """An email address of a person: not the `git@` of a clone URL, and not the name of a service account."""
    return not text.lower().startswith("git@") and not text.lower().endswith(".gserviceaccount.com")


def is_basic_credential(text: str) -> bool:
    """Base64 of ``user:password`` (RFC 7617)."""
    try:
        plain = base64.b64decode(
            text.replace("-", "+").replace("_", "/").rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True
        )
        user, colon, password = plain.decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    return bool(colon) and bool(password) and (user + password).isprintable()
