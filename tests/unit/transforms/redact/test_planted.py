"""Planted secrets, in values, nested, in raw text, in URLs and in basic-auth headers, with Hyperscan and with RE2."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw

from support.planted import SECRETS, A
from tallystick.event import Actor, Event
from tallystick.plugin import BatchFacts
from tallystick.privacy.detectors import scanner
from tallystick.transforms.redact import Redact, RedactSettings

ENGINES = [False] + ([True] if scanner.hyperscan is not None else [])


def redactor(uses_hyperscan: bool = False, **settings: Any) -> Redact:
    made = msgspec.convert(settings, RedactSettings)
    return Redact("secrets", made, {}, lambda purpose: purpose.encode().ljust(32, b"."), uses_hyperscan=uses_hyperscan)


def event(**members: Any) -> Event:
    if "metadata" in members:
        members["metadata"] = Raw(json.dumps(members["metadata"]).encode())
    return Event(action="a.b", actor=Actor(type="user", id="u"), **members)


def line(made: Event, tenant: str = "acme", **settings: Any) -> str:
    redactor(**settings).apply_batch([made], (), BatchFacts(tenant))
    return msgspec.json.encode(made).decode()


@pytest.mark.parametrize("uses_hyperscan", ENGINES)
@pytest.mark.parametrize("kind", SECRETS)
def test_a_planted_secret_is_in_no_line(kind: str, uses_hyperscan: bool) -> None:
    """In a value, nested, in raw text, in a URL, in a basic-auth header: none is left, and the account says so."""
    secret = SECRETS[kind]
    basic = base64.b64encode(f"user:{secret}".encode()).decode()
    planted = [
        event(metadata={"note": f"it is {secret}"}),
        event(metadata={"a": [{"b": {"c": secret}}]}),
        event(raw=f"line with {secret} in it"),
        event(metadata={"dsn": f"https://u:{secret}@db.example.com/x"}),
        event(metadata={"url": f"https://api.example.com/x?access_token={secret}&y=1"}),
        event(metadata={"said": f"Authorization: Basic {basic}"}),
    ]
    redactor(uses_hyperscan).apply_batch(planted, (), BatchFacts("acme"))
    for one in planted:
        text = msgspec.json.encode(one).decode()
        assert secret not in text
        assert basic not in text
        assert one.ingest is not UNSET
        assert one.ingest.redactions


@pytest.mark.parametrize("uses_hyperscan", ENGINES)
def test_what_investigators_need_survives(uses_hyperscan: bool) -> None:
    """Ids of keys, commits, requests and ARNs are no secrets."""
    kept = {
        "accessKeyId": "AKIAIOSFODNN7EXAMPLE",
        "accessKey": "ASIAIOSFODNN7EXAMPLE",
        "commit": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "requestID": "fe4784a8-b3b8-4dac-a763-0476f4bef6e3",
        "arn": "arn:aws:iam::123456789012:user/ann",
    }
    assert redactor(uses_hyperscan).apply_batch([event(metadata=kept)], (), BatchFacts("acme")) is None


def test_escapes_hide_nothing() -> None:
    """Slashes and letters written as escapes are found all the same."""
    made = event()
    made.metadata = Raw(b'{"a":"https:\\/\\/u:hunter2x@db","b":"gh\\u0070_' + A[:36].encode() + b'"}')
    assert not {"hunter2x", A[:36]} & {part for part in ("hunter2x", A[:36]) if part in line(made)}


@pytest.mark.parametrize("uses_hyperscan", ENGINES)
def test_personal_data_goes_where_asked(uses_hyperscan: bool) -> None:
    """Each rule finds its own, ids are left alone, and without the setting nothing goes."""
    members = {
        "mail": "ann@example.com",
        "card": "4111 1111 1111 1111",
        "bank": "DE89370400440532013000",
        "ssn": "219-09-9999",
        "call": "+4915112345678",
        "user_id": "bob@example.com",
    }
    assert redactor(uses_hyperscan).apply_batch([event(metadata=members)], (), BatchFacts("acme")) is None
    made = event(metadata=members)
    redactor(uses_hyperscan, personal=True).apply_batch([made], (), BatchFacts("acme"))
    found = json.loads(bytes(made.metadata))  # type: ignore[arg-type]
    assert found.pop("user_id") == "bob@example.com"
    assert {value.split(":")[0] for value in found.values()} == {"[REDACTED"}


def test_a_keyed_hash_is_stable_for_a_tenant() -> None:
    """The same value of one tenant has one hash, of another tenant another."""
    first, second, other = (
        line(event(metadata={"m": "ann@example.com"}), tenant, personal=True, personal_action="hash") for tenant in "aab"
    )
    assert first == second != other
    assert "[HASH:email:" in first


def test_rules_by_path_take_the_place_and_the_raw_text() -> None:
    """What stands at a path goes, and `raw`, where it stands too."""
    made = event(metadata={"c": [{"name": "Ann"}, {"name": "Bob"}]}, raw="c=Ann,Bob")
    text = line(made, paths=[{"path": "/metadata/c/*/name", "action": "mask"}])
    assert "Ann" not in text
    assert "Bob" not in text
