"""Documents of records, cut wherever blocks end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.json_records import RecordCutter, RecordsError, is_records

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\{[,é', max_size=3), inner, max_size=3),
    max_leaves=8,
)


def cut_into(found: list[bytes], text: bytes, size: int, record_max: int = 1 << 20) -> None:
    cutter = RecordCutter(record_max)
    for start in range(0, len(text), size):
        for record in cutter.feed(text[start : start + size]):
            found.append(record)  # noqa: PERF402 - what came before an error counts
    cutter.end()
    assert cutter.count == len(found)


def cut(text: bytes, size: int, record_max: int = 1 << 20) -> list[bytes]:
    found: list[bytes] = []
    cut_into(found, text, size, record_max)
    return found


@given(st.lists(st.lists(_VALUES, max_size=4), max_size=3), st.integers(1, 50), st.booleans(), st.sampled_from([None, 1]))
def test_elements_come_out_whatever_the_blocks(documents: list[list[Any]], size: int, in_object: bool, indent: int | None) -> None:
    """Arrays, and CloudTrail's objects, one behind the other."""
    text = "\n".join(
        json.dumps({"Records": one} if in_object else one, indent=indent, ensure_ascii=False) for one in documents
    ).encode()
    assert [json.loads(one) for one in cut(text, size)] == [one for document in documents for one in document]


def test_records_keep_their_own_bytes() -> None:
    """Spaces and the order of members included."""
    assert cut(b'\xef\xbb\xbf {"Records" : [ {"b": 1,  "a":2} ,{"c":"\\u00fc \xc3\xbc"}] }\n', 7) == [
        b'{"b": 1,  "a":2}', b'{"c":"\\u00fc \xc3\xbc"}',
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [b'{"Records":[{"a":1},{"a":', b'{"Records":[{"a":1}', b'{"Records":[{"a":1}]', b'[{"a":1} {"b":2}]', b'[{"a":1},nope]',
     b'[{"a":1}] x', b'[{"a":1}]{"other":1}', b'[{"a":1},\xff]', b'[{"a":1},' + b"[" * 100_000],
)  # fmt: skip
def test_what_is_damaged_comes_after_what_was_good(text: bytes) -> None:
    """The first record is given out, then the error, in one block or in many. An object that lacks only its last brace is whole."""
    if text == b'{"Records":[{"a":1}]':
        assert cut(text, 100) == [b'{"a":1}']
        return
    for size in (len(text), 11):
        found: list[bytes] = []
        with pytest.raises(RecordsError):
            cut_into(found, text, size)
        assert found[0] == b'{"a":1}'


def test_a_record_above_the_bound_is_refused() -> None:
    """So that memory stays bounded, though its end never comes."""
    found: list[bytes] = []
    with pytest.raises(RecordsError, match="longer than 1000"):
        cut_into(found, b'[1,{"a":"' + b"x" * 10_000, 100, 1000)
    assert found == [b"1"]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b'{"Records":[', True),
        (b" [ {", True),
        (b"[]\n", True),
        (b"[2026-03-01] started\n", False),
        (b'{"a":1}\n', False),
        (b"text", False),
        (b"", False),
    ],
)
def test_what_is_a_document_of_records(start: bytes, expected: bool) -> None:
    """By its beginning."""
    assert is_records(start) is expected


@given(st.binary(max_size=200), st.integers(1, 20))
def test_any_bytes_are_cut_or_refused(text: bytes, size: int) -> None:
    """Never another error."""
    try:
        cut(text, size, 50)
    except RecordsError:
        pass
