"""The way in, over a real journal: modes, tenants, ids, duplicates, filters, redaction, receipts."""

from __future__ import annotations

import asyncio
import base64
from hashlib import sha256
from pathlib import Path

import pytest

from tallystick.config import load_config
from tallystick.errors import NotFoundError
from tallystick.evidence.receipt import batch_root, input_root, open_receipt
from tallystick.journal.frame import FrameType
from tallystick.query.evaluate import compile_query
from tallystick.sources.plan import build_plans

from .conftest import SERVER, Rig, event, ndjson


async def test_reject_mode_stores_nothing_and_names_every_bad_line(rig: Rig) -> None:
    """One bad line in the middle refuses the request, with its number and pointer."""
    answer = await rig.call(body=ndjson(event(), event(outcome="maybe"), event(), {"action": "a.b"}))
    assert answer.status == 422
    assert [(error["line"], error["pointer"]) for error in answer.json()["errors"]] == [(2, "/outcome"), (4, "/actor")]
    assert rig.frames(FrameType.EVENTS) == []


async def test_quarantine_mode_stores_the_good_and_keeps_the_bad(rig: Rig) -> None:
    """Good lines are events, bad ones are in the quarantine as sent, and the answer names them."""
    body = ndjson(event(id="a"), event(outcome="maybe"), event(id="c"))
    answer = await rig.accept("/v1/events?on_invalid=quarantine", body)
    assert answer["accepted"] == 2
    assert [(bad["line"], bad["pointer"]) for bad in answer["quarantined"]] == [(2, "/outcome")]
    (record,) = rig.records(FrameType.QUARANTINED)
    assert base64.b64decode(record["data"]) == body.split(b"\n")[1]
    assert (record["line"], record["tenant"], record["source"]) == (2, "default", "events")


async def test_a_bound_key_writes_to_its_tenant(rig: Rig) -> None:
    """Without a tenant in the event it is the key's; naming another is 403, and nothing is stored."""
    secret = rig.secret_for("acme")
    await rig.accept(body=ndjson(event()), secret=secret)
    assert [found["tenant"] for found in rig.events("acme")] == ["acme"]
    answer = await rig.call(body=ndjson(event(), event(tenant="globex")), secret=secret)
    assert (answer.status, answer.json()["code"]) == (403, "tenant_forbidden")
    assert "globex" in answer.json()["detail"]
    assert rig.service.tenants.get("globex") is None
    assert len(rig.events("acme")) == 1


async def test_a_key_of_several_tenants_names_one_in_every_event(rig: Rig) -> None:
    """There is no guessing which of its tenants is meant, and the refusal says so."""
    secret = rig.secret_for("acme", "globex")
    await rig.accept(body=ndjson(event(tenant="acme"), event(tenant="globex")), secret=secret)
    answer = await rig.call(body=ndjson(event()), secret=secret)
    assert answer.status == 403
    assert "acme, globex" in answer.json()["detail"]


async def test_an_unbound_key_writes_to_default_or_where_it_says(rig: Rig) -> None:
    """One request may hold events of several tenants; each gets a receipt of its own, in its own tree."""
    body = ndjson(event(tenant="acme"), event(), event(tenant="acme"))
    answer = await rig.accept(body=body)
    assert answer["accepted"] == 3
    by_log = {receipt["log"]: receipt["ranges"] for receipt in answer["receipts"]}
    handles = {name: rig.service.tenants.create(name).handle for name in ("acme", "default")}
    assert by_log == {f"{SERVER}/log/{handles['acme']}": [[0, 2]], f"{SERVER}/log/{handles['default']}": [[0, 1]]}


async def test_made_ids_come_in_the_order_of_the_request(rig: Rig) -> None:
    """Over several tenants and beside ids of the sender, the n-th made id is that of the n-th event without one."""
    answer = await rig.accept(
        body=ndjson(
            event(tenant="b", reason="0"), event(tenant="a", reason="1"), event(tenant="b", id="own"), event(tenant="b", reason="3")
        )
    )
    stored = {found.get("reason"): found["id"] for name in ("a", "b") for found in rig.events(name)}
    assert answer["ids"] == [stored["0"], stored["1"], stored["3"]]


async def test_no_ids_are_answered_when_the_sender_named_all(rig: Rig) -> None:
    """The member is left out where it would say nothing."""
    assert "ids" not in await rig.accept(body=ndjson(event(id="a")))


async def test_an_idempotency_key_makes_a_repeat_the_same_events(rig: Rig) -> None:
    """Events without an id get `K:<n>`; sending it again stores nothing and is answered with the first places."""
    body = ndjson(event(), event(id="own"), event())
    first = await rig.accept(body=body, headers=[("idempotency-key", "job-7")])
    again = await rig.accept(body=body, headers=[("idempotency-key", "job-7")])
    assert [found["id"] for found in rig.events()] == ["job-7:1", "own", "job-7:3"]
    assert (again["accepted"], again["duplicates"]) == (0, 3)
    for member in ("log", "ranges", "batch_root"):
        assert again["receipts"][0][member] == first["receipts"][0][member]


async def test_a_retry_with_news_keeps_order_and_places(rig: Rig) -> None:
    """Duplicates stand with their first position among the new ones, and the root is over all of them."""
    await rig.accept(body=ndjson(*(event(id=name) for name in "abc")))
    answer = await rig.accept("/v1/events?results=true", ndjson(event(id="x"), event(id="b"), event(id="c"), event(id="x")))
    assert (answer["accepted"], answer["duplicates"]) == (1, 3)
    assert answer["receipts"][0]["ranges"] == [[3, 1], [1, 3]]
    assert [(row["outcome"], row["id"], row["index"]) for row in answer["results"]] == [
        ("accepted", "x", 3),
        ("duplicate", "b", 1),
        ("duplicate", "c", 2),
        ("duplicate", "x", 3),
    ]


async def test_concurrent_repeats_are_stored_once(rig: Rig) -> None:
    """Eight equal requests at the same time: one is accepted, seven are told where."""
    answers = await asyncio.gather(*(rig.accept(body=ndjson(event(id="one"))) for _ in range(8)))
    assert sorted(answer["accepted"] for answer in answers) == [0] * 7 + [1]
    assert {tuple(answer["receipts"][0]["ranges"][0]) for answer in answers} == {(0, 1)}


async def test_other_content_under_a_known_id_is_409_with_its_line(rig: Rig) -> None:
    """With several tenants in one request, lines are those of the request, not of a tenant's part; nothing is stored."""
    await rig.accept(body=ndjson(event(tenant="a", id="x"), event(tenant="b", id="y")))
    body = ndjson(
        event(tenant="b", id="new"),
        event(tenant="a", id="new"),
        event(tenant="a", id="x", reason="other"),
        event(tenant="b", id="new2"),
        event(tenant="b", id="y", reason="other"),
    )
    answer = await rig.call(body=body)
    assert (answer.status, answer.json()["code"]) == (409, "id_conflict")
    assert [error["line"] for error in answer.json()["errors"]] == [3, 5]
    assert [len(rig.events(name)) for name in ("a", "b")] == [1, 1]


async def test_conflicts_are_quarantined_as_sent_with_their_line_and_tenant(rig: Rig) -> None:
    """Quarantine mode keeps the record for its tenant, so that it can be looked at and sent in again."""
    await rig.accept(body=ndjson(event(tenant="a", id="x")))
    body = ndjson(event(tenant="b", id="n"), event(tenant="a", id="m"), event(tenant="a", id="x", reason="other"))
    answer = await rig.accept("/v1/events?on_invalid=quarantine&results=true", body)
    assert answer["accepted"] == 2
    assert [(bad["line"], bad["code"]) for bad in answer["quarantined"]] == [(3, "id_conflict")]
    assert [(row["line"], row["outcome"]) for row in answer["results"]] == [(1, "accepted"), (2, "accepted"), (3, "quarantined")]
    (record,) = rig.records(FrameType.QUARANTINED)
    assert (record["tenant"], record["line"], record["code"]) == ("a", 3, "id_conflict")
    assert base64.b64decode(record["data"]) == body.split(b"\n")[2]


@pytest.mark.parametrize("mode", ["reject", "quarantine"])
async def test_a_line_that_grows_too_long_is_bad(rig: Rig, mode: str) -> None:
    """What fits as sent but not with the server's fields is refused with its line, or kept for its tenant."""
    big = event(tenant="b", id="big", reason="r" * 2000, metadata={"text": "t" * 63_300})
    answer = await rig.call(f"/v1/events?on_invalid={mode}", ndjson(event(tenant="a"), event(tenant="b", id="ok"), big))
    if mode == "reject":
        assert (answer.status, answer.json()["errors"][0]["line"]) == (422, 3)
        assert rig.frames(FrameType.EVENTS) == []
    else:
        assert [(bad["line"], bad["code"]) for bad in answer.json()["quarantined"]] == [(3, "event_too_large")]
        assert [found["id"] for found in rig.events("b")] == ["ok"]
        assert [record["tenant"] for record in rig.records(FrameType.QUARANTINED)] == ["b"]


@pytest.mark.parametrize("mode", ["reject", "quarantine"])
@pytest.mark.parametrize("shape", ["lines", "array"])
async def test_too_many_events_are_413_in_either_mode(rig: Rig, mode: str, shape: str) -> None:
    """A body of too many events is no record to keep."""
    events = [event() for _ in range(51)]
    body = ndjson(*events) if shape == "lines" else b"[" + b",".join(ndjson(one).strip() for one in events) + b"]"
    media = "application/x-ndjson" if shape == "lines" else "application/json"
    answer = await rig.call(f"/v1/events?on_invalid={mode}", body, media=media)
    assert (answer.status, answer.json()["code"]) == (413, "too_many_events")
    assert rig.frames(FrameType.QUARANTINED) == []


async def test_filtered_events_are_counted_by_filter_for_their_source(rig: Rig) -> None:
    """What a filter takes away is told by its name, in the answer's results and in the tenant's account."""
    records = [
        {"@timestamp": 1, "_document_id": f"d{n}", "action": action, "actor": "me"}
        for n, action in enumerate(["health.check", "repo.create", "health.check"])
    ]
    answer = await rig.accept("/v1/in/github?results=true", ndjson(*records))
    assert (answer["accepted"], answer["filtered"]) == (1, 2)
    assert [(row["line"], row["outcome"], row.get("filter")) for row in answer["results"]] == [
        (1, "filtered", "noise"),
        (2, "accepted", None),
        (3, "filtered", "noise"),
    ]
    (count,) = rig.records(FrameType.FILTERED)
    assert (count["tenant"], count["source"], count["filter"], count["count"]) == ("northwind", "github", "noise", 2)


async def test_a_request_that_is_filtered_whole_is_on_record(rig: Rig) -> None:
    """No event, no receipt, but a durable count."""
    record = {"@timestamp": 1, "_document_id": "d", "action": "health.check", "actor": "me"}
    answer = await rig.accept("/v1/in/github", ndjson(record))
    assert (answer["accepted"], answer["filtered"], answer["receipts"]) == (0, 1, [])
    assert len(rig.records(FrameType.FILTERED)) == 1


async def test_secrets_are_redacted_before_the_journal(rig: Rig) -> None:
    """The built-in transform runs on every source, says so in the event, and the secret is in no line."""
    secret = "ghp_" + "a1B2" * 9
    await rig.accept(body=ndjson(event(metadata={"note": f"token {secret}"})))
    (found,) = rig.events()
    assert secret not in str(found)
    assert found["ingest"]["redactions"]


async def test_a_source_with_a_tenant_takes_no_key_of_another(rig: Rig) -> None:
    """The credential and the source must agree, also when the request holds no event."""
    record = ndjson({"@timestamp": 1, "_document_id": "d", "action": "a.b", "actor": "me"})
    for body in (record, b"not json"):
        answer = await rig.call("/v1/in/github", body, secret=rig.secret_for("globex"))
        assert (answer.status, answer.json()["code"]) == (403, "tenant_forbidden")
    await rig.accept("/v1/in/github", record, secret=rig.secret_for("northwind"))
    assert rig.service.tenants.get("globex") is None


async def test_bad_records_stay_with_a_tenant_of_their_sender(rig: Rig) -> None:
    """A record that names no tenant goes to one that its key may write to, never to `default` for others to read."""
    secret = rig.secret_for("globex", "acme")
    await rig.accept("/v1/events?on_invalid=quarantine", b"not json\n" + ndjson(event(tenant="globex")), secret=secret)
    assert [record["tenant"] for record in rig.records(FrameType.QUARANTINED)] == ["acme"]
    assert rig.service.tenants.get("default") is None


async def test_a_signed_receipt_binds_what_was_sent(rig: Rig) -> None:
    """The note opens under the receipt key; its roots are over the stored lines and the records as sent, per tenant."""
    first, second = event(tenant="a", id="1"), event(tenant="b", id="2")
    answer = await rig.accept("/v1/events?receipt=signed", ndjson(first, second, event(tenant="a", id="3")))
    for body in answer["receipts"]:
        receipt = open_receipt(body["signed"], [rig.vkey])
        assert receipt.origin == body["log"]
        assert [list(pair) for pair in receipt.ranges] == body["ranges"]
        assert base64.b64encode(receipt.batch_root).decode() == body["batch_root"]
        assert receipt.include_by > receipt.received_at == body["received_at"]
    sent = [ndjson(one).strip() for one in (first, event(tenant="a", id="3"))]
    note = open_receipt(answer["receipts"][0]["signed"], [rig.vkey])
    assert note.input_root == input_root(sent)
    lines = [
        line for frame in rig.frames(FrameType.EVENTS) if frame.handle == note.origin.rpartition("/")[2] for line in frame.lines()
    ]
    hashes = [sha256(b"\0" + line).digest() for line in lines]
    assert note.batch_root == batch_root(hashes)


async def test_server_fields_say_where_it_came_from(rig: Rig) -> None:
    """One clock reading for the batch; source, credential, mapping, class and the hash of the configuration."""
    rig.service.clock = lambda: 1_700_000_000.25
    await rig.accept("/v1/in/open", ndjson({"message": "hello"}))
    (found,) = rig.events()
    assert found["received_at"] == found["occurred_at"] == "2023-11-14T22:13:20.250000Z"
    assert found["source"]["name"] == "open"
    assert found["source"]["credential"] in rig.secret
    assert (found["ingest"]["mapping"], found["ingest"]["class"]) == ("generic", "standard")
    assert found["ingest"]["config"] == rig.config.hash
    assert found["action"] == "open.record"


async def test_tallies_count_what_is_durable(rig: Rig) -> None:
    """Per source since the start; a refused request counts nowhere."""
    await rig.accept(body=ndjson(event(id="a"), event(id="b")))
    await rig.accept("/v1/events?on_invalid=quarantine", ndjson(event(id="a"), {"action": "x"}))
    assert (await rig.call(body=ndjson({"action": "x"}))).status == 422
    page = rig.service.tallies.page()
    assert {name: page["events"][name] for name in ("accepted", "duplicates", "filtered", "quarantined")} == {
        "accepted": 2,
        "duplicates": 1,
        "filtered": 0,
        "quarantined": 1,
    }
    assert page["events"]["last_at"] is not None
    assert page["github"]["last_at"] is None


async def test_an_empty_array_is_accepted_and_stores_nothing(rig: Rig) -> None:
    """Zero events are zero events."""
    answer = await rig.accept(body=b"[]", media="application/json")
    assert (answer["accepted"], answer["receipts"]) == (0, [])


async def test_a_large_body_is_read_like_a_small_one(rig: Rig) -> None:
    """Past the size that is read in a thread nothing else changes."""
    lines = [event(id=f"e{n}", metadata={"text": "x" * 60_000}) for n in range(40)]
    answer = await rig.accept(body=ndjson(*lines))
    assert answer["accepted"] == 40
    assert [found["id"] for found in rig.events()] == [f"e{n}" for n in range(40)]


async def test_a_tenant_that_the_disk_does_not_take_is_503(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk at a tenant's first event refuses for now, as it does for any other."""

    def full(name: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rig.service.tenants, "create", full)
    answer = await rig.call(body=ndjson(event()))
    assert (answer.status, answer.json()["code"]) == (503, "disk_full")
    assert int(answer.headers["retry-after"]) >= 1


def test_unknown_sources_are_not_found(rig: Rig) -> None:
    """By name, with the name."""
    with pytest.raises(NotFoundError, match="nosuch"):
        rig.service.plan("nosuch")


async def test_an_idempotency_key_names_mapped_events_by_their_number(rig: Rig) -> None:
    """One record may become several events, so lines would not tell them apart; a repeat is a duplicate here too."""
    body = b"\n" + ndjson({"message": "one"}, {"message": "two"})
    for accepted in (2, 0):
        assert (await rig.accept("/v1/in/open", body, headers=[("idempotency-key", "K")]))["accepted"] == accepted
    assert [found["id"] for found in rig.events()] == ["K:1", "K:2"]


@pytest.mark.parametrize("mode", ["reject", "quarantine"])
async def test_a_record_that_a_transform_cannot_shape(rig: Rig, tmp_path: Path, mode: str) -> None:
    """Refused with line and pointer, or in the quarantine as it was sent, with the transform's name; the others are stored."""
    path = tmp_path / "tallystick.toml"
    text = path.read_text().replace('transforms = ["secrets"]', 'transforms = ["who"]')
    path.write_text(text + '[transforms.who]\ntype = "rename"\npaths = { "metadata.who" = "actor.name" }\n')
    rig.service.plans = build_plans(load_config(path), compile_query)
    bad = event(id="bad", metadata={"who": 7})
    body = ndjson(event(id="a", metadata={"who": "ann"}), bad, event(id="b"))
    answer = await rig.call(f"/v1/events?on_invalid={mode}", body)
    if mode == "reject":
        (error,) = answer.json()["errors"]
        assert (answer.status, error["line"], error["pointer"], error["code"]) == (422, 2, "/actor/name", "transform_failed")
        assert rig.frames(FrameType.EVENTS) == []
        return
    assert (answer.status, answer.json()["accepted"]) == (200, 2)
    assert [(found["id"], found["actor"].get("name")) for found in rig.events()] == [("a", "ann"), ("b", None)]
    (record,) = rig.records(FrameType.QUARANTINED)
    assert base64.b64decode(record["data"]) == ndjson(bad).strip()
    assert record["message"].startswith("transform who: a value cannot be put at actor.name")
    again = await rig.call(f"/v1/events?on_invalid={mode}", body)
    assert (again.json()["accepted"], again.json()["duplicates"]) == (0, 2)


@pytest.mark.parametrize("headers", [(), (("idempotency-key", "K"),)])
async def test_a_split_record_sent_again_is_stored_once(rig: Rig, tmp_path: Path, headers: tuple[tuple[str, str], ...]) -> None:
    """Ids of the parts come from the event's own, or from the sender's key; accepted counts the parts."""
    path = tmp_path / "tallystick.toml"
    text = path.read_text().replace('transforms = ["secrets"]', 'transforms = ["each"]')
    path.write_text(text + '[transforms.each]\ntype = "split"\npath = "metadata.items"\n')
    rig.service.plans = build_plans(load_config(path), compile_query)
    names = {} if headers else {"id": "e"}
    body = ndjson(event(metadata={"items": [1, 2, 3]}, **names), event(id="whole"))
    first = await rig.accept(body=body, headers=headers)
    again = await rig.accept(body=body, headers=headers)
    assert [(answer["accepted"], answer["duplicates"]) for answer in (first, again)] == [(4, 0), (0, 4)]
    assert [one["ranges"] for one in first["receipts"]] == [one["ranges"] for one in again["receipts"]]
    stem = "K:1" if headers else "e"
    assert [found["id"] for found in rig.events()] == [f"{stem}:1", f"{stem}:2", f"{stem}:3", "whole"]
