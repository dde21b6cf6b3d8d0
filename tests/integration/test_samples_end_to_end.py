"""All real CloudTrail and GitHub records through the running server: what comes out of search is what jq expects."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from support.sample_oracle import SAMPLES, expected, observed, samples
from support.server import Server, wait_for

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample records are not beside the repository")

CONFIGURATION = """
[archive]
max_age = "1s"
[sources.trail]
type = "http"
mapping = "aws_cloudtrail"
tenant = "trail"
[sources.hub]
type = "http"
mapping = "github_audit"
tenant = "hub"
"""


def _send_all(server: Server, source: str, documents: list[bytes]) -> tuple[Counter[str], list[dict[str, Any]]]:
    counts: Counter[str] = Counter()
    quarantined: list[dict[str, Any]] = []
    for document in documents:
        answer = server.http.post(f"/v1/in/{source}", content=document, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        counts.update({name: body[name] for name in ("accepted", "duplicates", "filtered")})
        quarantined += body["quarantined"]
    return counts, quarantined


def _found(server: Server, tenant: str) -> list[dict[str, Any]]:
    """Every event of a tenant but the server's own, out of search, oldest index first."""
    params = {"tenant": tenant, "query": "NOT action:tallystick.*"}
    answer = server.http.get("/v1/export", params=params)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def _key(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


@pytest.mark.parametrize(("source", "mapping"), [("trail", "aws_cloudtrail"), ("hub", "github_audit")])
def test_every_sample_record_is_an_event_or_in_the_quarantine(
    make_server: Callable[[str], Server], source: str, mapping: str
) -> None:
    """Events and quarantined add up to the records, and every event in search has the members that jq took from the raw record."""
    server = make_server(CONFIGURATION).start()
    documents = [sample.document for sample in samples(mapping)]
    wanted = [row for rows in expected(mapping, documents) for row in rows]
    counts, quarantined = _send_all(server, source, documents)
    events = [row for row in wanted if "quarantined" not in row]
    assert counts["accepted"] + counts["duplicates"] + len(quarantined) == len(wanted)
    assert len(quarantined) == len(wanted) - len(events)
    assert len(quarantined) <= len(wanted) * 0.01
    assert all(row["code"] and row["message"] for row in quarantined)

    def is_archived() -> bool:
        row = server.status()["tenants"][source]
        return row["archived"] >= counts["accepted"]

    wait_for(is_archived, "the events to be archived")
    found = Counter(_key(observed(event)) for event in _found(server, source))
    asked = Counter(_key(row) for row in events)
    assert set(found) == set(asked)
    assert found.total() == counts["accepted"]
    assert not found - asked, "an event is there more often than its record"
    listed = server.http.get("/v1/quarantine").json()
    assert len(next(iter(listed.values()))) == len(quarantined)
