"""The page: well-formed, without anything from outside, and nothing from an event becomes markup."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.reports.page import assemble, render

HOSTILE = "<script>alert(1)</script><img src=//evil.example/x>'\"&\u202e\x00\x1b"


def lines(text: str) -> list[dict[str, Any]]:
    """A report in which ``text`` stands wherever an event or a person can put one."""
    event = {"occurred_at": text, "actor": {"id": text}, "action": text, "targets": [{"type": text, "id": text}], "outcome": text}
    sample = {"tenant": "acme", "index": 7, "line": json.dumps(event), "proof": text}
    return [
        {
            "part": "head",
            "format": "tallystick.report/v1",
            "parts": 3,
            "framework": {"id": "x", "name": text, "version": "1", "about": text, "keep_days": 0, "keep_why": ""},
            "from": "2026-01-01T00:00:00Z",
            "to": "2026-02-01T00:00:00Z",
            "time": "occurred_at",
            "made_at": "2026-02-01T00:00:00Z",
            "tenants": ["acme"],
            "made_by": {"owner": text, "key": "k"},
            "server": {"name": "a", "version": "1", "config": "00"},
        },
        {
            "part": "control",
            "id": "C<1>",
            "title": text,
            "asks": text,
            "query": text,
            "see": ["reviews"],
            "count": 1,
            "samples": [sample],
        },
        {"part": "reviews", "title": "Reviews", "reviews": [{"note": text, "events": None}], "empty": [], "facts": {text: text}},
        {"part": "limits", "title": "Limits", "limits": [{"code": "x", "text": text}]},
    ]


def test_what_events_say_is_never_markup() -> None:
    """No element but ours, no reference but within the page, and characters that cannot be seen are escapes."""
    page = render(assemble(lines(HOSTILE)))
    assert "<script" not in page
    assert "<img" not in page
    assert not re.search(r"(?:src|href|action)\s*=\s*[\"'](?!#)", page)
    assert "url(" not in page
    assert "\u202e" not in page
    assert "\\u202e" in page
    assert "default-src 'none'" in page


@given(st.text(max_size=40))
def test_the_page_is_well_formed(text: str) -> None:
    """Whatever stands in it: a strict XML reader takes it, and each link leads to a place on the page."""
    root = ElementTree.fromstring(render(assemble(lines(text))).replace("<!DOCTYPE html>\n", "", 1))
    ids = {one.get("id") for one in root.iter()}
    links = [one.get("href", "") for one in root.iter() if one.get("href")]
    assert links
    assert all(link[1:] in ids for link in links)


def test_a_report_that_broke_off_is_none() -> None:
    """Without its last line."""
    with pytest.raises(ValueError, match="broke off"):
        assemble(lines("x")[:-1])


def test_a_signed_note_stays_as_it_was_signed() -> None:
    """A time alone is shown short; within a statement not a character changes."""
    note = "tallystick.statement/v1\nissued 2026-01-05T10:00:00.123456Z\npending 0\n\n\u2014 a/statement AAAA\n"
    rows = [
        {"note": note, "issued": "2026-01-05T10:00:00.123456Z", **{f"column_{n}": n for n in range(columns)}} for columns in (1, 12)
    ]
    for row in rows:
        part = {"part": "deliveries", "title": "Delivery statements", "statements": [row]}
        page = render(assemble([*lines("x")[:2], part, lines("x")[-1]]))
        assert note in page
        assert "2026-01-05 10:00:00 Z" in page
