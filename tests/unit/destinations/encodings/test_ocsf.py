"""Events in OCSF's form: valid by the published schemas, and of the class that one would look for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.event_corpus import HARD, LINES, hard_lines, line_of
from support.mapping_cases import case_record, cases, map_record
from support.ocsf_schema import faults
from tallystick.destinations.encodings import make_encoder, records_of
from tallystick.event.codec import decode_line

VERSIONS = ["1.8", "1.5", "1.1"]
RANGE = {"origin": "o", "first_index": 0, "last_index": 0}
OWN_CASES = [case for case in cases() if "record" in case.wanted and "event" in case.wanted]


def encode(line: bytes, version: str = "1.8") -> bytes:
    (record,) = records_of(make_encoder("ocsf", options={"ocsf_version": version}).encode([line], **RANGE))
    return record


def ocsf(event: dict[str, Any], version: str = "1.8") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode(line_of(event), version))
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_hard_events_are_valid(version: str) -> None:
    """Control characters, escapes, other scripts, long and empty members."""
    for name, line in zip(HARD, hard_lines(), strict=True):
        assert faults(encode(line, version)) == [], name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("action", ["http.get", "http.patch", "http.propfind", "page.user"])
def test_methods_are_those_of_the_schema(version: str, action: str) -> None:
    """A method that the version knows is one; any other word is in the action alone. 1.1 has no such class for what states no response."""
    ends = {"context": {"ip": "192.0.2.7"}, "targets": [{"type": "url", "id": "/x"}, {"type": "host", "id": "web-1"}]}
    line = json.dumps(json.loads(hard_lines()[0]) | {"action": action, "category": "network"} | ends).encode()
    assert faults(encode(line, version)) == []
    method = json.loads(encode(line, version)).get("http_request", {}).get("http_method")
    known = {"1.8": {"http.get": "GET", "http.patch": "PATCH"}, "1.5": {"http.get": "GET"}, "1.1": {}}
    assert method == known[version].get(action)


@settings(max_examples=150, deadline=None)
@given(LINES, st.sampled_from(VERSIONS))
def test_any_event_is_valid(line: bytes, version: str) -> None:
    """Whatever is in the members, and whichever of them are there."""
    assert faults(encode(line, version)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_records_of_every_mapping_are_valid(version: str) -> None:
    """The hand-written records of the mappings' own tests."""
    assert len(OWN_CASES) > 20
    for case in OWN_CASES:
        _, lines = map_record(case.mapping, case_record(case))
        for line in lines:
            assert faults(encode(json.dumps(line).encode(), version)) == [], case


def test_nothing_is_lost() -> None:
    """Every text of the event is somewhere in the record, and what has no attribute is under its own name."""
    record = ocsf(HARD["login"])
    assert record["unmapped"]["metadata"] == HARD["login"]["metadata"]
    assert record["unmapped"]["on_behalf_of"] == HARD["login"]["on_behalf_of"]
    assert record["unmapped"]["changes"] == HARD["login"]["changes"]
    assert record["unmapped"]["context"] == {name: HARD["login"]["context"][name] for name in ("trace_id", "span_id")}
    text = json.dumps(record)
    assert all(
        word in text for word in ("u_1", "Ann", "ann@example.com", "admin", "key-1", "crm", "CRM", "192.0.2.9", "s-1", "r-1")
    )


def test_numbers_of_metadata_keep_their_text() -> None:
    """A number that no double holds goes out as it came in."""
    assert b'"big":12345678901234567890123' in encode(line_of(HARD["login"]))


def test_a_denied_login() -> None:
    """Class, status, time, identity and proof of which event it is."""
    record = ocsf(HARD["login"])
    picked = {
        name: record[name] for name in ("class_uid", "activity_id", "type_uid", "category_uid", "severity_id", "status_id", "time")
    }
    assert picked == {
        "class_uid": 3002, "activity_id": 1, "type_uid": 300201, "category_uid": 3, "severity_id": 3, "status_id": 2, "time": 1772600767891,
    }  # fmt: skip
    assert record["time_dt"] == "2026-03-04T05:06:07.891234Z"
    assert (record["status_code"], record["status_detail"]) == ("denied", "wrong password")
    assert (record["metadata"]["uid"], record["metadata"]["tenant_uid"]) == ("login-1", "acme")
    assert record["user"] == record["actor"]["user"]
    assert record["service"] == {"uid": "crm", "name": "CRM"}
    assert record["dst_endpoint"] == {"ip": "192.0.2.9"}
    assert record["src_endpoint"] == {"ip": "2001:db8::7", "location": {"country": "DE"}}
    assert {(one["type_id"], one["value"]) for one in record["observables"]} >= {
        (2, "2001:db8::7"),
        (4, "Ann"),
        (5, "ann@example.com"),
    }


USER, ROLE, GROUP = {"type": "user", "id": "bob"}, {"type": "role", "id": "admin"}, {"type": "team", "id": "red"}


@pytest.mark.parametrize(
    ("action", "category", "targets", "type_uid"),
    [
        ("user.logout", None, [], 300202),
        ("user.create", None, [USER], 300101),
        ("user.password.reset", None, [USER], 300104),
        ("user.CreateAccessKey", "account", [USER], 300401),
        ("login.attack_warning", "authentication", [USER], 300299),
        ("user.mfa.disable", "authentication", [USER], 300111),
        ("team.add_member", "account", [GROUP, USER], 300603),
        ("role.assigned", "authorization", [USER, ROLE], 300501),
        ("role.assigned", "authorization", [ROLE], 300403),
        ("invoice.approved", None, [{"type": "invoice", "id": "7"}], 300499),
        ("invoice.deleted", None, [{"type": "invoice", "id": "7"}], 300404),
        ("report.viewed", None, [{"type": "report", "id": "7"}], 600102),
        ("file.downloaded", "data", [{"type": "file", "id": "/a/b.txt"}], 600602),
        ("http.get", "network", [{"type": "url", "id": "/a"}], 400203),
        ("something.odd", "system", [], 99),
    ],
)
def test_classes(action: str, category: str | None, targets: list[dict[str, str]], type_uid: int) -> None:
    """What an action is about decides, and a class that lacks what it requires gives way to a wider one."""
    event: dict[str, Any] = {"action": action, "actor": "ann", "targets": targets}
    record = ocsf(event | ({"category": category} if category else {}))
    assert record["type_uid"] == type_uid


def test_an_older_version_has_no_younger_attribute() -> None:
    """1.1 knows no unlocking and no source of a change of an entity: the one is Other, the other is kept aside."""
    event = {"action": "policy.update", "actor": "ann", "targets": [{"type": "policy", "id": "p"}], "context": {"ip": "192.0.2.1"}}
    assert ocsf(event)["src_endpoint"] == {"ip": "192.0.2.1"}
    older = ocsf(event, "1.1")
    assert older["metadata"]["version"] == "1.1.0"
    assert older["metadata"]["profiles"] == ["datetime", "host"]
    assert older["unmapped"]["context"] == {"ip": "192.0.2.1"}


def test_a_name_is_no_address() -> None:
    """A service's name where an address is expected stays a name, and nothing is made up where nothing is said."""
    line = json.loads(line_of({"action": "s3.GetObject", "actor": "ann", "context": {"ip": "ec2.amazonaws.com"}}))
    line["ingest"] = {"mapping": "aws_cloudtrail"} | line["ingest"]
    record = json.loads(encode(json.dumps(line).encode()))
    assert (record["class_uid"], record["src_endpoint"]) == (6003, {"name": "ec2.amazonaws.com"})
    del line["context"]
    assert json.loads(encode(json.dumps(line).encode()))["src_endpoint"] == {"name": "unknown"}


def test_encoding_is_pure() -> None:
    """The same line gives the same bytes, and decodes as an event."""
    line = line_of(HARD["login"])
    assert decode_line(line).action == "user.login"
    assert encode(line) == encode(line)


def windows(number: int, members: dict[str, Any], version: str = "1.8") -> dict[str, Any]:
    """A Windows security event as its mapping makes it."""
    line = json.loads(line_of({"action": f"windows.{number}", "actor": {"type": "user", "id": "CORP\\ann"}} | members))
    line["ingest"] = {"mapping": "windows_security"} | line["ingest"]
    record = encode(json.dumps(line).encode(), version)
    assert faults(record) == []
    found: dict[str, Any] = json.loads(record)
    return found


HOST = {"type": "host", "id": "dc1.corp.example"}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_windows_session_with_privileges(version: str) -> None:
    """What 4672 lists are the privileges; without a list there is nothing to say, and the class is the base."""
    list_text = "SeSecurityPrivilege\r\n\t\t\tSeTakeOwnershipPrivilege"
    record = windows(4672, {"targets": [HOST], "metadata": {"EventData": {"PrivilegeList": list_text}}}, version)
    assert (record["type_uid"], record["privileges"]) == (300301, ["SeSecurityPrivilege", "SeTakeOwnershipPrivilege"])
    for metadata in ({}, {"EventData": []}, {"EventData": {"PrivilegeList": 7}}, {"PrivilegeList": " "}):
        assert windows(4672, {"metadata": metadata}, version)["class_uid"] == 0


@pytest.mark.parametrize(
    ("number", "category", "targets", "type_uid"),
    [
        (4625, "authentication", [HOST], 300201),
        (4634, "authentication", [HOST], 300202),
        (4768, "authentication", [HOST], 300203),
        (4769, "authentication", [HOST], 300204),
        (4720, "account", [USER, HOST], 300101),
        (4740, "account", [USER, HOST], 300109),
        (4732, "account", [{"type": "group", "id": "Administrators"}, USER, HOST], 300603),
        (1102, "configuration", [HOST], 100801),
    ],
)
def test_windows_numbers(number: int, category: str, targets: list[dict[str, str]], type_uid: int) -> None:
    """What each event number stands for."""
    assert windows(number, {"category": category, "targets": targets})["type_uid"] == type_uid
