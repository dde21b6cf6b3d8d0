"""RELIABILITY "Hostile inputs", search: queries, ranges and limits meant to hurt, on every door that takes a query."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from support.target import Target, event, event_text, run_target

DOORS = ("/v1/events", "/v1/histogram", "/v1/facets", "/v1/export")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with run_target(tmp_path_factory.mktemp("queries")) as running:
        running.accept(b"\n".join(event_text(reason="a" * 2_000, metadata={"k": "a" * 20_000}) for _ in range(200)))
        yield running


@pytest.mark.parametrize(
    "query",
    [
        "' OR 1=1--", '"\'; DROP TABLE events; --"', "reason:(a+)+$", "/(a+)+$/", "reason:/(a+)+$/", '"(a+)+$"', "reason:" + "a*" * 100 + "b",
        "*" * 500, "(" * 5_000, "NOT " * 1_000 + "a", "a OR " * 1_500 + "a", "x" * 8_000, "x" * 20_000, "actor.__class__:x", "metadata.__proto__:x",
        "{{7*7}}", "${jndi:ldap://x}", "a\x00b", "\x00", "\u202e", "\ud7ff\ue000", '"\\', "action:", ":", "AND", "ip:10.0.0.0/99", "ip:::/0",
        "severity:[1 TO", "severity:[z TO a]", "occurred_at:[* TO *]", "metadata.k:*", "nofield:x", "action:a^2", "a~2", "+a -b", "event.line:x",
    ],
)  # fmt: skip
def test_queries_are_answered_or_refused(target: Target, query: str) -> None:
    """200, or 400 with the place and a hint; in seconds; and an answer is never more than what matches."""
    for door in DOORS:
        started = time.monotonic()
        answer = target.server.http.get(door, params={"query": query})
        assert answer.status_code in (200, 400), (door, answer.text[:300])
        assert time.monotonic() - started < 5
        if answer.status_code == 400:
            problem = answer.json()
            assert problem["code"] in ("query_invalid", "parameter_invalid")
            assert problem["errors"][0]["pointer"] == "?query"
            assert "duckdb" not in answer.text.lower()
            assert "luqum" not in answer.text.lower()


def test_injection_matches_nothing(target: Target) -> None:
    """Text that would be always true in SQL is only text."""
    for query in ('"\' OR 1=1--"', "actor.id:\"x' OR '1'='1\"", '"%"', 'actor.id:"%"', 'actor.id:"_____"'):
        answer = target.server.http.get("/v1/events", params={"query": f"{query} NOT action:tallystick.*"})
        assert answer.json()["events"] == [], query


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"limit": "1000000000"}, 200),
        ({"limit": "0"}, 400),
        ({"limit": "-1"}, 400),
        ({"limit": "ten"}, 400),
        ({"limit": "99999999999999999999999"}, 400),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, 400),
        ({"from": "yesterday"}, 400),
        ({"from": "-99999999999999h"}, 400),
        ({"from": "-999999999w"}, 400),
        ({"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T23:59:59Z"}, 200),
        ({"from": "0001-01-01T00:00:00+23:59"}, 400),
        ({"from": "2026-02-30T00:00:00Z"}, 400),
        ({"from": "2026-01-01T00:00:00"}, 400),
        ({"time": "created_at"}, 400),
        ({"order": "random"}, 400),
        ({"cursor": "x"}, 400),
        ({"cursor": "A" * 60_000}, (400, 414, 431)),
        ({"nope": "1"}, 400),
        ({"query": "a", "Query": "b"}, 400),
    ],
)
def test_parameters_out_of_bounds(target: Target, params: dict[str, str], status: int | tuple[int, ...]) -> None:
    """Refused with the parameter's name, or capped; never an error of ours."""
    answer = target.server.http.get("/v1/events", params=params)
    assert answer.status_code in ((status,) if isinstance(status, int) else status), answer.text[:300]
    if answer.status_code == 400:
        assert answer.json()["errors"][0]["pointer"].startswith("?")


@pytest.mark.parametrize("params", [{"buckets": "0"}, {"buckets": "1000000"}, {"buckets": "x"}])
def test_buckets_out_of_bounds(target: Target, params: dict[str, str]) -> None:
    """The histogram's size is bounded."""
    assert target.server.http.get("/v1/histogram", params=params).status_code == 400


@pytest.mark.parametrize("fields", ["nope", "__class__", "action; DROP TABLE x", '"', ",".join(["action"] * 500), "", "metadata.k"])
def test_fields_that_are_none(target: Target, fields: str) -> None:
    """Facets are over listed fields only."""
    assert target.server.http.get("/v1/facets", params={"fields": fields}).status_code in (200, 400)


@pytest.mark.parametrize("name", ["%00", "a%00b", "..", "a" * 1_000, "'--", "%F0%9F%98%80", "a b", "%22"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/events/{}",
        "/v1/events/{}/proof",
        "/v1/events/{}/explain",
        "/v1/dead-letters/{}",
        "/v1/quarantine/{}",
        "/log/{}/checkpoint",
    ],
)
def test_ids_that_are_none(target: Target, path: str, name: str) -> None:
    """400 or 404."""
    assert target.server.http.get(path.format(name)).status_code in (400, 404)


@pytest.mark.parametrize("tile", ["0/001", "-1/000", "64/000", "0/x001/000", "0/x1/1", "0/000.p/0", "0/000.p/256", "0/000.p/1.p/1", "entries/000.p/999", "entries/x", "0/" + "x999/" * 50 + "999"])  # fmt: skip
def test_tiles_that_are_none(target: Target, tile: str) -> None:
    """A malformed or not yet existing tile is 400 or 404."""
    handle = target.server.http.get("/v1/tenants").json()["tenants"][0]["handle"]
    for log in (handle, f"{handle}/account", "root"):
        assert target.server.http.get(f"/log/{log}/tile/{tile}").status_code in (400, 404)


def test_searches_are_on_record_whatever_was_searched_for(target: Target) -> None:
    """Promise P12 holds for a query that no event could hold as it is."""
    for query in ('"a\x00b"', "(("):
        assert target.server.http.get("/v1/events", params={"query": query, "tenant": "default"}).status_code == 400
    params = {"query": "action:tallystick.search", "limit": "3", "tenant": "default"}
    found = target.server.http.get("/v1/events", params=params).json()["events"]
    assert [row["metadata"]["query"] for row in found] == [params["query"], "((", '"a\ufffdb"']


def test_csv_runs_no_formula(target: Target) -> None:
    """Cells that a spreadsheet would take for formulas begin with an apostrophe (CWE-1236)."""
    for text in ("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"):
        sent = event(actor={"type": "user", "id": text}, reason=text)
        target.accept(json.dumps(sent).encode())
        lines = target.server.http.get("/v1/export", params={"query": f"id:{sent['id']}", "format": "csv"}).text
        assert "'" + text[:2] in lines
        assert f",{text[:2]}" not in lines


def test_histograms_reach_from_the_first_year_to_the_last(target: Target) -> None:
    """Events that claim the ends of the calendar, with every width of bucket: each is counted once."""
    name = "histogram.me"
    claims = ("0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "3303-04-05T06:07:08.123456Z", "9999-12-31T23:59:59.999999Z")
    target.accept(b"\n".join(event_text(action=name, occurred_at=claim) for claim in claims))
    for buckets in (1, 2, 7, 60, 1_000):
        page = target.server.http.get("/v1/histogram", params={"query": f"action:{name}", "buckets": str(buckets)}).json()
        assert page["total"] == sum(bucket["count"] for bucket in page["buckets"]) == len(claims)
        assert [bucket["at"] for bucket in page["buckets"]] == sorted(bucket["at"] for bucket in page["buckets"])
    ranged = {"query": f"action:{name}", "from": "0001-01-01T00:00:00Z", "to": "9999-12-31T23:59:59Z"}
    assert target.server.http.get("/v1/histogram", params=ranged).json()["total"] == len(claims) - 1
    for path, more in (
        ("/v1/facets", {}),
        ("/v1/events", {}),
        ("/v1/export", {"format": "csv"}),
        ("/v1/export", {"format": "parquet"}),
    ):
        assert target.server.http.get(path, params=ranged | more).status_code == 200
