"""From text to tree, and what is said about texts that are no query."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.errors import QueryError
from tallystick.query.grammar import BYTES_MAX, DEPTH_MAX, TERMS_MAX, parse
from tallystick.query.nodes import EVERYTHING, And, Cidr, Equal, Field, Gap, Node, Not, Or, Present, Range, Text, Wildcard, leaves

_DOCS = (Path(__file__).parents[3] / "docs" / "query.md").read_text()
REFUSED = re.findall(r"^\| `(.+?)` \| (.+ \(column \d+\)\. .+) \|$", _DOCS, re.MULTILINE)
ACCEPTED = [
    query for row in re.findall(r"^\| (`.+`) \| (?!.*\(column)", _DOCS, re.MULTILINE) for query in re.findall(r"`(.+?)`", row)
]

LOGIN, ADMIN = Field(("action",), Equal("user.login")), Text(("admin",))


@pytest.mark.parametrize(
    ("query", "node"),
    [
        ("", EVERYTHING),
        ("  ", EVERYTHING),
        ("*", EVERYTHING),
        ("action:user.login admin", And((LOGIN, ADMIN))),
        ("action:user.login AND admin", And((LOGIN, ADMIN))),
        ("admin action:user.login OR admin", Or((And((ADMIN, LOGIN)), ADMIN))),
        ("admin OR action:user.login admin", Or((ADMIN, And((LOGIN, ADMIN))))),
        ("admin (action:user.login OR admin)", And((ADMIN, Or((LOGIN, ADMIN))))),
        ("NOT admin action:user.login", And((Not(ADMIN), LOGIN))),
        ("-admin", Not(ADMIN)),
        ("action:(user.login OR -x?)", Or((LOGIN, Not(Field(("action",), Wildcard(("x", Gap.ONE))))))),
        ("actor:*", Field(("actor", "id"), Present())),
        ("target.type:a", Field(("targets", "type"), Equal("a"))),
        (r"reason:a\*b\:**c", Field(("reason",), Wildcard(("a*b:", Gap.MANY, "c")))),
        (r'reason:"a\"b\\c\d*"', Field(("reason",), Equal(r"a\"b\c\d*".replace(r"\"", '"')))),
        ("severity:>3", Field(("severity",), Range("number", "3", None, low_inclusive=False, high_inclusive=False))),
        ("severity:{* TO 6]", Field(("severity",), Range("number", None, "6", low_inclusive=False, high_inclusive=True))),
        ('metadata.a:["1" TO 2]', Field(("metadata", "a"), Range("text", "1", "2", low_inclusive=True, high_inclusive=True))),
        ("metadata.a:[-5 TO -1]", Field(("metadata", "a"), Range("number", "-5", "-1", low_inclusive=True, high_inclusive=True))),
        ("ip:10.1.0.0/16", Field(("context", "ip"), Cidr("10.1.0.0/16"))),
        ("metadata.cidr:10.1.0.0/16", Field(("metadata", "cidr"), Equal("10.1.0.0/16"))),
    ],
)
def test_trees(query: str, node: Node) -> None:
    """Each form of the grammar becomes this tree."""
    assert parse(query) == node


@pytest.mark.parametrize(("query", "answer"), REFUSED)
def test_every_hint_of_the_docs(query: str, answer: str) -> None:
    """What docs/query.md says about a refused query is what the user gets."""
    with pytest.raises(QueryError) as caught:
        parse(query)
    assert str(caught.value) == answer


def test_the_docs_tables_were_found() -> None:
    """The tables of docs/query.md are read as meant."""
    assert len(REFUSED) >= 25
    assert len(ACCEPTED) >= 15


@pytest.mark.parametrize("query", ACCEPTED)
def test_every_example_of_the_docs(query: str) -> None:
    """Every example of the docs is a query."""
    assert parse(query) != EVERYTHING


@pytest.mark.parametrize(("query", "_answer"), [row for row in REFUSED if "quote" in row[1] or "Write " in row[1]])
def test_the_quoted_form_of_a_hint_works(query: str, _answer: str) -> None:
    """A hint that shows a quoted form shows one that parses to an exact value or free text."""
    with pytest.raises(QueryError) as caught:
        parse(query)
    form = re.search(r'((?:[a-z][a-z_.]*:)?"(?:[^"\\]|\\.)+")', caught.value.hint or "")
    if form is not None:
        (leaf,) = leaves(parse(form[1]))
        assert isinstance(leaf, Text) or isinstance(leaf.test, Equal | Cidr)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("(" * (DEPTH_MAX + 5) + "a" + ")" * (DEPTH_MAX + 5), "nested deeper"),
        ("NOT " * 1_900 + "a", "nested deeper"),
        ("(" * 4_000 + "a" + ")" * 4_000, "nested deeper"),
        (" OR ".join(["a"] * (TERMS_MAX + 1)), "257 terms"),
        ("ä" * (BYTES_MAX // 2 + 1), "8,194 bytes"),
        ("a*" * 17, "more than 16 wildcards"),
        ("a\0b", "NUL"),
        ("a\ud800", "lone surrogate"),
    ],
)
def test_bounds(query: str, message: str) -> None:
    """Size, depth, terms and wildcards are bounded; nothing recurses past the bounds."""
    with pytest.raises(QueryError, match=message):
        parse(query)


def test_the_bounds_themselves_are_allowed() -> None:
    """A query at the bound of depth and terms is a query."""
    parse("(" * (DEPTH_MAX - 1) + "a" + ")" * (DEPTH_MAX - 1))
    assert len(list(leaves(parse(" ".join(["a"] * TERMS_MAX))))) == TERMS_MAX


_TOKENS = st.sampled_from(
    [*'():"[]{}*?\\/~^+-!<>=&|', "AND", "OR", "NOT", "TO", " ", "a", "ip", "action", "10.0.0.0/8", "3", "\t", "ü", "metadata.x"]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_TOKENS, max_size=20).map("".join) | st.text(max_size=30))
def test_any_text_is_a_query_or_a_query_error(text: str) -> None:
    """No text makes the parser fail in another way; an error has a message without line breaks and a column where it can."""
    try:
        node = parse(text)
    except QueryError as error:
        place = error.place
    else:
        place = None
        assert len(list(leaves(node))) <= TERMS_MAX
    assert place is None or re.fullmatch(r"column \d+", place)
