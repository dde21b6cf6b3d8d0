"""Reading events over HTTP."""

from __future__ import annotations

import hashlib
import json

import pytest

from support.api_rig import Rig, event
from tallystick.evidence.merkle import leaf_hash
from tallystick.evidence.origin import event_origin
from tallystick.evidence.proof import check_proof, parse_proof


async def test_search_gives_the_canonical_lines(rig: Rig) -> None:
    """What search, GET and export return is the same line, byte for byte."""
    await rig.send("acme", [event(1), event(2, action="role.grant", outcome="denied")])
    async with rig.client() as client:
        answer = await client.get("/v1/events", params={"query": "action:role.*", "tenant": "acme"})
        line = await client.get("/v1/events/e2", params={"tenant": "acme"})
        export = await client.get("/v1/export", params={"query": "action:role.*", "tenant": "acme"})
    assert answer.status_code == 200, answer.text
    assert line.content in answer.content
    assert export.content == line.content + b"\n"
    assert json.loads(line.content)["actor"]["id"] == "u_2"
    assert answer.json()["next"] is None


async def test_pages_of_one_cursor_see_one_snapshot(rig: Rig) -> None:
    """Events that arrive between two pages, the search's own audit event among them, do not shift the second page."""
    await rig.send("acme", [event(number) for number in range(5)])
    seen: list[str] = []
    cursor = None
    async with rig.client() as client:
        while True:
            params = {"tenant": "acme", "limit": 2, "query": "action:user.login"} | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/v1/events", params=params)).json()
            seen += [item["id"] for item in page["events"]]
            await rig.send("acme", [event(100 + len(seen))])
            cursor = page["next"]
            if cursor is None:
                break
    assert seen == ["e4", "e3", "e2", "e1", "e0"]


async def test_a_search_is_an_event_before_it_is_answered(rig: Rig) -> None:
    """The audit event of a search names who asked what, and lies in the tenant's own log."""
    await rig.send("acme", [event(1)])
    async with rig.client() as client:
        await client.get("/v1/events", params={"query": "outcome:denied", "tenant": "acme"})
        found = (await client.get("/v1/events", params={"query": "action:tallystick.search", "tenant": "acme"})).json()
    assert found["events"][-1]["metadata"]["query"] == "outcome:denied"
    assert found["events"][-1]["actor"]["id"] == "root"


@pytest.mark.parametrize("path", ["/v1/events", "/v1/histogram", "/v1/facets", "/v1/export", "/v1/events/e1", "/v1/tail"])
async def test_without_its_audit_event_nothing_is_answered(rig: Rig, path: str) -> None:
    """When the intake does not take the audit event, the answer is 503 and holds nothing of the events."""
    await rig.send("acme", [event(1)])
    rig.door.is_down = True
    async with rig.client() as client:
        answer = await client.get(path, params={"tenant": "acme"})
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "u_1" not in answer.text


async def test_histogram_and_facets_count_what_search_finds(rig: Rig) -> None:
    """Their totals agree with the search."""
    await rig.send("acme", [event(1), event(2, outcome="denied"), event(3, outcome="denied")])
    async with rig.client() as client:
        params = {"query": "action:user.login", "tenant": "acme"}
        histogram = (await client.get("/v1/histogram", params=params)).json()
        facets = (await client.get("/v1/facets", params=params)).json()
    assert histogram["total"] == facets["total"] == 3
    assert sum(bucket["outcomes"].get("denied", 0) for bucket in histogram["buckets"]) == 2
    assert facets["facets"]["outcome"][0] == {"value": "denied", "count": 2}


async def test_the_proof_leads_to_the_signed_checkpoint(rig: Rig) -> None:
    """The proof of an event checks with its line and the log's public key, and with no other line."""
    await rig.send("acme", [event(number) for number in range(7)])
    async with rig.client() as client:
        line = (await client.get("/v1/events/e3", params={"tenant": "acme"})).content
        text = (await client.get("/v1/events/e3/proof", params={"tenant": "acme"})).text
    tenant = rig.deps.tenants.get("acme")
    assert tenant is not None
    key = rig.deps.vkey(event_origin("audit.example.com", tenant.handle))
    assert check_proof(parse_proof(text), leaf_hash(line), [key]).size >= 7
    with pytest.raises(Exception, match="root"):
        check_proof(parse_proof(text), hashlib.sha256(b"other").digest(), [key])


async def test_explain_says_where_the_event_is(rig: Rig) -> None:
    """The answer joins the log's side with what the dispatcher says."""
    rig.answers["explain"] = {"disk": {"outcome": "delivered", "where": "out/events.jsonl", "at": "2026-01-01T00:00:00Z"}}
    await rig.send("acme", [event(1)])
    async with rig.client() as client:
        answer = (await client.get("/v1/events/e1/explain", params={"tenant": "acme"})).json()
    assert answer["sealed"] is True
    assert answer["index"] == 0
    assert answer["destinations"]["disk"]["outcome"] == "delivered"


async def test_csv_and_parquet_exports(rig: Rig) -> None:
    """A formula in a field is harmless in CSV; Parquet begins and ends with its magic."""
    await rig.send("acme", [event(1, reason="=cmd|' /C calc'!A0", actor={"type": "user", "id": "=1+1"})])
    async with rig.client() as client:
        table = await client.get("/v1/export", params={"tenant": "acme", "format": "csv"})
        parquet = await client.get("/v1/export", params={"tenant": "acme", "format": "parquet"})
    assert "'=1+1" in table.text
    assert parquet.content[:4] == parquet.content[-4:] == b"PAR1"
    assert rig.deps.open_exports == 0


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"from": "yesterday"}, "from"),
        ({"from": "-1h", "to": "-2h"}, "from"),
        ({"time": "seq"}, "time"),
        ({"colour": "red"}, "colour"),
        ({"query": "("}, "query"),
        ({"query": "x" * 20_000}, "query"),
        ({"query": "nosuchfield:1"}, "query"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"order": "sideways"}, "order"),
        ({"from": "-999999999w"}, "from"),
    ],
)
async def test_bad_parameters_are_named(rig: Rig, params: dict[str, str], word: str) -> None:
    """A parameter that is not understood is a 400 that names it, never ignored and never a 5xx."""
    async with rig.client() as client:
        answer = await client.get("/v1/events", params={"tenant": "acme", **params})
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert word in answer.text
    assert answer.json()["request_id"]


async def test_a_repeated_parameter_is_refused(rig: Rig) -> None:
    """Two values for one parameter have no meaning here."""
    async with rig.client() as client:
        answer = await client.get("/v1/events?tenant=acme&tenant=globex")
    assert answer.status_code == 400


async def test_a_huge_limit_is_capped(rig: Rig) -> None:
    """A limit beyond the configured page size gives a page of that size."""
    await rig.send("acme", [event(1)])
    async with rig.client() as client:
        answer = await client.get("/v1/events", params={"tenant": "acme", "limit": 1_000_000_000})
    assert answer.status_code == 200
