"""The mapping engine, by small mappings and by the three that ship."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.config import load_config
from tallystick.errors import ConfigError, EventInvalidError
from tallystick.event import Event, Source
from tallystick.event.codec import encode_lines
from tallystick.event.stamp import Stamp
from tallystick.plugin import Carrier
from tallystick.transforms import Mapping, MapResult, build_transform, load_mappings
from tallystick.transforms.expressions import Scope
from tallystick.transforms.map_record import RAW_BYTES_MAX
from tallystick.transforms.record_paths import split_path
from tallystick.transforms.rules import KEPT_MAX, RuleBook
from tallystick.transforms.sorting import Sorting

RECEIVED = "2026-03-04T10:00:00.000000Z"
SMALL = """
name = "small"
[match]
all = ["what"]
[dedupe]
key = "id"
[time]
from = ["when"]
[envelope]
action = [{ path = "what", as = "action" }, { const = "small.record" }]
reason = "why"
[actor]
type = { path = "who.kind", lookup = { bot = "service" }, default = "user" }
id = ["who.name", { const = "unknown" }]
"""


def mapping(more: str = "", text: str = SMALL) -> Mapping:
    return Mapping(tomllib.loads(text + more))


def one(made: Mapping, record: dict[str, Any] | bytes, **known: Any) -> Event:
    result = made.map(record if isinstance(record, bytes) else json.dumps(record).encode(), **known)
    assert not result.problems
    (event,) = result.events
    return event


def line(event: Event) -> dict[str, Any]:
    stamp = Stamp("acme", RECEIVED, Source(name="s", type="http"))
    return json.loads(encode_lines([event], stamp)[0])


def cloudtrail(record: Any) -> MapResult:
    return load_mappings()["aws_cloudtrail"].map(record if isinstance(record, bytes) else json.dumps(record).encode())


TRAIL = {
    "eventVersion": "1.08",
    "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::1:user/ann", "accountId": "1", "userName": "ann"},
    "eventTime": "2026-03-04T09:00:00Z",
    "eventSource": "iam.amazonaws.com",
    "eventName": "CreateUser",
    "sourceIPAddress": "203.0.113.7",
    "requestParameters": {"userName": "bob"},
    "eventID": "6a1c3c0e-5d3a-4b0e-9a53-2f1e7d0f9c11",
}


def test_a_record_that_names_no_actor_goes_to_the_quarantine() -> None:
    """Where a mapping has nothing to fall back to, the record is a problem with the place, and no error of ours."""
    made = mapping(text=SMALL.replace('id = ["who.name", { const = "unknown" }]', 'id = "who.name"'))
    result = made.map(b'{"what":"a.b"}')
    assert [(one.code, one.record) for one in result.problems] == [("field_missing", b'{"what":"a.b"}')]
    assert not result.events


def test_used_members_move_and_the_rest_stays_byte_for_byte() -> None:
    """What moved to the envelope leaves metadata; number texts and order of the rest are the sender's."""
    record = (
        b'{"z": 1.0, "what": "a.b", "who": {"name": "u", "kind": "bot", "n": 1E2}, "e": "\\u0041", "when": "2026-03-04T10:00:00Z"}'
    )
    event = one(mapping(), record)
    assert bytes(event.metadata) == b'{"z":1.0,"who":{"kind":"bot","n":1E2},"e":"\\u0041"}'  # type: ignore[arg-type]
    assert (event.action, event.actor.type, event.actor.id, event.occurred_at) == ("a.b", "service", "u", RECEIVED)
    assert event.raw == record.decode()
    assert one(mapping(), record, keep_raw=False).raw is not event.raw


def test_what_does_not_fit_the_envelope_stays_in_metadata() -> None:
    """An action of another form, a time that is none and a reason too long are flagged or replaced, never lost."""
    event = line(one(mapping(), {"what": "not an action", "when": "2026-02-30T00:00:00Z", "why": "x" * 3000}))
    assert event["action"] == "small.record"
    assert event["metadata"] == {"what": "not an action", "when": "2026-02-30T00:00:00Z"}
    assert len(event["reason"]) == 2048
    assert event["occurred_at"] == RECEIVED
    assert event["ingest"]["flags"] == ["time_invalid", "time_claimed:2026-02-30T00:00:00Z", "reason_cut"]


def test_ids_repeat_only_with_the_record() -> None:
    """A repeated delivery has the same id whatever its blanks; another record under the same id has another."""
    first = one(mapping(), b'{"what":"a","id":"x-1"}').id
    assert first == one(mapping(), b' { "what" : "a" , "id" : "x-1" } ').id
    assert str(first).startswith("x-1.")
    assert one(mapping(), b'{"what":"b","id":"x-1"}').id != first
    assert str(one(mapping(), b'{"what":"b","id":"not an id"}').id).startswith("small.")
    assert str(one(mapping(), b'{"what":"b","when":"2026-03-04T10:00:00Z"}').id).startswith("small.")


def test_records_without_id_and_time_are_named_by_the_server() -> None:
    """Two equal records that say nothing of when are two events."""
    events = [one(mapping(), b'{"what":"b"}') for _ in range(2)]
    assert len({line(event)["id"] for event in events}) == 2


def test_changes_come_from_the_names_of_members() -> None:
    """Members for the old value pair with those for the new one."""
    event = one(mapping('[changes]\nbefore = ["(.+)_was", "(.+)_old_(.+)"]\n'), b'{"what":"a","x_was":1.0,"x":2,"p_old_q":"o"}')
    changes = line(event)["changes"]
    assert changes == [
        {"path": "/x", "op": "replace", "before": 1.0, "after": 2},
        {"path": "/p_q", "op": "replace", "before": "o"},
    ]
    assert "metadata" not in line(event)


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (b'{"what":null}', "record_unknown"),
        (b'{"other":1}', "record_unknown"),
        (b"[1]", "record_not_json"),
        (b"what=1", "record_not_json"),
        (b'{"what":"a","what":"b"}', "key_duplicate"),
        (b'{"what":"a","n":1e400}', "number_invalid"),
        (b'{"what":"a","n":"\\ud800"}', "string_invalid"),
        (b'{"what":"a","n":"\xff"}', "json_invalid"),
        (b'{"what":"a","d":' + b"[" * 40 + b"]" * 40 + b"}", "depth_exceeded"),
        (b"[" * 100_000, "record_not_json"),
    ],
)
def test_records_that_do_not_map_say_why(record: bytes, code: str) -> None:
    """A record that becomes no event is kept with a code and a reason."""
    result = mapping().map(record)
    assert not result.events
    assert [problem.code for problem in result.problems] == [code]
    assert result.problems[0].message
    assert result.problems[0].record


def test_long_records_are_kept_once() -> None:
    """A record too long to be kept twice in one line is kept as metadata, with a flag."""
    event = one(mapping(), {"what": "a", "x": "y" * RAW_BYTES_MAX})
    assert line(event)["ingest"]["flags"] == ["raw_omitted"]
    assert "raw" not in line(event)


@pytest.mark.parametrize("wrap", ["records", "events", "array", "eventbridge", "lines", "plain"])
def test_cloudtrail_containers_are_opened(wrap: str) -> None:
    """S3 files, LookupEvents answers, EventBridge, arrays and lines all hold the same records, with the same ids."""
    plain = cloudtrail(TRAIL).events[0]
    text = json.dumps(TRAIL).encode()
    body = {
        "records": b'{"Records":[' + text + b"," + text + b"]}",
        "events": json.dumps({"Events": [{"CloudTrailEvent": text.decode()}] * 2}).encode(),
        "array": b"[" + text + b"," + text + b"]",
        "eventbridge": b'[{"detail-type":"x","detail":' + text + b'},{"detail":' + text + b"}]",
        "lines": text + b"\n" + text,
        "plain": b"[" + text + b"," + json.dumps([TRAIL], indent=1).encode() + b"]",
    }[wrap]
    events = cloudtrail(body).events
    assert [(event.id, event.action, event.actor.id) for event in events] == [(plain.id, "iam.CreateUser", plain.actor.id)] * 2


def test_cloudtrail_files_without_records() -> None:
    """A digest file is kept with its own reason; an empty file is nothing."""
    assert [problem.code for problem in cloudtrail({"digestS3Object": "x", "logFiles": []}).problems] == ["cloudtrail_digest"]
    assert cloudtrail({"Records": []}) == MapResult()


def test_cloudtrail_odd_records() -> None:
    """A service in place of an address never becomes an IP, and a record without a time is flagged."""
    record = {**TRAIL, "sourceIPAddress": "ec2.amazonaws.com", "errorCode": "AccessDenied", "errorMessage": "no"}
    del record["eventTime"]
    event = line(cloudtrail(record).events[0])
    assert "context" not in event
    assert event["metadata"]["sourceIPAddress"] == "ec2.amazonaws.com"
    assert (event["outcome"], event["reason"], event["category"]) == ("denied", "no", "account")
    assert event["targets"] == [{"type": "AWS::IAM::User", "id": "bob"}]
    assert event["ingest"]["flags"] == ["time_missing"]


def test_cloudtrail_sessions_act_as_their_role() -> None:
    """The session is the actor; the role that it assumed stands in on_behalf_of."""
    role = "arn:aws:iam::1:role/aws-reserved/sso.amazonaws.com/Admin"
    identity = {
        "type": "AssumedRole",
        "arn": "arn:aws:sts::1:assumed-role/Admin/ann@example.com",
        "accessKeyId": "ASIA1",
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": role, "userName": "Admin"}},
    }
    event = line(cloudtrail({**TRAIL, "userIdentity": identity}).events[0])
    assert event["actor"] == {"type": "user", "id": identity["arn"], "name": "ann@example.com", "credential": "ASIA1"}
    assert event["on_behalf_of"] == [{"type": "service", "id": role, "name": "Admin", "mode": "impersonation"}]


def test_github_members_and_changes() -> None:
    """A change of a member is about the member; old values become changes."""
    record = {
        "action": "org.update_member", "actor": "cat", "actor_is_bot": False, "actor_ip": "192.0.2.1", "org": "o", "user": "bob",
        "permission": "admin", "old_permission": "read", "created_at": 1621305118553, "_document_id": "abc",
    }  # fmt: skip
    event = line(one(load_mappings()["github_audit"], record))
    assert event["occurred_at"] == "2021-05-18T02:31:58.553000Z"
    assert event["targets"] == [{"type": "user", "id": "bob"}, {"type": "organization", "id": "o"}]
    assert event["changes"] == [{"path": "/permission", "op": "replace", "before": "read", "after": "admin"}]
    assert (event["outcome"], event["category"], event["context"]) == ("success", "account", {"ip": "192.0.2.1"})


def test_generic_takes_what_it_knows() -> None:
    """Any JSON object becomes an event of its source; known names move, the rest stays."""
    generic = load_mappings()["generic"]
    event = line(one(generic, {"user": "ann", "ip": "192.0.2.1", "ts": 1772618400, "result": "ok", "x": 1}, source_type="shop"))
    assert (event["action"], event["actor"]) == ("shop.record", {"type": "user", "id": "ann"})
    assert (event["context"]["ip"], event["occurred_at"], event["outcome"]) == ("192.0.2.1", RECEIVED, "success")
    assert event["metadata"] == {"result": "ok", "x": 1}


def test_generic_takes_lines_of_text() -> None:
    """A line that is no JSON is an event of the host that sent it, even when it is not UTF-8."""
    event = line(one(load_mappings()["generic"], b"link \xff\x00 down", source_type="syslog", peer="192.0.2.9"))
    assert (event["action"], event["actor"]) == ("syslog.record", {"type": "system", "id": "192.0.2.9"})
    assert event["metadata"] == {"message": "link \ufffd\ufffd down"}
    assert event["ingest"]["flags"] == ["text_replaced"]


@pytest.mark.parametrize(
    ("claim", "kept"),
    [
        (1772618400, RECEIVED),
        (1772618400000, RECEIVED),
        ("1772618400.000000", RECEIVED),
        (1772618400000000, RECEIVED),
        (1772618400000000000, RECEIVED),
        (1.5, "1970-01-01T00:00:01.500000Z"),
        ("2026-03-04T11:00:00+01:00", RECEIVED),
    ],
)
def test_times_come_as_text_or_number(claim: Any, kept: str) -> None:
    """Seconds, milliseconds, micro- and nanoseconds are told from their size."""
    assert one(mapping(), {"what": "a", "when": claim}).occurred_at == kept


@pytest.mark.parametrize(
    "more",
    [
        "[nonsense]\n",
        "x = 1\n[targets]\n",
        '[context]\nip = { path = "a", as = "colour" }\n',
        '[context]\nip = { pth = "a" }\n',
        '[[dispatch]]\nwhen = { path = "a", matches = "b" }\n',
    ],
)
def test_wrong_files_are_refused(more: str) -> None:
    """A mistake in a mapping file is found when it is compiled."""
    with pytest.raises((ConfigError, tomllib.TOMLDecodeError)):
        mapping(more)


_NAMES = (
    "verb",
    "stage",
    "objectRef",
    "action",
    "actor",
    "user",
    "user_id",
    "id",
    "name",
    "timestamp",
    "ip",
    "outcome",
    "status",
    "old_role",
    "role",
    "x",
)
_TEXTS = st.sampled_from(["u_1", "", "ok", "denied", "192.0.2.1", "a.b", "2026-03-04T10:00:00Z", "1772618400", "\u00e9", "<"])
_SIMPLE = st.one_of(_TEXTS, st.none(), st.booleans(), st.integers(-9, 2_000_000_000), st.sampled_from([0.5, 1e30, 1772618400.5]))
_INNER = st.dictionaries(st.sampled_from(_NAMES), _SIMPLE, max_size=3)
_VALUES = st.one_of(_SIMPLE, _INNER, st.lists(_SIMPLE, max_size=2))


@settings(deadline=None)
@given(record=st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=8), is_ascii=st.booleans(), blanks=st.booleans())
@pytest.mark.parametrize("name", ["generic", "github_audit", "kubernetes_audit"])
def test_the_short_way_and_the_long_way_agree(name: str, record: dict[str, Any], is_ascii: bool, blanks: bool) -> None:
    """Whichever way a record takes, and whichever set of rules, the event is the same."""
    made = load_mappings()[name]
    text = json.dumps(record, ensure_ascii=is_ascii, separators=None if blanks else (",", ":")).encode()
    short = made.map(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tallystick.transforms.map_record.read_plain", lambda text, depth_max: None)
        patch.setattr(type(made._rules), "of", lambda book, members: book.general)
        long = made.map(text)
    assert [unsealed(event) for event in short.events] == [unsealed(event) for event in long.events]
    assert (short.contents, short.problems) == (long.contents, long.problems)


_INSIDE = st.dictionaries(
    st.sampled_from(
        ["type", "arn", "userName", "accessKeyId", "sessionContext", "bucketName", "key", "instancesSet", "ConsoleLogin"]
    ),
    st.one_of(
        _SIMPLE,
        st.sampled_from(["AssumedRole", "AWSService", "Failure"]),
        st.dictionaries(
            st.sampled_from(["sessionIssuer", "items"]),
            st.one_of(_SIMPLE, st.just({"arn": "r", "userName": "n"}), st.just([{"instanceId": "i"}])),
        ),
    ),
    max_size=4,
)
_CLOUDTRAIL = st.fixed_dictionaries(
    {"eventName": st.sampled_from(["GetObject", "AssumeRole", "PutRolePolicy"]), "eventSource": st.sampled_from(["iam.amazonaws.com", "s3", 1, True, "1", "true"])},
    optional={
        "userIdentity": st.one_of(_INSIDE, _SIMPLE, st.just([])),
        "requestParameters": st.one_of(_INSIDE, _SIMPLE, st.just([{"bucketName": "b"}])),
        "responseElements": st.one_of(_INSIDE, st.none()),
        "errorCode": st.sampled_from(["AccessDenied", "", "Throttled", None]),
        "readOnly": st.sampled_from([True, False, "false", None, 0]),
        "eventTime": _TEXTS,
        "eventID": _TEXTS,
    },
)  # fmt: skip


@settings(deadline=None)
@given(record=_CLOUDTRAIL)
def test_what_is_remembered_of_other_records_changes_nothing(record: dict[str, Any]) -> None:
    """Rules by members one level down, and what they decided before, give what the general rules give, asked anew."""
    made = load_mappings()["aws_cloudtrail"]
    text = json.dumps(record).encode()
    short = made.map(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tallystick.transforms.map_record.read_plain", lambda text, depth_max: None)
        patch.setattr(type(made._rules), "of", lambda book, members: book.general)
        patch.setattr(Sorting, "__call__", Sorting._decide)
        long = made.map(text)
    assert [unsealed(event) for event in short.events] == [unsealed(event) for event in long.events]
    assert (short.contents, short.problems) == (long.contents, long.problems)


def test_what_was_decided_is_kept_within_bounds() -> None:
    """By the texts that decide it; long ones are decided anew each time, and past the bound the memory begins anew."""
    spec = {
        "name": "sorts",
        "envelope": {"action": [{"template": "{a}"}, {"const": "none"}]},
        "actor": {"type": {"const": "system"}, "id": {"const": "x"}},
    }
    book = RuleBook(spec)
    rules = book.of({"a": "x"})
    for number in range(5_000):
        assert rules.fill(Scope({"a": f"a{number}"}, {})).action == f"a{number}"
    assert 0 < len(rules._sort._kept) <= 4_096
    count = len(rules._sort._kept)
    with pytest.raises(EventInvalidError, match="cannot have the action"):
        rules.fill(Scope({"a": "a" * 1_000}, {}))
    assert len(rules._sort._kept) == count


def unsealed(event: Event) -> dict[str, Any]:
    """The event as values, without what is made anew for every line."""
    members: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(event))
    return members


def test_records_of_ever_other_members_do_not_fill_the_memory() -> None:
    """Past the bound the general rules serve, and after a while the kept sets begin anew."""
    spec = {
        "name": "wide",
        "envelope": {"action": [*(f"m{number}" for number in range(12)), {"const": "a"}]},
        "actor": {"type": {"const": "system"}, "id": {"const": "x"}},
    }
    book = RuleBook(spec)
    for number in range(2**12):
        members = {f"m{bit}": "v" for bit in range(12) if number >> bit & 1}
        assert book.of(members).fill(Scope(members, {})).action == ("v" if members else "a")
    assert len(book._by_known) == KEPT_MAX
    long_names = {"x" * 2_000: 1}
    book.of(long_names)
    assert (*long_names, int) not in book._by_shape


K8S = {
    "kind": "Event", "level": "RequestResponse", "auditID": "a-1", "stage": "ResponseComplete", "verb": "create",
    "requestURI": "/api/v1/namespaces/shop/pods/p/exec?command=sh",
    "user": {"username": "system:serviceaccount:shop:ci", "groups": ["system:authenticated"],
             "extra": {"authentication.kubernetes.io/credential-id": ["JTI=1"]}},
    "sourceIPs": ["192.0.2.1", "10.0.0.1"], "userAgent": "kubectl",
    "objectRef": {"resource": "pods", "namespace": "shop", "name": "p", "subresource": "exec"},
    "responseStatus": {"code": 101}, "stageTimestamp": "2026-03-04T10:00:00.000000Z",
}  # fmt: skip


def kubernetes(**members: Any) -> dict[str, Any]:
    return line(one(load_mappings()["kubernetes_audit"], {**K8S, **members}))


def test_kubernetes_requests() -> None:
    """Resource, subresource and verb are the action; the first address, the credential and the auditID are taken over."""
    event = kubernetes()
    assert (event["action"], event["category"], event["outcome"]) == ("pods/exec.create", "system", "success")
    assert event["actor"] == {"type": "service", "id": "system:serviceaccount:shop:ci", "credential": "JTI=1"}
    assert event["context"] == {"ip": "192.0.2.1", "user_agent": "kubectl", "request_id": "a-1"}
    assert event["metadata"]["objectRef"]["subresource"] == "exec"
    assert event["metadata"]["user"]["groups"] == ["system:authenticated"]
    assert event["id"].startswith("a-1.ResponseComplete.")


@pytest.mark.parametrize(
    ("members", "outcome"),
    [
        ({"responseStatus": {"code": 403}}, "denied"),
        ({"responseStatus": {"code": 401}}, "denied"),
        ({"responseStatus": {"code": 404}}, "failure"),
        ({"responseStatus": {"code": 500}}, "failure"),
        ({"responseStatus": {"code": 304}}, "success"),
        ({"stage": "Panic"}, "failure"),
        ({"stage": "RequestReceived", "responseStatus": None}, "unknown"),
        ({"annotations": {"authorization.k8s.io/decision": "forbid"}}, "denied"),
        ({"annotations": {"authorization.k8s.io/decision": "allow"}}, "success"),
    ],
)
def test_kubernetes_outcomes(members: dict[str, Any], outcome: str) -> None:
    """By the answer's code, the decision, and the stage."""
    assert kubernetes(**members)["outcome"] == outcome


@pytest.mark.parametrize(
    ("reference", "more", "targets"),
    [
        ({"resource": "nodes", "name": "n1"}, {}, [("nodes", "n1")]),
        ({"resource": "pods", "namespace": "a"}, {}, [("pods", "a/*")]),
        ({"resource": "pods"}, {}, [("pods", "*")]),
        ({"resource": "pods", "namespace": "a"}, {"responseObject": {"metadata": {"name": "made"}}}, [("pods", "a/made")]),
        (
            {"resource": "rolebindings", "namespace": "a", "name": "b"},
            {"requestObject": {"roleRef": {"kind": "Role", "name": "r"},
                               "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "namespace": "a", "name": "s"}]}},
            [("rolebindings", "a/b"), ("Role", "r"), ("User", "u"), ("ServiceAccount", "a/s")],
        ),
        (None, {}, [("url", K8S["requestURI"])]),
    ],
)  # fmt: skip
def test_kubernetes_targets(reference: Any, more: dict[str, Any], targets: list[tuple[str, str]]) -> None:
    """What the request names, where it names no object what was made, and all of a binding."""
    found = kubernetes(objectRef=reference, **more)["targets"]
    assert [(target["type"], target["id"]) for target in found] == targets


def test_kubernetes_secrets_are_masked() -> None:
    """Their values, under whatever names, in either object and in the annotation of `kubectl apply`; metadata and raw alike."""
    secret = {
        "kind": "Secret",
        "metadata": {
            "name": "db",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": '{"data":{"a.conf":"aHVudGVy"}}'},
        },
        "data": {"a.conf": "aHVudGVy", "tls.crt": "aHVudGVy"},
        "stringData": {"plain": "aHVudGVy"},
    }
    event = one(load_mappings()["kubernetes_audit"], {**K8S, "requestObject": secret, "responseObject": secret})
    redact = build_transform("secrets", None, load_config(None), lambda text: lambda event: False)
    ((_, made),) = redact.apply_batch([event], [b""]) or [(0, event)]
    text = json.dumps(line(made))
    assert "aHVudGVy" not in text
    assert '"name": "db"' in text


def test_kubernetes_in_aks_records() -> None:
    """Event Hubs brings the entry as text inside a record."""
    record = {"category": "kube-audit", "properties": {"log": json.dumps(K8S), "pod": "kube-apiserver"}}
    event = line(one(load_mappings()["kubernetes_audit"], record))
    assert event["action"] == "pods/exec.create"


def test_names_with_dots_stand_in_quotes() -> None:
    """In a path; `[]` may follow."""
    assert split_path('a."b.c/d"[].e') == ("a", "b.c/d", "[]", "e")


LISTS = """
[changes]
lists = [
  { each = "on.props", name = "k", before = "o", after = "n" },
  { name = "d.what", before = "d.from", after = "d.to" },
  { name = "e[].p[n=NAME].v", before = "e[].p[n=OLD].v", after = "e[].p[n=NEW].v" },
]
"""


@pytest.mark.parametrize("space", [b"", b" "])
def test_changes_come_from_lists_of_them(space: bytes) -> None:
    """Lists on the way are opened, null is no value, values keep their text, and everything stays in metadata too."""
    record = (
        b'{"what":"a","on":[{"props":[{"k":"x/y","o":1.0,"n":[2]},{"k":"add","o":null,"n":"v"}]},{"props":{"k":"gone","o":"v"}},'
        b'{"props":[{"o":1},7,{"k":"none"}]}],"d":{"what":"w","from":"f","to":"t"},'
        b'"e":[{"p":[{"n":"NAME","v":"s"},{"n":"OLD","v":1},{"n":"NEW","v":2}]}]' + space + b"}"
    )
    event = line(one(mapping(LISTS), record))
    assert event["changes"] == [
        {"path": "/x~1y", "op": "replace", "before": 1.0, "after": [2]},
        {"path": "/add", "op": "add", "after": "v"},
        {"path": "/gone", "op": "remove", "before": "v"},
        {"path": "/w", "op": "replace", "before": "f", "after": "t"},
        {"path": "/s", "op": "replace", "before": 1, "after": 2},
    ]
    assert set(event["metadata"]) == {"on", "d", "e"}


def test_numbers_in_changes_keep_their_text() -> None:
    """Also where the record cannot take the short way."""
    event = one(mapping(LISTS), b'{"what":"a","on":{"props":[{"k":"x","o":1E2,"n":1.50}]}}')
    assert event.changes
    (change,) = event.changes
    assert (bytes(change.before), bytes(change.after)) == (b"1E2", b"1.50")


def test_a_record_of_several_things_becomes_several_events() -> None:
    """Each has one element of the list and all other members, with their own bytes; one alone stays as it came."""
    made = mapping('[parse]\nunwrap = [{ list = "items" }, { split = "parts" }]\n')
    result = made.map(b'{"items":[{"what":"a","n":1.0,"parts":[{"p":1},{"p":2.50}]},{"what":"b", "parts":[{"p":3}]}]}')
    assert not result.problems
    assert [event.raw for event in result.events] == [
        '{"what":"a","n":1.0,"parts":[{"p":1}]}',
        '{"what":"a","n":1.0,"parts":[{"p":2.50}]}',
        '{"what":"b", "parts":[{"p":3}]}',
    ]


@pytest.mark.parametrize("record", [b'{"n":1}', b'{"n":1E2}'])
def test_a_mapping_may_read_what_the_protocol_said(record: bytes) -> None:
    """Members of the carrier stand beside the record's own while it is mapped; the id is that of the record alone."""
    text = 'name = "c"\n[parse]\ncarrier = true\n[envelope]\naction = "hook.event"\n[actor]\ntype = { const = "user" }\nid = { const = "u" }\n'
    carrier = Carrier(more={"hook": {"event": "push", "id": "1"}})
    made = mapping(text=text + '[dedupe]\nkey = "hook.id"\n')
    (event,) = made.map_batch([record], [carrier]).events
    assert event.action == "push"
    assert str(event.id).startswith("1.")
    assert set(line(event)["metadata"]) == {"n"}
    assert made.map_batch([record]).problems[0].code == "field_missing"


def test_lines_of_pgaudit() -> None:
    """Who, what, where from, and the statement in the metadata; raw is the line as PostgreSQL wrote it; a failed login is `denied`."""
    log = {"timestamp": "2026-03-01 10:00:00.123 UTC", "user": "ann", "dbname": "shop", "remote_host": "192.0.2.7",
           "session_id": "65f0.12", "line_num": 3, "error_severity": "LOG", "state_code": "00000"}  # fmt: skip
    record = {**log, "message": "AUDIT: OBJECT,1,1,READ,SELECT,TABLE,public.account,select 1,<none>"}
    event = line(one(load_mappings()["postgresql"], record))
    assert (event["action"], event["category"], event["outcome"]) == ("postgresql.select", "data", "unknown")
    assert event["actor"] == {"type": "user", "id": "ann"}
    assert event["targets"] == [{"type": "TABLE", "id": "public.account"}, {"type": "database", "id": "shop"}]
    assert event["context"] == {"ip": "192.0.2.7", "session_id": "65f0.12"}
    assert event["occurred_at"] == "2026-03-01T10:00:00.123000Z"
    assert event["id"].startswith("65f0.12:3.")
    assert event["metadata"]["audit"]["statement"] == "select 1"
    assert json.loads(event["raw"]) == record
    failed = {**log, "error_severity": "FATAL", "state_code": "28P01", "message": "password authentication failed"}
    event = line(one(load_mappings()["postgresql"], failed))
    assert (event["action"], event["outcome"], event["category"]) == ("postgresql.login_failed", "denied", "authentication")
    assert event["reason"] == "password authentication failed"


def test_a_line_that_is_no_record_of_the_log_is_a_problem() -> None:
    """With the reason and its own bytes."""
    result = load_mappings()["postgresql"].map(b"LOG:  starting")
    assert [(problem.code, problem.record) for problem in result.problems] == [("record_unreadable", b"LOG:  starting")]
    assert result.events == []
