"""Forms of text in expressions, and times in forms of their own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from tallystick.event.fields import ACTION
from tallystick.transforms.expressions import Scope, as_endpoint, as_said, as_slug, compile_expression
from tallystick.transforms.record_paths import Roots
from tallystick.transforms.record_time import TimeRule, read_form


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("192.0.2.1:https", None),
        ("example.com:443", None),
        ("", None),
        ("[]", None),
    ],
)
def test_an_endpoint_gives_its_address_and_nothing_else_does(text: str, wanted: str | None) -> None:
    """Addresses with a port, in brackets, and alone; a host name is no address."""
    assert as_endpoint(text) == wanted


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_comes_back_from_its_endpoint(address: Any, port: int) -> None:
    """IPv4 with a colon, IPv6 in brackets."""
    text = f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
    assert as_endpoint(text) == str(address)


@pytest.mark.parametrize("text", ["-", "?", "(null)", "N/A", "None", "Not Available"])
def test_words_for_nothing_say_nothing(text: str) -> None:
    """The next candidate gets its turn, and the word stays in metadata."""
    scope = Scope({"user": text, "other": "ann"}, {})
    assert as_said(text) is None
    assert compile_expression([{"path": "user", "as": "said"}, "other"], Roots())(scope) == "ann"
    assert scope.taken == ["other"]


@pytest.mark.parametrize("roots", [Roots(), Roots(frozenset({"ip"}))])
def test_a_text_that_was_cut_stays_in_metadata(roots: Roots) -> None:
    """The port behind an address would be lost otherwise."""
    expression = compile_expression({"path": "ip", "as": "endpoint"}, roots)
    cut, whole = Scope({"ip": "192.0.2.1:443"}, {}), Scope({"ip": "192.0.2.1"}, {})
    assert expression(cut) == expression(whole) == "192.0.2.1"
    assert (cut.taken, whole.taken) == ([], ["ip"])


@pytest.mark.parametrize("roots", [Roots(), Roots(frozenset({"p"}), frozenset({"p"}))])
def test_an_element_is_picked_by_the_text_of_a_member(roots: Roots) -> None:
    """Lists of names and values are read by name, the list stays in metadata, and what is not there gives nothing."""
    scope = Scope({"p": [None, {"name": "a b", "value": 1}, {"name": "a.c", "value": {"d": "x"}}]}, {})
    found = [
        compile_expression(path, roots)(scope)
        for path in ("p[name=a b].value", "p[name=a.c].value.d", "p[name=z].value", "p[kind=a b].value", "p[name=].value")
    ]
    assert found == ["1", "x", None, None, None]
    assert compile_expression({"template": "{p[name=a b].value}!"}, roots)(scope) == "1!"
    assert (scope.taken, scope.used) == ([], [])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Add member to role", "Add_member_to_role"),
        ("user.login", "user.login"),
        (" (deleted) ", "deleted"),
        ("/a - b/", "a_-_b/"),
        ("é", None),
        ("x" * 200, "x" * 128),
    ],
)
def test_a_slug_is_an_action(text: str, wanted: str | None) -> None:
    """What an action may have stays as sent."""
    assert as_slug(text) == wanted


@given(st.text(max_size=200))
def test_a_slug_is_an_action_or_nothing(text: str) -> None:
    """Whatever the text."""
    made = as_slug(text)
    assert made is None or ACTION.fullmatch(made)


def test_times_in_a_form_of_their_own() -> None:
    """A form without an offset is UTC with a flag, unless the product's times are UTC; what does not fit names no time."""
    record = {"time": "10/Oct/2000:13:55:36 -0700", "d": "2021-11-09", "t": "5:13:11"}

    def read(zone: str, *specs: dict[str, str]) -> Any:
        return TimeRule({"from": list(specs), "zone": zone}, Roots()).read(Scope(record, {}))

    assert read("", {"path": "time", "form": "%d/%b/%Y:%H:%M:%S %z"}) == ("2000-10-10T20:55:36.000000Z", ())
    joined = {"template": "{d} {t}", "form": "%Y-%m-%d %H:%M:%S"}
    assert read("", joined) == ("2021-11-09T05:13:11.000000Z", ("time_zone_missing",))
    assert read("UTC", joined) == ("2021-11-09T05:13:11.000000Z", ())
    assert read("", {"template": "{d} {missing}"}) == (UNSET, ())
    assert read("", {"path": "d", "form": "%H"})[1] == ("time_invalid", "time_claimed:2021-11-09")


@given(st.text(max_size=40))
def test_no_text_breaks_a_form(text: str) -> None:
    """Whatever is there, the answer is a time or None."""
    found = read_form(text, "%d/%b/%Y:%H:%M:%S %z")
    assert found is None or found.text
