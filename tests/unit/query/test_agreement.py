"""Generated queries over generated events: both forms of a query agree."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from support.query_cases import ask_sql
from tallystick.query.evaluate import Matcher
from tallystick.query.nodes import And, Cidr, Equal, Field, Gap, Node, Not, Or, Present, Range, Text, Wildcard

_WORDS = st.sampled_from(
    ["a", "b", "ab", "aB", "A", "é", "É", "ſ", "K", "x y", "", "1", "10", "1.0", "true", '"', "\\", "/", "a/b", "%_", "\n"]
)
_VALUES = st.one_of(_WORDS, st.integers(-2, 11), st.sampled_from([1.0, 2.5, None, True, False, 10**20]))
_FREE: st.SearchStrategy[Any] = st.recursive(
    _VALUES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["k", "j", "k.j", 'q"']), inner, max_size=2),
    max_leaves=4,
)
_TIMES = st.sampled_from(
    ["2026-03-01T10:00:00.000000Z", "2026-03-01T10:00:00.000001Z", "1969-12-31T23:59:59.999999Z", "0001-01-01T00:00:00.000000Z"]
)
_IPS = st.sampled_from(["10.0.0.1", "10.0.1.1", "::1", "::ffff:10.0.0.1", "010.0.0.1", "x", "10.0.0.1/8"])
_EVENTS = st.fixed_dictionaries(
    {
        "occurred_at": _TIMES,
        "received_at": _TIMES,
        "action": _WORDS,
        "actor": st.fixed_dictionaries({"type": _WORDS, "id": _WORDS}),
    },
    optional={
        "severity": st.integers(0, 6),
        "category": _WORDS,
        "targets": st.lists(st.fixed_dictionaries({"type": _WORDS, "id": _WORDS}), max_size=3),
        "outcome": _WORDS,
        "reason": _WORDS,
        "context": st.fixed_dictionaries({"ip": _IPS}, optional={"user_agent": _WORDS}),
        "metadata": st.dictionaries(st.sampled_from(["k", "j", "k.j"]), _FREE, max_size=3),
    },
)
_PATHS = st.sampled_from(
    [
        ("action",),
        ("actor", "id"),
        ("category",),
        ("severity",),
        ("targets", "id"),
        ("targets", "type"),
        ("outcome",),
        ("reason",),
        ("context", "ip"),
        ("context", "user_agent"),
        ("metadata", "k"),
        ("metadata", "k", "j"),
        ("metadata", "k", 'q"'),
        ("occurred_at",),
    ]
)
_PIECES = st.lists(st.one_of(_WORDS.filter(bool), st.sampled_from(Gap)), min_size=1, max_size=3).map(tuple)
_NUMBERS = st.none() | st.sampled_from(["0", "1", "2.5", "10", "1e1", "-1", "9" * 60])


def _ranges(kind: str, bounds: st.SearchStrategy[str | None]) -> st.SearchStrategy[Range]:
    return st.builds(Range, st.just(kind), bounds, bounds, st.booleans(), st.booleans()).filter(lambda test: test.low or test.high)


_TESTS = st.one_of(
    st.builds(Equal, _WORDS),
    st.builds(Wildcard, _PIECES),
    st.just(Present()),
    st.builds(Cidr, st.sampled_from(["10.0.0.0/24", "::/0", "0.0.0.0/0"])),
    _ranges("number", _NUMBERS),
    _ranges("text", st.none() | _WORDS.filter(bool)),
)
_TIME_TESTS = _ranges("time", st.none() | st.sampled_from(["2026-03-01", "2026-03-01T10:00:00Z", "1970-01-01"]))
_LEAVES = st.one_of(
    st.builds(Field, _PATHS, _TESTS),
    st.builds(Field, st.sampled_from([("occurred_at",), ("received_at",)]), _TIME_TESTS),
    st.builds(Text, _PIECES),
)
_NODES: st.SearchStrategy[Node] = st.recursive(
    _LEAVES,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(node=_NODES, events=st.lists(_EVENTS, min_size=1, max_size=6), escape=st.booleans())
def test_both_forms_agree(node: Node, events: list[dict[str, Any]], escape: bool) -> None:
    """What SQL calls exact is what the evaluator says; otherwise SQL loses no match. Escapes in a sender's JSON change nothing."""
    lines = [_escape(line) if escape else line for line in map(msgspec.json.encode, events)]
    matches = Matcher(node)
    expected = [row for row, line in enumerate(lines) if matches(msgspec.json.decode(line))]
    assert [row for row, line in enumerate(lines) if matches.matches_line(line)] == expected
    assert matches.matching(lines) == expected
    found, is_exact = ask_sql(node, lines)
    assert found == expected if is_exact else set(expected) <= set(found)


def _escape(line: bytes) -> bytes:
    r"""The line with the letters of ``metadata`` spelled ``\u0061``, as a sender may do; keys of ours stay."""
    head, mark, free = line.decode().partition('"metadata":')
    return (head + mark + free.replace(r""""a""", r""""\u0061""").replace("/", r"\/").replace('"k"', r'"\u006b"')).encode()
