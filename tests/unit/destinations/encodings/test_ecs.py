"""Documents of the Elastic Common Schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from support.event_corpus import HARD, LINES, hard_lines, line_of
from support.mapping_cases import case_record, cases, map_record
from tallystick.destinations.encodings import make_encoder, records_of

# elastic.co/docs/reference/ecs/ecs-category-field-values-reference, 8.17
CATEGORIES = set(
    "api authentication configuration database driver email file host iam intrusion_detection library malware network package process "  # noqa: SIM905
    "registry session threat vulnerability web".split()
)
TYPES = set(
    "access admin allowed change connection creation deletion denied device end error group indicator info installation protocol start user".split()  # noqa: SIM905
)
FIELDS = set(
    "@timestamp ecs message event organization user source user_agent http trace span group file url service destination related tallystick".split()  # noqa: SIM905
)


def ecs(line: bytes) -> dict[str, Any]:
    (record,) = records_of(make_encoder("ecs").encode([line], origin="o", first_index=0, last_index=0))
    found: dict[str, Any] = json.loads(record)
    return found


def check(line: bytes) -> None:
    """Only the schema's own values where it has a list of them, and every member of the event somewhere."""
    document, event = ecs(line), json.loads(line)
    assert set(document) <= FIELDS
    assert set(document["event"].get("category", [])) <= CATEGORIES
    assert set(document["event"]["type"]) <= TYPES
    assert document["event"]["outcome"] in {"success", "failure", "unknown"}
    assert document["tallystick"]["actor"] == event["actor"]
    assert document["tallystick"]["targets"] == event.get("targets", [])
    assert document["tallystick"]["outcome"] == event["outcome"]
    assert document["tallystick"].get("metadata") == event.get("metadata")
    if "ip" in document.get("source", {}):
        assert document["source"]["ip"] == event["context"]["ip"]


def test_hard_events_keep_to_the_schema() -> None:
    """Controls, other scripts, very long and empty members."""
    for line in hard_lines():
        check(line)


@settings(max_examples=100, deadline=None)
@given(LINES)
def test_any_event_keeps_to_the_schema(line: bytes) -> None:
    """Whatever a sender wrote."""
    check(line)


def test_records_of_every_mapping_keep_to_the_schema() -> None:
    """The hand-written records of the mappings' own tests."""
    for case in cases():
        if "record" in case.wanted and "event" in case.wanted:
            for line in map_record(case.mapping, case_record(case))[1]:
                check(json.dumps(line).encode())


def test_a_denied_login() -> None:
    """Who, from where, to what, and that it was denied."""
    document = ecs(line_of(HARD["login"]))
    assert document["event"]["category"] == ["authentication"]
    assert document["event"]["type"] == ["start", "denied"]
    assert (document["event"]["outcome"], document["event"]["reason"]) == ("failure", "wrong password")
    assert document["user"] == {"id": "u_1", "name": "Ann", "email": "ann@example.com", "roles": ["admin"]}
    assert document["source"] == {"address": "2001:db8::7", "ip": "2001:db8::7", "geo": {"name": "DE"}}
    assert (document["trace"]["id"], document["span"]["id"]) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    assert document["service"]["target"] == {"id": "crm", "name": "CRM"}
    assert document["destination"] == {"address": "192.0.2.9", "ip": "192.0.2.9"}
    assert document["message"] == "Ann user.login CRM"


@pytest.mark.parametrize(
    ("action", "category", "kinds"),
    [("user.create", "account", ["creation"]), ("role.revoked", "authorization", ["change"]), ("odd", "system", ["info"])],
)
def test_types(action: str, category: str, kinds: list[str]) -> None:
    """The operation that the action names."""
    assert ecs(line_of({"action": action, "actor": "ann", "category": category}))["event"]["type"] == kinds
