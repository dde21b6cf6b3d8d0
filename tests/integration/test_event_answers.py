"""DESIGN section 5: every form and every answer of `POST /v1/events`, from a running server."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import zstandard

from support.server import Server, wait_for
from support.target import Target, event, event_text, fresh_id, run_target
from tallystick.evidence.merkle import leaf_hashes, tree_root
from tallystick.evidence.note import vkey
from tallystick.evidence.receipt import Receipt, open_receipt, receipt_key_name
from tallystick.privacy.keys import KeyStore

SERVER_NAME = "tallystick.local"
CONFIGURATION = """
[seal]
interval = "50ms"
include_by = "10m"
[pipeline]
transforms = ["noise"]
[transforms.noise]
type = "filter"
drop = "action:health.check"
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with run_target(tmp_path_factory.mktemp("answers"), CONFIGURATION) as running:
        yield running
        running.check_ledger()


def root_of(lines: list[bytes]) -> str:
    """The RFC 6962 root over lines, computed from them alone, in base64."""
    hashes = leaf_hashes(lines)
    return base64.b64encode(tree_root([hashes[at : at + 32] for at in range(0, len(hashes), 32)])).decode()


def lines_of(target: Target, answer: dict[str, Any]) -> list[bytes]:
    """The stored lines of a request with ``results``, in its order."""
    rows = [row for row in answer["results"] if row["outcome"] in ("accepted", "duplicate")]
    return [target.server.http.get(f"/v1/events/{row['id']}").content for row in rows]


def test_one_object_without_id(target: Target) -> None:
    """The whole answer: counts, the id made here, and a receipt that the stored line leads to."""
    answer = target.accept(b'{"action":"user.login","actor":"u_1"}', media="application/json")
    receipt = answer["receipts"][0]
    assert {name: answer[name] for name in ("accepted", "duplicates", "filtered", "quarantined")} == {
        "accepted": 1,
        "duplicates": 0,
        "filtered": 0,
        "quarantined": [],
    }
    assert len(answer["ids"]) == 1
    assert set(receipt) == {"log", "ranges", "batch_root", "received_at", "durability"}
    assert receipt["durability"] == "fsynced"
    assert receipt["ranges"][0][1] == 1
    stored = target.server.http.get(f"/v1/events/{answer['ids'][0]}")
    assert receipt["batch_root"] == root_of([stored.content])
    assert stored.headers["x-tallystick-index"] == str(receipt["ranges"][0][0])
    line = stored.json()
    assert line["received_at"] == receipt["received_at"]
    assert line["actor"] == {"type": "user", "id": "u_1"}
    handle = next(row["handle"] for row in target.server.http.get("/v1/tenants").json()["tenants"] if row["name"] == "default")
    assert receipt["log"] == f"{SERVER_NAME}/log/{handle}"


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("application/json", lambda rows: json.dumps(rows)),
        ("application/json", lambda rows: json.dumps(rows, indent=2, ensure_ascii=False)),
        ("application/x-ndjson", lambda rows: "\n".join(map(json.dumps, rows))),
    ],
)
@pytest.mark.parametrize("pack", [None, gzip.compress, zstandard.compress])
def test_several_events(target: Target, media: str, body: Any, pack: Any) -> None:
    """Array and NDJSON, plain and compressed: all are stored in order, and no id is made for events that have one."""
    rows = [event(metadata={"n": number, "text": "ä\u2028"}) for number in range(5)]
    encoding = {None: {}, gzip.compress: {"Content-Encoding": "gzip"}, zstandard.compress: {"Content-Encoding": "zstd"}}[pack]
    raw = body(rows).encode()
    answer = target.accept(pack(raw) if pack else raw, media=media, headers=encoding)
    assert answer["accepted"] == 5
    assert "ids" not in answer
    assert [row["id"] for row in answer["results"]] == [row["id"] for row in rows]
    assert answer["receipts"][0]["batch_root"] == root_of(lines_of(target, answer))
    assert sum(count for _, count in answer["receipts"][0]["ranges"]) == 5


def test_results_name_line_index_and_outcome(target: Target) -> None:
    """`results=true`: one entry per event, what became of it and where it is; without it there is none."""
    first = event()
    lines = [first, first, {"id": "bad"}, event(action="health.check"), event()]
    answer = target.accept("\n".join(map(json.dumps, lines)).encode(), on_invalid="quarantine")
    assert [(row["line"], row["outcome"]) for row in answer["results"]] == [
        (1, "accepted"),
        (2, "duplicate"),
        (3, "quarantined"),
        (4, "filtered"),
        (5, "accepted"),
    ]
    assert answer["results"][0]["index"] == answer["results"][1]["index"]
    assert (answer["accepted"], answer["duplicates"], answer["filtered"], len(answer["quarantined"])) == (2, 1, 1, 1)
    plain = target.server.http.post("/v1/events", content=json.dumps(first).encode(), headers={"Content-Type": "application/json"})
    assert "results" not in plain.json()


def test_a_filtered_event_is_counted_and_not_stored(target: Target) -> None:
    """An answer may be all filtered: nothing is stored but the count."""
    answer = target.accept(json.dumps(event(action="health.check")).encode())
    assert (answer["accepted"], answer["filtered"], answer["receipts"]) == (0, 1, [])


def test_one_receipt_per_tenant(target: Target) -> None:
    """A key bound to no tenant may write to several in one request; each gets its own log's ranges."""
    rows = [event(tenant=name) for name in ("acme", "default", "acme")]
    answer = target.accept("\n".join(map(json.dumps, rows)).encode())
    assert sorted(sum(count for _, count in receipt["ranges"]) for receipt in answer["receipts"]) == [1, 2]
    assert len({receipt["log"] for receipt in answer["receipts"]}) == 2
    assert target.server.http.get(f"/v1/events/{rows[0]['id']}", params={"tenant": "default"}).status_code == 404


def signed_receipt(target: Target, body: bytes, media: str = "application/x-ndjson") -> tuple[dict[str, Any], Receipt]:
    """A request for a signed receipt, and the receipt as the server's key signed it."""
    answer = target.accept(body, media=media, receipt="signed")
    key = KeyStore.open(target.server.keys).signing_key(receipt_key_name(SERVER_NAME))
    note = answer["receipts"][0]["signed"]
    return answer, open_receipt(note, [vkey(receipt_key_name(SERVER_NAME), key.public_key())])


def test_a_signed_receipt(target: Target) -> None:
    """Binds log, ranges, both roots, time and promise; both roots can be computed from what was sent and what is stored."""
    sent = [event_text(), event_text()]
    answer, receipt = signed_receipt(target, b"\n".join(sent))
    plain = answer["receipts"][0]
    assert receipt.origin == plain["log"]
    assert [list(pair) for pair in receipt.ranges] == plain["ranges"]
    assert base64.b64encode(receipt.batch_root).decode() == plain["batch_root"] == root_of(lines_of(target, answer))
    assert receipt.received_at == plain["received_at"]
    promised = datetime.fromisoformat(receipt.include_by) - datetime.fromisoformat(receipt.received_at)
    assert promised == timedelta(minutes=10)
    assert base64.b64encode(receipt.input_root).decode() == root_of(sent)


@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson"])
def test_the_input_root_is_over_the_records_as_sent(target: Target, media: str) -> None:
    """Blanks and escapes count: a sender computes it from its own bytes, without knowing how the server compacts."""
    sent = [f'{{ "id" : "{fresh_id()}",\t"action":"a.b" , "actor": "\\u00e4" }}'.encode() for _ in range(3)]
    body = b"[" + b" , ".join(sent) + b"]" if media == "application/json" else b"\r\n".join(sent)
    _, receipt = signed_receipt(target, body, media)
    assert base64.b64encode(receipt.input_root).decode() == root_of(sent)


def test_a_receipt_leads_to_the_log(target: Target) -> None:
    """Within its promise the event's proof is there, under the log that the receipt names."""
    answer = target.accept(event_text(), media="application/json")
    proof = target.server.http.get(f"/v1/events/{answer['results'][0]['id']}/proof")
    assert proof.status_code == 200
    assert proof.text.startswith("c2sp.org/tlog-proof@v1\n")
    assert f"index {answer['receipts'][0]['ranges'][0][0]}\n" in proof.text
    assert answer["receipts"][0]["log"] in proof.text


# --- CloudEvents


def envelope(**members: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": fresh_id(), "source": "/shop", "type": "order.paid", **members}


def test_a_structured_cloud_event(target: Target) -> None:
    """The envelope fills what data leaves out."""
    sent = envelope(subject="o_5", time="2026-03-04T10:00:00Z", data={"actor": "u_9", "action": "order.paid"})
    target.accept(json.dumps(sent).encode(), media="application/cloudevents+json; charset=utf-8")
    kept = target.get(sent["id"])
    assert (kept["action"], kept["actor"]["id"], kept["occurred_at"]) == ("order.paid", "u_9", "2026-03-04T10:00:00.000000Z")
    assert kept["targets"] == [{"type": "subject", "id": "o_5"}]
    assert kept["metadata"]["cloudevents"] == {"source": "/shop"}


def test_a_batch_of_cloud_events(target: Target) -> None:
    """In order; data that is no event of ours is kept whole."""
    sent = [envelope(data={"amount": 1.50}), envelope()]
    answer = target.accept(json.dumps(sent).encode(), media="application/cloudevents-batch+json")
    assert [row["id"] for row in answer["results"]] == [item["id"] for item in sent]
    assert target.get(sent[0]["id"])["metadata"]["data"] == {"amount": 1.5}
    assert target.get(sent[1]["id"])["actor"] == {"type": "service", "id": "/shop"}
    assert target.accept(b"[]", media="application/cloudevents-batch+json")["accepted"] == 0


def test_a_binary_cloud_event(target: Target) -> None:
    """Attributes come in headers, data in the body."""
    name = fresh_id()
    headers = {"ce-specversion": "1.0", "ce-id": name, "ce-source": "/shop", "ce-type": "order.paid", "ce-region": "eu"}
    target.accept(b'{"action":"order.paid","actor":"u_9"}', media="application/json", headers=headers)
    assert target.get(name)["metadata"]["cloudevents"] == {"source": "/shop", "region": "eu"}


@pytest.mark.parametrize(
    ("body", "media", "headers"),
    [
        (json.dumps({"specversion": "0.3", "id": "1", "source": "/", "type": "a"}), "application/cloudevents+json", {}),
        (json.dumps({"specversion": "1.0", "source": "/", "type": "a"}), "application/cloudevents+json", {}),
        (json.dumps({"specversion": "1.0", "id": "1", "source": "/", "type": "a b"}), "application/cloudevents+json", {}),
        ('{"specversion":"1.0","id":"1","id":"2","source":"/","type":"a"}', "application/cloudevents+json", {}),
        ("[" * 100_000, "application/cloudevents-batch+json", {}),
        ("{}", "application/cloudevents-batch+json", {}),
        ("[1]", "application/cloudevents-batch+json", {}),
        ("", "application/cloudevents+json", {}),
        ("{}", "application/json", {"ce-specversion": "1.0"}),
        ("x", "text/plain", {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/", "ce-type": "a"}),
        ("<x/>", "application/cloudevents+xml", {}),
    ],
)
def test_malformed_cloud_events_are_refused(target: Target, body: str, media: str, headers: dict[str, str]) -> None:
    """Missing and unknown attributes, other versions and forms."""
    target.refuse(body.encode(), (400, 415, 422), media=media, headers=headers)


# --- the other answers


def test_401_and_403(target: Target) -> None:
    """No key, a key without `ingest`, another tenant than the key's: nothing is stored."""
    http = target.server.http
    reader = http.post("/v1/keys", json={"owner": "r", "permissions": ["read"]}).json()["secret"]
    bound = http.post("/v1/keys", json={"owner": "b", "permissions": ["ingest"], "tenants": ["acme"]}).json()["secret"]
    media = {"Content-Type": "application/json"}
    cases = [("", 401), (f"Bearer {reader}", 403)]
    with target.unchanged():
        for value, status in cases:
            assert http.post("/v1/events", content=event_text(), headers={**media, "Authorization": value}).status_code == status
        theirs = http.post(
            "/v1/events", content=event_text(tenant="default"), headers={**media, "Authorization": f"Bearer {bound}"}
        )
        assert (theirs.status_code, theirs.json()["code"]) == (403, "tenant_forbidden")


def test_what_is_no_key_is_401_and_on_record_alone(target: Target) -> None:
    """Another scheme, no such key: nothing is stored but the failed login itself, in the server's own log."""
    with target.unchanged_but_for_its_own():
        for value in ("Basic eDp5", "Bearer ts_nobody_" + "0" * 43):
            headers = {"Content-Type": "application/json", "Authorization": value}
            assert target.server.http.post("/v1/events", content=event_text(), headers=headers).status_code == 401


def test_a_bound_key_writes_to_its_tenant(target: Target) -> None:
    """The tenant comes from the credential alone; the event is stamped with the credential's id."""
    made = target.server.http.post("/v1/keys", json={"owner": "b", "permissions": ["ingest"], "tenants": ["acme"]}).json()
    answer = target.accept(event_text(), headers={"Authorization": f"Bearer {made['secret']}", "X-Scope-OrgID": "default"})
    stored = target.server.http.get(f"/v1/events/{answer['results'][0]['id']}", params={"tenant": "acme"}).json()
    assert stored["tenant"] == "acme"
    assert stored["source"]["credential"] == made["id"]


def test_503_when_the_disk_is_full(make_server: Any) -> None:
    """`disk_full` with Retry-After, nothing stored, and readiness says the same; reading goes on."""
    server: Server = make_server('[data]\nquota = "1KiB"\n')
    server.start(wait=False)
    target = Target(server)
    wait_for(lambda: _is_up(server), "the server to listen")
    answer = target.post(event_text())
    assert (answer.status_code, answer.json()["code"]) == (503, "disk_full")
    assert int(answer.headers["retry-after"]) >= 1
    assert server.http.get("/healthz/ready").status_code == 503
    assert server.http.get("/healthz/live").status_code == 200
    assert server.status()["ready"] is False


def _is_up(server: Server) -> bool:
    try:
        return server.http.get("/v1/limits").status_code == 200
    except httpx.TransportError:
        return False
