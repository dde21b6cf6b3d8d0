"""Rules for personal data. None is on unless asked for: in an audit log an address is most often who acted, and must stay."""

from __future__ import annotations

from tallystick.privacy.detectors.checks import is_card_number, is_iban, is_persons_address, is_ssn
from tallystick.privacy.detectors.rule import LEFT, Rule

_CARD = (
    r"(?:[2-6]\d{12,18}|[2-6]\d{3} \d{4} \d{4} \d{1,7}|[2-6]\d{3}-\d{4}-\d{4}-\d{1,7}|3\d{3} \d{6} \d{4,5}|3\d{3}-\d{6}-\d{4,5})"
)
_IBAN = r"[A-Z]{2}\d{2} ?[A-Z0-9]{4} ?[A-Z0-9]{4}"

PERSONAL_RULES: tuple[Rule, ...] = (
    Rule(
        "email",
        r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b",
        r"[A-Za-z0-9._%+-]@[A-Za-z0-9-]+\.[A-Za-z]",  # without a bound it costs a tenth of the search
        check=is_persons_address,
        tail=4,
        visible=0,
        is_bounded=True,
    ),
    Rule(
        "phone",
        r"(?:^|[^0-9A-Za-z+/=])(?P<secret>\+[1-9]\d{7,14})\b",
        rf"{LEFT}\+[1-9]\d{{7,14}}\b",
        visible=2,
        is_bounded=True,
    ),
    Rule("card_number", rf"\b(?P<secret>{_CARD})\b", rf"{LEFT}{_CARD}\b", check=is_card_number, is_bounded=True),
    Rule(
        "iban",
        rf"\b(?P<secret>{_IBAN}(?: ?[A-Z0-9]{{4}}){{0,5}}(?: ?[A-Z0-9]{{1,3}})?)\b",
        LEFT + _IBAN,
        check=is_iban,
        is_bounded=True,
    ),
    Rule(
        "ssn",
        r"\b(?P<secret>\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}|\d{9})\b",
        r"(?i)(?:ssn|social.{0,3}security|tax.{0,3}payer).{0,40}?\d{3}[ -]?\d{2}[ -]?\d{4}\b",
        check=is_ssn,
        is_bounded=True,
        near=r"(?i)(?:\b|_|[a-z])(?:ssn|social[ _-]?security|tax[ _-]?payer)",
    ),
)
