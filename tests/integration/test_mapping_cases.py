"""Records of many products, each with the event that was written beside it by hand."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from support.mapping_cases import NAMES, Case, case_record, cases, fits, load, map_record, sample_records
from support.sample_oracle import SAMPLES
from tallystick.event.codec import decode_line
from tallystick.event.strict import check_strict

CASES = cases()
HAS_SAMPLES = SAMPLES.is_dir()


@pytest.mark.parametrize("case", CASES, ids=[f"{case.mapping} {case.place}" for case in CASES])
def test_a_record_becomes_what_was_written_beside_it(case: Case) -> None:
    """Each member as written, none that must not be there; or the quarantine with the code."""
    if "sample" in case.wanted and not HAS_SAMPLES:
        pytest.skip("the sample records are not beside the repository")
    result, lines = map_record(case.mapping, case_record(case))
    if "problem" in case.wanted:
        assert [problem.code for problem in result.problems] == [case.wanted["problem"]["code"]]
        assert not lines
        return
    assert not result.problems
    wanted = case.wanted["event"]
    wanted_events = wanted if isinstance(wanted, list) else [wanted]
    for line, one in zip(lines, wanted_events, strict=True):
        shown = {name: line.get(name) for name in one}
        assert fits(line, one), json.dumps(shown, indent=1)
        assert not set(case.wanted.get("absent", [])) & set(line)


@pytest.mark.skipif(not HAS_SAMPLES, reason="the sample records are not beside the repository")
@pytest.mark.parametrize("mapping", [name for name in NAMES if load(name)["samples"]["files"]])
def test_every_sample_record_is_an_event_or_quarantined_with_a_reason(mapping: str) -> None:
    """The numbers counted by hand hold; lines are strict, and ids repeat only where the record does."""
    wanted = load(mapping)["samples"]
    counted: Counter[str] = Counter()
    contents: dict[str, bytes] = {}
    for place, record in sample_records(mapping):
        result, lines = map_record(mapping, record)
        assert lines or result.problems, place
        assert all(problem.code and problem.message and problem.record for problem in result.problems)
        counted["quarantined"] += len(result.problems)
        counted["records"] += len(lines) + len(result.problems)
        for line, event, content in zip(lines, result.events, result.contents, strict=True):
            text = json.dumps(line).encode()
            decode_line(text)
            check_strict(text, 32)
            if "id" in event.__struct_fields__ and isinstance(event.id, str):
                assert contents.setdefault(event.id, content) == content
            flags = line["ingest"].get("flags", [])
            counted["timeless"] += bool({"time_missing", "time_invalid"} & set(flags))
            counted["nameless"] += line["actor"]["id"] == "unknown"
            counted["unnamed"] += line["action"].endswith(".record")
    names = ("records", "quarantined", "timeless", "nameless", "unnamed")
    assert {name: counted[name] for name in names} == {name: wanted.get(name, 0) for name in names}
