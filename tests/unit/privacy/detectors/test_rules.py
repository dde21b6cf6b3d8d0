"""The rules of `privacy.detectors`: what a short text is looked at for first leaves out no finding."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.privacy.detectors import KEY_WORDS, PERSONAL_RULES, SECRET_RULES
from tallystick.privacy.detectors.rule import Rule
from tallystick.privacy.detectors.secrets import WORD_LITERALS

_RULES = [*SECRET_RULES, *(rule for rule in PERSONAL_RULES if rule.literals)]


@pytest.mark.parametrize("rule", _RULES, ids=[rule.name for rule in _RULES])
@settings(max_examples=15)
@given(data=st.data())
def test_no_hit_is_without_one_of_its_literals(rule: Rule, data: st.DataObject) -> None:
    """Whatever the hint finds contains one of them, in capitals too."""
    text = data.draw(st.from_regex(re.compile(rule.hint.encode()), fullmatch=True))
    assert any(literal in text.lower() for literal in rule.literals)


@given(text=st.from_regex(re.compile(rf"(?i){KEY_WORDS}".encode()), fullmatch=True))
def test_no_name_is_without_one_of_its_literals(text: bytes) -> None:
    """The same for the names of members."""
    assert any(literal in text.lower() for literal in WORD_LITERALS)


def test_every_rule_for_secrets_has_literals() -> None:
    """Else a short request would cost a search."""
    assert [rule.name for rule in SECRET_RULES if not rule.literals] == []
