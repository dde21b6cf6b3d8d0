"""Strict JSON: what the fast answer accepts, the exact check accepts too, and both agree with a plain reference."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.errors import EventInvalidError
from tallystick.event.strict import check_strict, compact, find_fault, require_strict, unescape

DEPTH = 32


def reference_accepts(text: bytes, depth_max: int = DEPTH) -> bool:
    """Slow and obvious: the standard parser with hooks, then a walk over the values."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    def number(literal: str) -> float:
        value = float(literal)
        if math.isinf(value) or len(re.findall(r"\d", literal)) > 64:
            raise ValueError("range")
        if value == 0 and re.search("[1-9]", literal.lower().split("e")[0]):
            raise ValueError("underflow")
        return value

    def refuse(word: str) -> None:
        raise ValueError(word)

    def fits(value: Any, depth: int) -> bool:
        if isinstance(value, str):
            return "\0" not in value and not re.search("[\ud800-\udfff]", value)
        if isinstance(value, dict):
            return depth < depth_max and all(fits(key, depth) and fits(item, depth + 1) for key, item in value.items())
        if isinstance(value, list):
            return depth < depth_max and all(fits(item, depth + 1) for item in value)
        return True

    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=unique, parse_float=number, parse_int=number, parse_constant=refuse
        )
        return fits(value, 0)
    except (ValueError, RecursionError):
        return False


def check_accepts(text: bytes) -> bool:
    try:
        check_strict(text, DEPTH)
    except EventInvalidError:
        return False
    return True


NUMBERS = st.sampled_from(
    ["0", "-0", "1", "1.0", "1E2", "1e5", "0.10", "1e400", "-1e400", "1e-400", "0e999", "1" * 64, "1" * 65, "01", "1.", ".5", "+1"]
)
STRINGS = st.one_of(
    st.sampled_from(
        ['""', '"a"', '"\\u0061"', '"\\u0000"', '"\\\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\udc00\\ud800"', '"\\/"',
         '"é"', '"{"', '"}]"', '"\\""', '"a\tb"', '"\\q"', '"' + "7" * 70 + '"']
    ),
    st.text(max_size=6).map(json.dumps),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(lambda text: json.dumps(text, ensure_ascii=False)),
)  # fmt: skip
BLANKS = st.sampled_from(["", "", "", " ", "\n", "\t "])


def composite(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.lists(st.tuples(STRINGS, BLANKS, children), max_size=4)
    objects = members.map(lambda found: "{" + ",".join(f"{key}:{blank}{value}" for key, blank, value in found) + "}")
    arrays = st.lists(children, max_size=4).map(lambda found: "[" + ",".join(found) + "]")
    return objects | arrays


TEXTS = st.recursive(NUMBERS | STRINGS | st.sampled_from(["true", "null", "NaN", "-Infinity", "nul"]), composite, max_leaves=8)


@given(TEXTS)
@settings(max_examples=100, deadline=None)
def test_exact_check_agrees_with_reference(text: str) -> None:
    """The exact check accepts just what the reference accepts."""
    data = text.encode("utf-8", "surrogatepass")
    assert check_accepts(data) == reference_accepts(data)


@given(TEXTS)
@settings(max_examples=100, deadline=None)
def test_both_checks_give_one_verdict(text: str) -> None:
    """The quick check accepts just what the exact one and the reference accept, and names the same kind of fault."""
    try:
        data = compact(text.encode("utf-8", "surrogatepass"))
    except msgspec.MsgspecError:
        assert not reference_accepts(text.encode("utf-8", "surrogatepass"))
        return
    assert (find_fault(data, DEPTH) is None) == check_accepts(data) == reference_accepts(data)


@given(TEXTS.map(lambda text: "".join(text)), st.data())
@settings(max_examples=60, deadline=None)
def test_exact_check_ends_on_any_bytes(text: str, data: st.DataObject) -> None:
    """Damaged text gives our error and nothing else."""
    raw = bytearray(text.encode("utf-8", "surrogatepass") or b" ")
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert check_accepts(bytes(raw)) == reference_accepts(bytes(raw))


@pytest.mark.parametrize(
    ("text", "code", "pointer"),
    [
        (b'{"a":1,"a":2}', "key_duplicate", "/a"),
        (b'{"m":[1,{"x":1,"\\u0078":2}]}', "key_duplicate", "/m/1/x"),
        (b'{"a/b":{"c~d":1e400}}', "number_invalid", "/a~1b/c~0d"),
        (b'{"a":1e-400}', "number_invalid", "/a"),
        (b'{"a":[0,' + b"1" * 65 + b"]}", "number_invalid", "/a/1"),
        (b'{"a":"\\ud800"}', "string_invalid", "/a"),
        (b'{"a":{"b":"x\\u0000"}}', "string_invalid", "/a/b"),
        (b'{"a":NaN}', "json_invalid", "/a"),
        (b'{"a":"\xff"}', "json_invalid", ""),
        (b'{"a":1,}', "json_invalid", "/a"),
        (b'{"a":1} x', "json_invalid", ""),
        (b'{"a"', "json_invalid", "/a"),
        (b"", "json_invalid", ""),
        (b"[" * 33 + b"]" * 33, "depth_exceeded", "/0" * 32),
    ],
)
def test_exact_check_says_what_and_where(text: bytes, code: str, pointer: str) -> None:
    """Each fault has its code and a JSON Pointer to its place."""
    with pytest.raises(EventInvalidError) as caught:
        check_strict(text, DEPTH)
    assert (caught.value.code, caught.value.pointer) == (code, pointer)
    try:
        compacted = compact(text)
    except msgspec.MsgspecError:
        return
    with pytest.raises(EventInvalidError) as caught:
        require_strict(compacted, DEPTH, locate=False)
    assert (caught.value.code, caught.value.pointer) == (code, "")


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"' + b"7" * 70 + b'","b":"' + b"{[" * 40 + b'","c":"\\\\u0000"}',
        b'{"a":[' + b"{}," * 50 + b"1e5]}",
        b"[" + b"12345678901234567890123456789012.5," * 3 + b"1e100]",
    ],
)
def test_look_alikes_are_no_faults(text: bytes) -> None:
    """Long digits, brackets and escaped backslashes inside strings, and many shallow members, are all right."""
    check_strict(text, DEPTH)
    require_strict(text, DEPTH)


def test_depth_costs_no_recursion() -> None:
    """A hundred thousand brackets end in an answer, not in a RecursionError."""
    with pytest.raises(EventInvalidError, match="deeper than 32"):
        check_strict(b"[" * 100_000, DEPTH)


def test_numbers_and_escapes_keep_their_text_when_compacted() -> None:
    """Compacting takes only blanks away."""
    assert compact(b'{ "a" : [ 1.0, -0, 1E2, "\\u0041 b" ] }') == b'{"a":[1.0,-0,1E2,"\\u0041 b"]}'


@given(TEXTS)
@settings(max_examples=100, deadline=None)
def test_unescaping_keeps_value_and_verdict(text: str) -> None:
    """Escapes in their shortest form change neither the value nor what is wrong with it."""
    try:
        data = compact(text.encode("utf-8", "surrogatepass"))
    except msgspec.MsgspecError:
        return
    plain = unescape(data)
    assert len(plain) <= len(data)
    assert reference_accepts(plain) == reference_accepts(data)
    if reference_accepts(data):
        assert json.loads(plain) == json.loads(data)
