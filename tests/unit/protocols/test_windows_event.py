"""Events of the Windows event log as XML."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.windows_event import parse_windows_event

HEAD = '<Event xmlns="http://schemas.microsoft.com/win/2004/08/events/event"><System><EventID Qualifiers="0">4625</EventID><Computer>c</Computer></System>'
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=0xFFFD, exclude_categories=("Cs", "Cn")), min_size=1, max_size=20)


def test_elements_attributes_and_data() -> None:
    """The shape that JSON forms have; `-` says nothing; data without a name is numbered."""
    found = parse_windows_event(
        f'\ufeff<?xml version="1.0"?>{HEAD}<EventData><Data Name="User">a &amp; b</Data><Data Name="Ip">-</Data><Data>x</Data><Data>y</Data></EventData></Event>'
    )
    assert found == {
        "System": {"EventID": {"Qualifiers": "0", "value": "4625"}, "Computer": "c"},
        "EventData": {"User": "a & b", "Data": "x", "Data_2": "y"},
    }


def test_text_that_a_browser_showed() -> None:
    """Hyphens before elements that can be folded are skipped."""
    assert parse_windows_event(f"- {HEAD.replace('<System>', '- <System>')}</Event>") is not None


def test_what_is_refused() -> None:
    """No event, one that is cut off, one without `System`, one that is too deep, and entities of its own: nothing is expanded."""
    assert parse_windows_event("<Events></Events>") is None
    assert parse_windows_event(HEAD) is None
    assert parse_windows_event("<Event><EventData/></Event>") is None
    assert parse_windows_event(f"{HEAD}{'<a>' * 40}{'</a>' * 40}</Event>") is None
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    assert parse_windows_event(f"{bomb}{HEAD}<EventData><Data Name='n'>&b;</Data></EventData></Event>") is None


@given(TEXTS, TEXTS)
def test_what_was_escaped_comes_back(name: str, value: str) -> None:
    """Names and values with any signs."""
    found = parse_windows_event(f"{HEAD}<EventData><Data Name={quoteattr(name)}>{escape(value)}</Data></EventData></Event>")
    assert found is not None
    if value.strip() in ("", "-"):
        assert "EventData" not in found
    else:
        assert found["EventData"] == {name: value.strip()}


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    """Whatever is there, the answer is members or None."""
    for whole in (text, f"<Event>{text}", f"{HEAD}{text}</Event>"):
        found = parse_windows_event(whole)
        assert found is None or "System" in found
