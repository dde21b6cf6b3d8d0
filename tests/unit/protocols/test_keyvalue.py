"""Lines of key=value pairs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.keyvalue import parse_pairs, put

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


def test_quotes_escapes_and_separators() -> None:
    """Quoted values keep blanks and commas; words between pairs are no members; a key that comes again is kept."""
    found = parse_pairs('up level=info user="Ann \\"A\\" B", msg=\'two words\' empty= a=1 a=2 done')
    assert found == {"level": "info", "user": 'Ann "A" B', "msg": "two words", "empty": "", "a": "1", "a_2": "2"}
    assert parse_pairs("no pairs here") is None


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=6))
def test_what_was_quoted_comes_back(pairs: dict[str, str]) -> None:
    """Any text in quotes with its quotes and backslashes escaped."""
    text = " ".join('{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"')) for name, value in pairs.items())
    assert parse_pairs(text) == pairs


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    """Whatever is there, the answer is members or None, and every value is in the text when nothing was escaped."""
    found = parse_pairs(text)
    if found and "\\" not in text:
        assert all(value in text for value in found.values())


@given(st.lists(st.sampled_from(["a", "a_2", "b"]), max_size=8))
def test_nothing_is_lost_of_names_that_repeat(names: list[str]) -> None:
    """Each value stays, in order, under a name of its own."""
    members: dict[str, int] = {}
    for number, name in enumerate(names):
        put(members, name, number)
    assert list(members.values()) == list(range(len(names)))
