"""The benchmarks' own judgement and pictures; what they measure is measured by running them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from bench import plots
from bench.load import dense_ndjson, ndjson
from bench.machine import Machine
from bench.peers import otlp_request
from bench.run import Run
from bench.table import Row, least, most
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest


@pytest.mark.parametrize(
    ("value", "reached"),
    [(9.0, "NOT MET"), (8.0, "met"), (5.0, "aim met"), (None, "not measured")],
)
def test_a_row_says_what_it_reached(value: float | None, reached: str) -> None:
    """At the bound counts as reached; without a value nothing is claimed; without a bound nothing is judged."""
    assert Row("cpu", "CPU", "", value, must=most(8), aim=most(5)).reached == reached
    assert Row("rate", "rate", "", value, must=least(8), aim=least(5)).reached == {
        9.0: "aim met",
        8.0: "aim met",
        5.0: "NOT MET",
    }.get(value or 0, "not measured")
    assert Row("rate", "rate", "", value).reached == ""


def test_the_peers_are_given_the_same_events() -> None:
    """The collector's request holds each line as one log record, as its own parser reads it."""
    body = ndjson(300)
    request = ExportLogsServiceRequest.FromString(otlp_request(body))
    records = [record for part in request.resource_logs for scope in part.scope_logs for record in scope.log_records]
    assert [record.body.string_value.encode() for record in records] == body.split(b"\n")
    assert all(record.time_unix_nano for record in records)


def test_events_have_the_size_that_is_claimed() -> None:
    """Ordinary and dense events are about 540 bytes; dense ones are all different."""
    for body in (ndjson(1_000), dense_ndjson(1_000, 1)):
        assert 500 < len(body) / 1_000 < 580
    assert len(set(dense_ndjson(1_000, 1).split(b"\n")) | set(dense_ndjson(1_000, 2).split(b"\n"))) == 2_000


def test_a_failing_scenario_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    """Its row says why, the results are written, and the next scenario runs."""
    run = _run(tmp_path)

    def broken(_run: Run) -> None:
        raise OSError("no disk")

    run.attempt("broken", broken)
    run.attempt("good", lambda run: run.add(Row("good", "good", "1", 1.0)))
    written = json.loads(run.results_path.read_text())
    assert run.failed == ["broken"]
    assert ["no disk" in row["measured"] for row in written["rows"]] == [True, False]


def test_every_picture_can_be_drawn_twice_the_same(tmp_path: Path) -> None:
    """Results with all series give all pictures, byte for byte the same each time; a run of one scenario gives its own."""
    results = _results(tmp_path)
    names = plots.draw(results, tmp_path / "one")
    assert names == list(plots.PICTURES)
    plots.draw(results, tmp_path / "two")
    for name in names:
        drawn = (tmp_path / "one" / f"{name}.svg").read_bytes()
        assert drawn.startswith(b"<?xml")
        assert drawn == (tmp_path / "two" / f"{name}.svg").read_bytes()
    results["series"] = {"sweep": results["series"]["sweep"]}
    results["rows"] = []
    assert plots.draw(results, tmp_path / "few") == ["batch-size", "connections"]


def test_the_section_has_every_row_and_picture(tmp_path: Path) -> None:
    """The table has one line for each row with its bounds, and a bar in a text does not break it."""
    results = _results(tmp_path)
    text = plots.section(results, ["peers"])
    assert "| batches | 100 \\| 200/s | beside | ≥ 140,000 |  | NOT MET |" in text
    assert "![Batches of 1,000 beside the peers of the same run](pictures/performance/peers.svg)" in text


def _run(directory: Path) -> Run:
    machine = Machine(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    return Run(directory, machine, 1, 1, 1, 1, 1, 1, directory / "results.json")


def _results(directory: Path) -> plots.Results:
    run = _run(directory)
    found = {
        "Peer": {"version": "1", "events_s": 50.0, "told": "x"},
        "Other": {"version": "", "events_s": None, "told": "not built"},
    }
    run.add(Row("batches-1", "batches", "100 | 200/s", 100.0, "beside", least(140_000), None, "1,000 events", {"peers": found}))
    run.series = {
        "sweep": [
            {"batch": b, "connections": c, "events_s": 10.0 * b, "p50_ms": 1.0, "p99_ms": 2.0} for b in (1, 10) for c in (1, 8)
        ],
        "shares": {"check": 1.0, "the rest: all": 2.0},
        "sustained": [{"s": s, "accepted": 9, "sealed": 8, "archived": 7, "pending": 1, "memory_mib": 300.0} for s in (1, 2)],
        "backlog": [{"gb": gb, "total_mib": 300.0, "intake_mib": 100.0, "ready_s": 1.0} for gb in (1, 2)],
        "drain": [{"s": s, "sealed": 1, "archived": 1, "pending": 1} for s in (1, 2)],
    }
    run.save()
    assert json.loads(run.results_path.read_text())["machine"]["sync_p50_ms"] == asdict(run.machine)["sync_p50_ms"]
    results: plots.Results = json.loads(run.results_path.read_text())
    return results
