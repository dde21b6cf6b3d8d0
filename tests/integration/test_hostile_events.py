"""RELIABILITY "Hostile inputs", events: bad lines among good ones, ids used twice, times, tenants and fields that cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.target import Target, event, event_text, fresh_id, run_target


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with run_target(tmp_path_factory.mktemp("hostile")) as running:
        yield running
        running.check_ledger()


def test_one_bad_line_in_a_thousand_refuses_all(target: Target) -> None:
    """Default: 422, every bad line named, nothing stored."""
    lines = [event_text() for _ in range(1_000)]
    lines[499] = b'{"id":"bad","actor":"u"}'
    problem = target.refuse(b"\n".join(lines), 422)
    assert [(row["line"], row["pointer"], row["code"]) for row in problem["errors"]] == [(500, "/action", "field_missing")]
    lines[9], lines[99] = b"{", b'{"id":"bad","action":"a.b","actor":"u","nope":1}'
    problem = target.refuse(b"\n".join(lines), 422)
    assert [row["line"] for row in problem["errors"]] == [10, 100, 500]


def test_one_bad_line_in_a_thousand_goes_to_quarantine(target: Target) -> None:
    """`on_invalid=quarantine`: 999 stored, one kept aside, named in the answer and readable."""
    lines = [event_text() for _ in range(1_000)]
    lines[499] = b'{"id":"bad","actor":"kept-aside"}'
    answer = target.accept(b"\n".join(lines), on_invalid="quarantine")
    assert answer["accepted"] == 999
    assert [(row["line"], row["code"]) for row in answer["quarantined"]] == [(500, "field_missing")]
    outcomes = [row["outcome"] for row in answer["results"]]
    assert (outcomes.count("accepted"), outcomes[499]) == (999, "quarantined")
    target.server.drain(0)
    rows = target.server.http.get("/v1/quarantine", params={"limit": "1000"}).json()["records"]
    kept = target.server.http.get(f"/v1/quarantine/{rows[-1]['id']}").json()
    assert kept["data"] == lines[499].decode()


def test_a_full_retry_gets_equal_positions(target: Target) -> None:
    """Same idempotency key, same body: equal ranges and root, nothing stored twice; other body: 409, nothing stored."""
    key = fresh_id()
    body = b'{"action":"a.b","actor":"u_1"}\n{"action":"a.c","actor":"u_1"}\n'
    headers = {"Idempotency-Key": key}
    first = target.accept(body, headers=headers)
    with target.unchanged():
        again = target.accept(body, headers=headers)
    assert [row["id"] for row in first["results"]] == [f"{key}:1", f"{key}:2"]
    assert (first["accepted"], again["accepted"], again["duplicates"]) == (2, 0, 2)
    assert [again["receipts"][0][name] for name in ("log", "ranges", "batch_root")] == [
        first["receipts"][0][name] for name in ("log", "ranges", "batch_root")
    ]
    with target.unchanged():
        other = target.post(body.replace(b"a.c", b"a.d"), headers=headers)
    assert other.status_code == 409
    assert other.json()["code"] == "id_conflict"
    assert [row["line"] for row in other.json()["errors"]] == [2]


def test_an_id_with_other_content(target: Target) -> None:
    """Reject mode 409; quarantine mode keeps the newcomer aside; within one request it is the same."""
    first = event()
    other = {**first, "reason": "another"}
    target.accept(json.dumps(first).encode())
    assert target.refuse(json.dumps(other).encode(), 409)["errors"][0]["line"] == 1
    answer = target.accept(json.dumps(other).encode(), on_invalid="quarantine")
    assert (answer["accepted"], answer["quarantined"][0]["code"]) == (0, "id_conflict")
    both = event()
    target.refuse(b"\n".join(json.dumps(item).encode() for item in (both, {**both, "reason": "x"})), 409)
    twice = json.dumps(event()).encode()
    answer = target.accept(twice + b"\n" + twice)
    assert (answer["accepted"], answer["duplicates"]) == (1, 1)


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 200, "a/b", 'a"b', "a\tb"])
def test_malformed_idempotency_keys_are_400(target: Target, key: str) -> None:
    """A key that cannot be part of an id is refused, never cut; an empty one is none."""
    with target.unchanged():
        answer = target.server.http.post(
            "/v1/events",
            content=b"[]",
            headers=[(b"content-type", b"application/json"), (b"idempotency-key", key.encode("latin-1"))],
        )
    assert answer.status_code == (200 if not key else 400)


@pytest.mark.parametrize(
    ("claimed", "occurred_at", "flag"),
    [
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z", "time_implausible"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z", "time_implausible"),
        ("2099-01-01T00:00:00Z", "2099-01-01T00:00:00.000000Z", "time_implausible"),
        ("2024-02-30T00:00:00Z", None, "time_invalid"),
        ("2024-01-01T25:00:00Z", None, "time_invalid"),
        ("2024-01-01T00:00:00", "2024-01-01T00:00:00.000000Z", "time_zone_missing"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999Z", "time_leap_second"),
        ("2024-01-01T00:00:00+23:59", "2023-12-31T00:01:00.000000Z", None),
        ("2024-01-01T00:00:00.123456789Z", "2024-01-01T00:00:00.123456Z", None),
    ],
)
def test_implausible_times_are_kept_and_flagged(target: Target, claimed: str, occurred_at: str | None, flag: str | None) -> None:
    """What the sender claims is data; `received_at` is ours."""
    sent = event(occurred_at=claimed)
    target.accept(json.dumps(sent).encode())
    kept = target.get(sent["id"])
    assert kept["occurred_at"] == (occurred_at or kept["received_at"])
    assert (flag in kept["ingest"].get("flags", [])) if flag else "flags" not in kept["ingest"]


@pytest.mark.parametrize(
    "claimed", ["-1", "1e18", "", "yesterday", "10000000000000000-01-01", 0, -1, 1e18, None, "2024-01-01T00:00:00Z\n"]
)
def test_what_is_no_time_is_refused(target: Target, claimed: Any) -> None:
    """422 with the pointer."""
    assert target.refuse(json.dumps(event(occurred_at=claimed)).encode(), 422)["errors"][0]["pointer"] == "/occurred_at"


@pytest.mark.parametrize(
    "name",
    ["../../x", "a/b", ".", "..", "", "x\n", "CON", "%2e%2e", "a" * 300, "\u0430dmin", "-a", "_a", "A", "a b", "a\x00", None, 1],
)
def test_malformed_tenants_are_refused(target: Target, name: Any) -> None:
    """In an event, and as a parameter of every reading call: never created, never a path."""
    with target.unchanged():
        answer = target.post(json.dumps(event(tenant=name)).encode())
        assert answer.status_code in (400, 403, 422)
        if name is not None:
            for path in ("/v1/events", "/v1/facets", "/v1/export", "/v1/quarantine"):
                read = target.server.http.get(path, params={"tenant": str(name)})
                assert read.status_code in (400, 404), (path, read.text)
        made = target.server.http.post("/v1/tenants", json={"name": name})
        assert made.status_code in (400, 422)


def test_server_fields_cannot_be_claimed(target: Target) -> None:
    """What only the server sets is refused from a sender, also when the value is plausible."""
    for name, value in {"v": 1, "received_at": "2024-01-01T00:00:00Z", "source": {"name": "x", "type": "y"}, "ingest": {"flags": []},
                        "raw": "x", "sealed": [], "enrichment": {}}.items():  # fmt: skip
        problem = target.refuse(json.dumps(event(**{name: value})).encode(), 422)
        assert (problem["errors"][0]["pointer"], problem["errors"][0]["code"]) == (f"/{name}", "key_unknown")


@pytest.mark.parametrize(
    "parameters", ["on_invalid=drop", "results=maybe", "receipt=none", "nope=1", "results=true&results=true", "on_invalid="]
)
def test_unknown_parameters_are_400(target: Target, parameters: str) -> None:
    """A misspelt parameter never silently means the default."""
    with target.unchanged():
        answer = target.server.http.post(
            f"/v1/events?{parameters}", content=event_text(), headers={"Content-Type": "application/json"}
        )
    assert answer.status_code == 400
