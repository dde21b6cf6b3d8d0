"""The streaming evaluator and the SQL form of a query, asked the same questions over the same events."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from support.query_cases import ask_sql
from tallystick.query.evaluate import compile_query
from tallystick.query.grammar import parse

_CORPUS = tomllib.loads(Path(__file__).with_name("corpus.toml").read_text())
LINES = [line.encode() for line in _CORPUS["events"].strip().splitlines()]
IDS = [msgspec.json.decode(line)["id"] for line in LINES]
CASES = list(_CORPUS["cases"].items())


@pytest.mark.parametrize(("query", "expected"), CASES)
def test_evaluator(query: str, expected: list[str]) -> None:
    """A decoded event matches exactly where the corpus says so, and a line exactly where its event does."""
    matches = compile_query(query)
    assert [name for name, line in zip(IDS, LINES, strict=True) if matches(msgspec.json.decode(line))] == expected
    assert [name for name, line in zip(IDS, LINES, strict=True) if matches.matches_line(line)] == expected


@pytest.mark.parametrize(("query", "expected"), CASES)
def test_sql(query: str, expected: list[str]) -> None:
    """The SQL form keeps every match, and keeps nothing else when it says that it is exact."""
    found, is_exact = ask_sql(parse(query), LINES)
    names = [IDS[row] for row in found]
    assert names == expected if is_exact else set(expected) <= set(names)
