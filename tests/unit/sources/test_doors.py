"""The senders' doors and the front before them: forms, parameters, headers, statuses."""

from __future__ import annotations

import gzip
from typing import Any

import msgspec
import pytest

from tallystick.errors import NotAcceptingError, OutcomeUnknownError, OverloadedError
from tallystick.http.protocol import HANG_UP
from tallystick.journal.entries import Append, Committed
from tallystick.journal.frame import FrameType
from tallystick.sources.doors import json_shape, split_records
from tallystick.sources.refusal import pushback_problem

from .conftest import Rig, event, ndjson

JSON = "application/json"


@pytest.mark.parametrize(
    ("media", "body", "count"),
    [
        (JSON, msgspec.json.encode(event()), 1),
        (JSON, b" \n" + msgspec.json.encode([event(), event()]), 2),
        (f"{JSON}; charset=UTF-8", msgspec.json.encode(event()), 1),
        ("application/x-ndjson", ndjson(event(), event()), 2),
        ("application/jsonl", b"\n" + ndjson(event()), 1),
        (
            "application/cloudevents+json",
            msgspec.json.encode({"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b", "data": event()}),
            1,
        ),
    ],
)
async def test_forms_of_events(rig: Rig, media: str, body: bytes, count: int) -> None:
    """One object, an array, NDJSON and CloudEvents by their media types."""
    assert (await rig.accept(body=body, media=media))["accepted"] == count


async def test_a_compressed_body_is_opened(rig: Rig) -> None:
    """Content-Encoding gzip changes nothing else."""
    answer = await rig.accept(body=gzip.compress(ndjson(event(id="z"))), headers=[("content-encoding", "gzip")])
    assert answer["accepted"] == 1


@pytest.mark.parametrize("media", ["text/plain", "application/xml", f"{JSON}; charset=latin-1", None])
async def test_other_media_types_are_415_and_say_what_is_read(rig: Rig, media: str | None) -> None:
    """Also no type at all: guessing would one day guess wrong."""
    answer = await rig.call(body=ndjson(event()), media=media)
    assert answer.status == 415


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("on_invalid=maybe", "parameter_invalid"),
        ("receipt=yes", "parameter_invalid"),
        ("results=1", "parameter_invalid"),
        ("on_invlaid=reject", "parameter_unknown"),
        ("receipt=plain&receipt=signed", "parameter_repeated"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/events", "/v1/in/github"])
async def test_parameters_are_checked_before_the_body_is_read(rig: Rig, path: str, query: str, code: str) -> None:
    """A misspelt wish is 400 at both doors, whatever the body holds."""
    answer = await rig.call(f"{path}?{query}", b"\xff")
    assert (answer.status, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize("key", ["a b", "x" * 97, "ü"])
async def test_an_idempotency_key_must_fit_into_ids(rig: Rig, key: str) -> None:
    """400, before anything is read."""
    answer = await rig.call(body=ndjson(event()), headers=[("idempotency-key", key)])
    assert (answer.status, answer.json()["code"]) == (400, "idempotency_key_invalid")


async def test_a_header_that_could_mean_two_things_is_refused(rig: Rig) -> None:
    """Two Content-Types or two keys: 400."""
    answer = await rig.call(body=ndjson(event()), headers=[("content-type", JSON)])
    assert (answer.status, answer.json()["code"]) == (400, "header_repeated")


async def test_keys_are_needed_and_must_allow_ingest(rig: Rig) -> None:
    """401 without a known key, 403 without the permission."""
    assert (await rig.call(body=ndjson(event()), secret="ts_nobody_" + "x" * 43)).status == 401
    answer = await rig.call(body=ndjson(event()), secret=rig.secret_for(permissions=("read",)))
    assert (answer.status, answer.json()["code"]) == (403, "permission_missing")


@pytest.mark.parametrize(
    ("body", "media", "code"),
    [
        (b"", JSON, "json_invalid"),
        (b"  \n", "application/x-ndjson", "json_invalid"),
        (b"[{]", JSON, "json_invalid"),
        (b"12", JSON, "event_not_object"),
        (b"{", "application/cloudevents+json", "json_invalid"),
    ],
)
async def test_what_is_no_json_is_400(rig: Rig, body: bytes, media: str, code: str) -> None:
    """Nothing could be read at all: 400 and not 422, with the code of the fault."""
    answer = await rig.call(body=body, media=media)
    assert (answer.status, answer.json()["code"]) == (400, code)


async def test_an_unreadable_cloud_event_can_be_quarantined(rig: Rig) -> None:
    """The mode holds for every form: what cannot be read is kept, and the answer is success."""
    answer = await rig.accept("/v1/events?on_invalid=quarantine", b"{", media="application/cloudevents+json")
    assert [bad["code"] for bad in answer["quarantined"]] == ["json_invalid"]
    assert len(rig.records(FrameType.QUARANTINED)) == 1


async def test_a_declared_source_maps_its_records(rig: Rig) -> None:
    """A record a line, or one JSON document; bad ones are kept without being asked for, good ones are stored."""
    good = {"@timestamp": 1, "_document_id": "d1", "action": "repo.create", "actor": "me"}
    answer = await rig.accept("/v1/in/github", ndjson(good) + b"no json\n")
    assert (answer["accepted"], [bad["line"] for bad in answer["quarantined"]]) == (1, [2])
    again = await rig.accept("/v1/in/github", msgspec.json.encode([good, {**good, "_document_id": "d2"}]), media=JSON)
    assert (again["accepted"], again["duplicates"]) == (1, 1)
    (record,) = rig.records(FrameType.QUARANTINED)
    assert (record["tenant"], record["peer"], record["line"]) == ("northwind", "192.0.2.7", 2)


async def test_a_source_in_reject_mode_stores_nothing(rig: Rig) -> None:
    """Asked for, it refuses the whole request with the bad line."""
    good = {"@timestamp": 1, "_document_id": "d1", "action": "repo.create", "actor": "me"}
    answer = await rig.call("/v1/in/github?on_invalid=reject", ndjson(good) + b"no json\n")
    assert (answer.status, [error["line"] for error in answer.json()["errors"]]) == (422, [2])
    assert rig.frames(FrameType.EVENTS) == []


@pytest.mark.parametrize("name", ["nosuch", "events", "tallystick", "", "github/x"])
async def test_other_sources_are_404(rig: Rig, name: str) -> None:
    """Built-in sources have no door of this kind either."""
    assert (await rig.call(f"/v1/in/{name}", ndjson({}))).status == 404


def test_records_are_split_by_line_or_not_at_all() -> None:
    """Blank lines are left out but counted; one document stays one record; nothing is nothing."""
    assert [(r.data, r.line) for r in split_records(b"a\n\n b\r\n", b"application/x-ndjson", "p")] == [(b"a", 1), (b" b\r", 3)]
    assert [r.data for r in split_records(b"[\n1]", JSON.encode(), "p")] == [b"[\n1]"]
    assert split_records(b" \n", JSON.encode(), "p") == []


@pytest.mark.parametrize(("body", "shape"), [(b"[1]", "array"), (b"\xef\xbb\xbf \t[", "array"), (b"{[", "object"), (b"", "object")])
def test_shape_is_told_by_the_first_byte(body: bytes, shape: str) -> None:
    """After blanks and a byte order mark."""
    assert json_shape(body) == shape


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("PUT", "/v1/events", "GET, HEAD, POST"), ("GET", "/v1/in/github", "POST"), ("POST", "/healthz/ready", "GET, HEAD")],
)
async def test_other_methods_are_405_and_name_those_that_are_served(rig: Rig, method: str, path: str, allow: str) -> None:
    """With the Allow header that RFC 9110 asks for."""
    answer = await rig.call(path, method=method)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


async def test_health(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Live while the process runs; ready, with reasons when not, as the journal says."""
    assert (await rig.call("/healthz/live", method="GET")).json() == {"live": True}
    assert (await rig.call("/healthz/ready", method="GET")).json() == {"ready": True, "reasons": []}
    monkeypatch.setattr(rig.service.journal, "status", lambda: {"accepting": False})
    answer = await rig.call("/healthz/ready", method="GET")
    assert (answer.status, answer.json()) == (503, {"ready": False, "reasons": ["stopped"]})


async def test_everything_else_goes_to_the_api_process(rig: Rig) -> None:
    """Which is not there in this test: 503 with advice, and a request id to ask about."""
    answer = await rig.call("/v1/events", method="GET")
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


async def test_pushback_is_503_with_whole_seconds(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's refusal reaches the sender with its code; advice is rounded up, so nobody comes back too early."""

    async def refuse(request: Any) -> None:
        raise OverloadedError("full", retry_after_s=1.2)

    monkeypatch.setattr(rig.service.journal, "append", refuse)
    answer = await rig.call(body=ndjson(event()))
    assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "2")
    assert pushback_problem(NotAcceptingError("x", retry_after_s=0.0)).headers["retry-after"] == "1"


async def test_a_fault_of_ours_is_500_and_tells_the_sender_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A problem document with the request id that the log has too."""

    async def fail(request: Any) -> None:
        raise RuntimeError("inner detail")

    monkeypatch.setattr(rig.service.journal, "append", fail)
    answer = await rig.call(body=ndjson(event()))
    assert (answer.status, answer.json()["code"]) == (500, "internal")
    assert b"inner detail" not in answer.body
    assert answer.json()["request_id"] in "".join(capsys.readouterr())


async def test_a_client_that_went_away_is_no_error(rig: Rig) -> None:
    """Nothing is stored and nothing is answered."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:8420"), (b"authorization", f"Bearer {rig.secret}".encode()), (b"content-type", JSON.encode())]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/events",
        "raw_path": b"/v1/events",
        "query_string": b"",
        "headers": headers,
    }
    await rig.front(scope, receive, send)
    assert sent == []


async def test_failed_logins_are_limited_and_on_record(rig: Rig) -> None:
    """After five in this rig a wrong key gets 429; the right one gets in all the same; the secret is nowhere."""
    wrong = "ts_nobody00_" + "x" * 43
    answers = [await rig.call(path, ndjson(event()), secret=wrong) for path in ("/v1/events", "/v1/in/open") * 3]
    assert [answer.status for answer in answers] == [401] * 5 + [429]
    assert answers[-1].json()["code"] == "too_many_logins"
    assert int(answers[-1].headers["retry-after"]) == 12
    await rig.accept(body=ndjson(event()))
    await rig.logins.close()
    found = rig.events("_tallystick")
    assert {one["action"] for one in found} == {"tallystick.login_failed"}
    assert sum(one["metadata"]["attempts"] for one in found) == 6
    assert found[0]["context"]["ip"] == "192.0.2.7"
    assert "x" * 43 not in str(found)


async def test_a_request_whose_outcome_is_unknown_is_not_answered(rig: Rig) -> None:
    """No status says "stored or not": the front hangs up, and sends nothing."""
    hung_up, sent = [], []

    class Gone:
        async def append(self, request: Append) -> Committed:
            raise OutcomeUnknownError("the writer ended")

    async def receive() -> Any:
        return {"type": "http.request", "body": ndjson(event()), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    rig.service.journal = Gone()
    lines = {"host": "127.0.0.1:8420", "authorization": f"Bearer {rig.secret}", "content-type": "application/x-ndjson"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/events",
        "raw_path": b"/v1/events",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
        "client": ("192.0.2.7", 5000),
        "scheme": "http",
        "extensions": {HANG_UP: lambda: hung_up.append(True)},
    }
    await rig.front(scope, receive, send)
    assert (hung_up, sent) == ([True], [])
