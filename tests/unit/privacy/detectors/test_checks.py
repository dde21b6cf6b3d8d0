"""Checksums and what stands in a secret's place without being one."""

from __future__ import annotations

import pytest

from tallystick.privacy.detectors.checks import is_basic_credential, is_card_number, is_iban, is_ssn, is_value


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (is_card_number, "4111 1111 1111 1111", "4111 1111 1111 1112"),
        (is_card_number, "378282246310005", "1234567890123452"),
        (is_iban, "DE89 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00"),
        (is_ssn, "219-09-9999", "000-09-9999"),
        (is_basic_credential, "dXNlcjpwYXNz", "dXNlcnBhc3M="),
        (is_value, "hunter2", "null"),
        (is_value, "correct horse", "****"),
        (is_value, "x1", "AKIAIOSFODNN7EXAMPLE"),
    ],
)
def test_checks_tell_the_real_from_the_like(check: object, good: str, bad: str) -> None:
    """Each accepts what is right and refuses what only looks so."""
    assert check(good)  # type: ignore[operator]
    assert not check(bad)  # type: ignore[operator]
