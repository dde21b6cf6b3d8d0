"""The report on a mapping counts what it says it counts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tallystick.errors import ConfigError
from tallystick.transforms import load_mappings
from tallystick.transforms.report import best_mapping, read_records, report

RECORDS = [
    {"action": "a.b", "user": "ann", "ip": "192.0.2.1", "timestamp": "2026-01-01T00:00:00Z", "outcome": "success", "x": {"y": 1}},
    {"action": "a.c", "timestamp": "yesterday", "x": {"y": 1, "z": 2}},
    {"user": "bob"},
    {},
]


def test_shares_and_what_was_left() -> None:
    """Four records, counted by hand; a fallback is nothing that was found."""
    lines = [json.dumps(record).encode() for record in RECORDS]
    document = report(load_mappings()["generic"], [*lines, b'{"a":1,"a":2}']).document()
    assert (document["records"], document["mapped"], document["mapped_percent"]) == (5, 4, 80.0)
    assert document["problems"] == {"key_duplicate": 1}
    assert document["found_percent"] == {"action": 50.0, "actor": 50.0, "target": 0.0, "outcome": 25.0, "time": 25.0, "ip": 25.0}
    assert document["unused"] == {"x.y": 2, "x.z": 1}
    assert document["bad_times"] == {"yesterday": 1}
    assert document["unsorted_actions"] == {"a.b": 1, "a.c": 1, "generic.record": 2}


def test_the_mapping_that_fits_is_found() -> None:
    """By the records alone: the most particular of those that take them."""
    ours = list(load_mappings().values())
    trail = b'{"eventName":"CreateUser","eventSource":"iam.amazonaws.com","eventTime":"2026-01-01T00:00:00Z","userIdentity":{"arn":"a"}}'
    assert best_mapping(ours, [trail]).name == "aws_cloudtrail"
    assert best_mapping(ours, [b'{"anything":1}', b"a line"]).name == "generic"


def test_records_are_read_from_documents_lines_and_gzip(tmp_path: Path) -> None:
    """One document is one record, however it is set; else each line is one."""
    document, lines = tmp_path / "one.json", tmp_path / "lines.jsonl.gz"
    document.write_text('{\n"Records": []\n}')
    lines.write_bytes(gzip.compress(b'{"a":1}\n\n{"a":2}\r\n'))
    assert read_records(document) == [b'{\n"Records": []\n}']
    assert read_records(lines) == [b'{"a":1}', b'{"a":2}']
    lines.write_bytes(b"not gzip")
    for path in (lines, tmp_path / "nothing"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_records(path)
