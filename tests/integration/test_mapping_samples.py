"""Every real CloudTrail and GitHub audit record becomes the event that hand-written jq expressions expect."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from tools.samples import PAGE, rows, table_of

from support.sample_oracle import ORACLES, SAMPLES, expected, observed, samples
from tallystick.event import Source
from tallystick.event.codec import decode_line, encode_lines
from tallystick.event.stamp import Stamp
from tallystick.event.strict import check_strict
from tallystick.transforms import load_mappings

pytestmark = [
    pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample records are not beside the repository"),
]

RECEIVED = "2026-03-04T10:00:00.000000Z"
QUARANTINED_MAX = 0.01


@pytest.mark.parametrize("mapping", sorted(ORACLES))
def test_sample_records_map_as_expected(mapping: str) -> None:
    """Events and quarantined add up to the records; at most 1 % are quarantined, each with a reason; all members agree."""
    found = samples(mapping)
    stamp = Stamp("acme", RECEIVED, Source(name=mapping, type="http"))
    records = quarantined = 0
    for sample, wanted in zip(found, expected(mapping, [one.document for one in found]), strict=True):
        result = load_mappings()[mapping].map(sample.document)
        lines = encode_lines(result.events, stamp)
        events = [row for row in wanted if "quarantined" not in row]
        assert [observed(json.loads(line)) for line in lines] == events, sample.place
        assert len(result.problems) == len(wanted) - len(events), sample.place
        assert all(problem.code and problem.message for problem in result.problems)
        records += len(wanted)
        quarantined += len(result.problems)
    assert records > 30
    assert quarantined <= records * QUARANTINED_MAX


@pytest.mark.parametrize("mapping", sorted(ORACLES))
def test_sample_events_are_whole_and_distinct(mapping: str) -> None:
    """Lines are valid and strict, keep the record, and ids repeat only where the record does."""
    stamp = Stamp("acme", RECEIVED, Source(name=mapping, type="http"))
    contents: dict[str, bytes] = {}
    for sample in samples(mapping):
        result = load_mappings()[mapping].map(sample.document)
        for line, content in zip(encode_lines(result.events, stamp), result.contents, strict=True):
            event = decode_line(line)
            check_strict(line, 32)
            assert json.loads(str(event.raw)) == json.loads(content)
            assert contents.setdefault(str(event.id), content) == content or str(event.id).startswith(stamp.ids.prefix)


def test_the_table_in_the_docs_is_what_comes_of_the_samples() -> None:
    """Records, shares that map and in which something was found; every row is there."""
    found = rows()
    assert len(found) > 20
    assert table_of(found) in PAGE.read_text("utf-8")


def test_entries_of_pgaudits_own_tests() -> None:
    """Each whole line of what pgaudit's regression tests expect, as csvlog and as jsonlog: the same class, command and object come out."""
    lines = (SAMPLES / "postgresql" / "pgaudit_expected_audit_lines.log").read_text("utf-8").splitlines()
    entries = [line.partition(":  ")[2] for line in lines if line.count('"') % 2 == 0]
    assert len(entries) > 20
    for entry in entries:
        _, _, _, audit_class, command, kind, name = entry.removeprefix("AUDIT: ").split(",")[:7]
        for event in (_logged(entry, as_csv=True), _logged(entry, as_csv=False)):
            assert event["action"] == "postgresql." + command.lower().replace(" ", "_")
            assert event["metadata"]["audit"]["class"] == audit_class
            assert not name or event["targets"][0] == {"type": kind, "id": name}
            assert event["occurred_at"] == "2026-03-01T10:00:00.000000Z"


def _logged(message: str, *, as_csv: bool) -> dict[str, Any]:
    """The event of one line of the server's log with this message."""
    time = "2026-03-01 10:00:00.000 UTC"
    text = io.StringIO()
    if as_csv:
        head = [time, "ann", "shop", "1", "192.0.2.7:1", "a.1", "3", "", time, "", "0", "LOG", "00000", message]
        csv.writer(text, lineterminator="\n").writerow([*head, *[""] * 12])
    else:
        record = {"timestamp": time, "session_id": "a.1", "line_num": 3, "error_severity": "LOG", "message": message}
        text.write(json.dumps(record))
    result = load_mappings()["postgresql"].map(text.getvalue().encode())
    assert result.problems == []
    (line,) = encode_lines(result.events, Stamp("acme", RECEIVED, Source(name="pg", type="file")))
    found: dict[str, Any] = json.loads(line)
    return found
