"""CEF and LEEF: exact escapes, and our own readers get back what was written."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings

from support.event_corpus import HARD, LINES, hard_lines, line_of
from tallystick.destinations.encodings import cef, leef
from tallystick.event import Event
from tallystick.event.codec import decode_line
from tallystick.protocols.cef import parse_cef, parse_leef

STRUCTURED = ("actor", "targets", "context", "metadata", "on_behalf_of", "changes")


def event_of(members: dict[str, Any]) -> Event:
    return decode_line(line_of(members))


def is_control(one: str) -> bool:
    return unicodedata.category(one) in ("Cc", "Zl", "Zp")


def without_controls(value: str, but: str = "") -> str:
    return "".join(" " if is_control(one) and one not in but else one for one in value)


def check_clean(record: str, but: str) -> None:
    """Nothing that a terminal obeys or a reader takes for the end of a line."""
    assert {one for one in record if is_control(one)} <= set(but)


def check_cef(line: bytes) -> None:
    event = decode_line(line)
    record = cef.encode_event(event)
    found = parse_cef(record)
    assert found is not None
    assert "\n" not in record
    assert "\r" not in record
    header = found.pop("cef")
    assert (header["vendor"], header["class_id"], header["name"]) == ("Tallystick", event.action, event.action)
    check_pairs(line, dict(cef.pairs_of(event)), found, lambda value: without_controls(value, but="\t\r\n").strip(" "))
    check_clean(record, but="\t")


def check_leef(line: bytes) -> None:
    event = decode_line(line)
    record = leef.encode_event(event)
    found = parse_leef(record)
    assert found is not None
    assert "\n" not in record
    assert found.pop("leef") == {
        "version": "2.0", "vendor": "Tallystick", "product": "Tallystick", "product_version": "1", "event_id": event.action,
    }  # fmt: skip
    check_pairs(line, dict(leef.pairs_of(event)), found, without_controls)
    check_clean(record, but="\t")


def check_pairs(line: bytes, said: dict[str, str], found: dict[str, str], change: Any) -> None:
    """All values are there, as they were or as the format can carry them, and the structured members whole."""
    rest = json.loads(found.pop("tallystickRest"))
    exact = rest.get("exact", {})
    assert found == {key: change(value) for key, value in said.items() if value and change(value)}
    assert exact == {key: value for key, value in said.items() if change(value) != value}
    event = json.loads(line)
    assert {name: rest.get(name) for name in STRUCTURED} == {name: event.get(name) for name in STRUCTURED}


@pytest.mark.parametrize("check", [check_cef, check_leef])
def test_hard_events_come_back(check: Any) -> None:
    """Marks, controls, blanks at both ends, other scripts, very long and empty values."""
    for line in hard_lines():
        check(line)


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_any_cef_comes_back(line: bytes) -> None:
    """Whatever a sender wrote."""
    check_cef(line)


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_any_leef_comes_back(line: bytes) -> None:
    """Whatever a sender wrote."""
    check_leef(line)


def test_escapes_of_cef_are_those_of_the_guide() -> None:
    """Backslash, equals sign and line breaks in a value; a bar is none of them there."""
    record = cef.encode_event(event_of({"action": "a.b", "actor": "u", "reason": "1\\2=3|4\r\n5"}))
    assert " reason=1\\\\2\\=3|4\\r\\n5 " in record
    assert record.startswith("CEF:0|Tallystick|Tallystick|1|a.b|a.b|Unknown|start=")


def test_addresses_have_keys_by_their_version() -> None:
    """Version 4 in `src`, version 6 in `c6a2` with its label, a name in `shost`."""
    for address, pair in (
        ("192.0.2.1", " src=192.0.2.1 "),
        ("2001:db8::1", " c6a2=2001:db8::1 "),
        ("ec2.example.com", " shost=ec2.example.com "),
    ):
        record = cef.encode_event(event_of({"action": "a", "actor": "u", "context": {"ip": address}}))
        assert pair in record
        assert ("c6a2Label=Source IPv6 Address" in record) == (pair.startswith(" c6a2"))


def test_severities() -> None:
    """OCSF's seven steps on the scales of the two; without one CEF says so and LEEF nothing."""
    said = [event_of(HARD["least"] | {"severity": number}) for number in range(7)]
    assert [cef.encode_event(event).split("|")[6] for event in said] == ["Unknown", "1", "3", "5", "7", "9", "10"]
    assert [parse_leef(leef.encode_event(event)).get("sev") for event in said] == [None, "1", "3", "5", "7", "9", "10"]  # type: ignore[union-attr]
