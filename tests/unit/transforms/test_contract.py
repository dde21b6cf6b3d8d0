"""`transforms.contract`: which contract an event is held to, and what is said of a breach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.event import Event
from tallystick.event.codec import EventReader
from tallystick.transforms.contract import Contracts, build_contracts

_AMOUNT = {
    "type": "object",
    "properties": {
        "metadata": {
            "type": "object",
            "properties": {"amount": {"type": "integer", "minimum": 1}, "currency": {"enum": ["EUR", "CHF"]}},
            "required": ["amount"],
        }
    },
    "required": ["metadata"],
}


def contracts_of(directory: Path, text: str, **schemas: Any) -> Contracts:
    for name, schema in {"amount": _AMOUNT, "anything": {}, **schemas}.items():
        (directory / f"{name}.json").write_text(schema if isinstance(schema, str) else json.dumps(schema))
    (directory / "tallystick.toml").write_text(text)
    return build_contracts(load_config(directory / "tallystick.toml"))


def events(*members: dict[str, Any]) -> list[Event]:
    batch = EventReader().read_records([json.dumps({"actor": "u", **one}).encode() for one in members])
    assert not batch.errors
    return list(batch.events)


_ONE = """
[catalog.contracts.refunds]
action = "invoice.refunded"
schema = "amount.json"
"""


def test_a_breach_is_named_with_its_place_and_without_the_value(tmp_path: Path) -> None:
    """The first fault with its pointer, the places of the others; what was sent may be a secret."""
    found = contracts_of(tmp_path, _ONE).breaches(
        events(
            {"action": "invoice.refunded", "metadata": {"amount": 3, "currency": "EUR"}},
            {"action": "invoice.refunded", "metadata": {"amount": "hunter2", "currency": "hunter3"}},
            {"action": "invoice.sent", "metadata": {"amount": "hunter2"}},
            {"action": "invoice.refunded"},
        )
    )
    assert [(one.place, one.name, one.error.pointer, one.error.code, one.is_shadow) for one in found] == [
        (1, "refunds", "/metadata/amount", "contract_breach", False),
        (3, "refunds", "", "contract_breach", False),
    ]
    assert found[0].error.message == (
        'breaks the contract refunds: the value is not of type "integer"; further faults at /metadata/currency'
    )
    assert "hunter" not in found[0].error.message


def test_the_closest_contract_holds(tmp_path: Path) -> None:
    """The action's own before its family's, the longer family before the shorter, none where none is named."""
    contracts = contracts_of(
        tmp_path,
        """
        [catalog.contracts.all]
        action = "a.*"
        schema = "nothing.json"
        [catalog.contracts.some]
        action = "a.b.*"
        schema = "nothing.json"
        [catalog.contracts.one]
        action = "a.b.c"
        schema = "nothing.json"
        """,
        nothing={"not": {}},
    )
    found = contracts.breaches(events(*({"action": name} for name in ("a.x", "a.b.x", "a.b.c", "a.b.cd", "ab", "b"))))
    assert [(one.place, one.name) for one in found] == [(0, "all"), (1, "some"), (2, "one"), (3, "some")]


_VERSIONS = """
[catalog]
version_at = "/metadata/v"
[catalog.contracts.one]
action = "pay"
version = "1"
schema = "anything.json"
[catalog.contracts.two]
action = "pay"
version = "2"
schema = "amount.json"
"""


@pytest.mark.parametrize(
    ("version", "name"),
    [("1", None), (1, None), (2, "two"), ("3", "one"), (None, "one"), (True, "one"), ({"a": 1}, "one")],
)
def test_events_state_their_version(tmp_path: Path, version: Any, name: str | None) -> None:
    """As text or number; without a contract for all, one that is unknown, or none at all, is the breach."""
    found = contracts_of(tmp_path, _VERSIONS).breaches(events({"action": "pay", "metadata": {"v": version}}))
    assert [one.name for one in found] == ([] if name is None else [name])
    if name == "one":
        assert found[0].error.pointer == "/metadata/v"
        assert "known are 1, 2" in found[0].error.message


def test_a_contract_without_a_version_is_for_all_others(tmp_path: Path) -> None:
    """So a version can be let in before it has a contract of its own."""
    text = _VERSIONS + '[catalog.contracts.rest]\naction = "pay"\nschema = "anything.json"\n'
    assert contracts_of(tmp_path, text).breaches(events({"action": "pay"}, {"action": "pay", "metadata": {"v": 9}})) == []


def test_a_shadow_contract_says_so(tmp_path: Path) -> None:
    """Whoever is told of the breach knows that it is only to be marked."""
    found = contracts_of(tmp_path, _ONE + "shadow = true\n").breaches(events({"action": "invoice.refunded"}))
    assert [one.is_shadow for one in found] == [True]


def test_the_schema_sees_what_the_sender_can_set(tmp_path: Path) -> None:
    """Members that the server adds are no part of the contract."""
    strict = {"additionalProperties": False, "properties": {"action": {}, "actor": {"properties": {"id": {"const": "u"}}}}}
    contracts = contracts_of(tmp_path, '[catalog.contracts.a]\naction = "a"\nschema = "strict.json"\n', strict=strict)
    (event,) = events({"action": "a"})
    event.raw = "a line"
    assert contracts.breaches([event]) == []


@pytest.mark.parametrize(
    ("text", "schema", "line", "words"),
    [
        (_ONE.replace("amount", "gone"), {}, 4, "cannot be read: No such file"),
        (_ONE.replace("amount", "bad"), "{", 4, "is not JSON"),
        (_ONE.replace("amount", "bad"), "[]", 4, "is not a JSON object"),
        (_ONE.replace("amount", "bad"), {"type": "nonsense"}, 4, "is no JSON Schema"),
        (_ONE.replace("amount", "bad"), {"$ref": "https://example.com/a.json"}, 4, "is not part of the file"),
        (_ONE + _ONE.replace("refunds", "again"), {}, 6, "refunds is for the same action and version"),
        (_ONE.replace('"invoice.refunded"', '"in voice"'), {}, 3, "catalog.contracts"),
        ('[catalog]\nversion_at = "v"\n', {}, 2, "version_at"),
    ],
)
def test_a_bad_contract_is_named_with_its_line(tmp_path: Path, text: str, schema: Any, line: int, words: str) -> None:
    """At `tallystick check`, at the start and at a reload."""
    with pytest.raises(ConfigError, match=words) as caught:
        contracts_of(tmp_path, text, bad=schema)
    assert (caught.value.place or "").endswith(f":{line}")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(value=_VALUES)
def test_any_value_gets_a_verdict(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """Numbers of any size and texts of any kind: taken or refused, never an error of ours."""
    contracts = contracts_of(tmp_path_factory.getbasetemp(), _ONE)
    event = msgspec.convert({"action": "invoice.refunded", "actor": {"type": "user", "id": "u"}}, Event)
    event.metadata = msgspec.Raw(json.dumps({"amount": value, "more": value}).encode())
    is_fine = type(value) is not bool and isinstance(value, int | float) and value == int(value) and value >= 1
    assert bool(contracts.breaches([event])) is not is_fine
