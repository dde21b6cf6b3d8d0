"""Every real CloudTrail and GitHub audit record becomes the event that hand-written jq expressions expect."""

from __future__ import annotations

import json

import pytest

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
