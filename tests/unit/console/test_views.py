"""State in the URL, histogram, facets, and what an event shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tallystick.console.event_view import context_facts, summary_facts, view_changes, view_event
from tallystick.console.facets import actor_names, short_count, view_facets
from tallystick.console.histogram import HEIGHT, draw_histogram, step_text
from tallystick.console.state import ViewState
from tallystick.console.text import visible
from tallystick.query.request import Facets

NOW = datetime(2026, 3, 17, 12, 0, tzinfo=UTC)
HOUR_US = 3_600_000_000


def query_of(href: str) -> str:
    return parse_qs(urlsplit(href).query).get("q", [""])[0]


def test_links_keep_the_state_and_change_one_thing() -> None:
    """Defaults stay out of the URL; the rest comes back as it was."""
    state = ViewState(q="a:b & c", tenant="acme", start="-7d", open="e1", tab="proof")
    assert ViewState().href() == "/"
    assert parse_qs(urlsplit(state.href(open="e2")).query) == {
        "q": ["a:b & c"], "tenant": ["acme"], "from": ["-7d"], "open": ["e2"], "tab": ["proof"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("q", "included", "excluded"),
    [
        ("", "outcome:denied", "NOT outcome:denied"),
        ("action:x", "action:x outcome:denied", "action:x NOT outcome:denied"),
        ("outcome:denied", "", "outcome:denied NOT outcome:denied"),
        ("action:x outcome:denied ip:1", "action:x ip:1", "action:x outcome:denied ip:1 NOT outcome:denied"),
        ("NOT outcome:denied", "NOT outcome:denied outcome:denied", ""),
        ("a:1 OR b:2", "(a:1 OR b:2) outcome:denied", "(a:1 OR b:2) NOT outcome:denied"),
    ],
)
def test_facets_toggle_terms(q: str, included: str, excluded: str) -> None:
    """A click adds the term or takes it away; the minus does so with its negation; an OR is bracketed first."""
    state = ViewState(q=q, open="e1", cursor="c")
    assert query_of(state.including("outcome", "denied")) == included
    assert query_of(state.excluding("outcome", "denied")) == excluded
    assert "open" not in parse_qs(urlsplit(state.including("outcome", "denied")).query)


def test_reads_of_the_log_can_be_left_out() -> None:
    """One click takes the log's own searches, tails and exports out of the list, in the query where it can be seen."""
    assert query_of(ViewState(q="outcome:denied").without_readers()) == "outcome:denied NOT action:tallystick.*"


def test_actors_of_a_facet_have_their_names() -> None:
    """The newest name that the page's events give an id stands beside it; the link still says the id."""
    page = [
        {"actor": {"id": "u_1", "name": "Priya N.\u202e"}},
        {"actor": {"id": "u_1", "name": "Priya"}},
        {"actor": {"id": "ci", "name": "ci"}},
        {"actor": {"id": "u_2"}},
    ]
    facets = Facets({"actor": [("u_1", 3), ("ci", 1), ("u_9", 1)], "ip": [("u_1", 1)]}, 5, partial=False)
    actors, addresses = view_facets(facets, ViewState(), actor_names(page))
    assert [(item.shown, item.name) for item in actors.facet_values] == [("u_1", "Priya N.\\u202e"), ("ci", ""), ("u_9", "")]
    assert actors.facet_values[0].include == "/?q=actor%3Au_1"
    assert addresses.facet_values[0].name == ""


def test_facet_views() -> None:
    """Empty facets are left out; a chosen value is marked; counts have three digits."""
    facets = Facets({"outcome": [("denied", 11_204)], "ip": []}, 11_204, partial=False)
    (facet,) = view_facets(facets, ViewState(q="outcome:denied"), {})
    assert facet.facet_values[0].is_on
    assert facet.facet_values[0].count == "11.2k"
    assert [short_count(number) for number in (999, 1_000, 123_456, 5_000_000)] == ["999", "1.0k", "123k", "5.0M"]


def test_the_histogram_stacks_to_its_height_and_shows_the_rare() -> None:
    """The tallest bar fits; one denied event among thousands still has two pixels, on top."""
    histogram = draw_histogram([(0, {"success": 9_999, "denied": 1}), (HOUR_US, {})], HOUR_US, ViewState())
    assert histogram is not None
    success, denied = histogram.buckets[0].bars
    assert (denied.outcome, denied.height) == ("denied", 2.0)
    assert denied.y < success.y
    assert denied.y >= 0
    assert success.y + success.height == pytest.approx(HEIGHT)
    assert histogram.buckets[1].bars == ()
    assert histogram.total == 10_000
    assert histogram.outcomes == ("success", "denied")


def test_a_bar_links_to_its_own_time() -> None:
    """Clicking a bar asks for exactly its bucket."""
    histogram = draw_histogram([(0, {"success": 1})], HOUR_US, ViewState(q="x", cursor="c", open="e"))
    assert histogram is not None
    assert parse_qs(urlsplit(histogram.buckets[0].href).query) == {
        "q": ["x"], "from": ["1970-01-01T00:00:00Z"], "to": ["1970-01-01T01:00:00Z"],
    }  # fmt: skip
    assert draw_histogram([], HOUR_US, ViewState()) is None


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (1_000_000, "1 second"),
        (300_000_000, "5 minutes"),
        (HOUR_US, "1 hour"),
        (7 * 24 * HOUR_US, "1 week"),
        (1_000, "0.001 seconds"),
    ],
)
def test_steps_in_words(step: int, text: str) -> None:
    """The width of a bar is said in the largest unit that fits."""
    assert step_text(step) == text


@pytest.mark.parametrize(
    ("age", "when"),
    [
        (timedelta(seconds=5), "now"),
        (timedelta(minutes=4), "4 min"),
        (timedelta(hours=3), "09:00:00"),
        (timedelta(seconds=-1), "now"),
    ],
)
def test_times_in_the_list(age: timedelta, when: str) -> None:
    """Young events have an age, older ones a clock time; the exact time is kept beside it."""
    at = (NOW - age).isoformat().replace("+00:00", "Z")
    view = view_event({"id": "e", "occurred_at": at, "action": "x", "actor": {"id": "a"}}, NOW)
    assert view.when == when
    assert view.at == at


def test_both_times_are_shown_when_they_differ() -> None:
    """More than two seconds between occurred and received is worth a line."""
    event = {"actor": {"id": "a"}, "action": "x", "occurred_at": "2026-03-17T12:00:00Z", "received_at": "2026-03-17T12:00:01Z"}
    assert "received" not in dict(summary_facts(event))
    assert "received" in dict(summary_facts({**event, "received_at": "2026-03-17T12:00:03Z"}))


def test_changes_name_what_is_masked_and_by_which_rule() -> None:
    """A redacted value is named as masked, with its rule; null is a value, absence is not."""
    event: dict[str, Any] = {
        "changes": [{"path": "/a", "op": "add", "after": None}, {"path": "/key", "op": "replace", "before": "***", "after": "***"}],
        "ingest": {"redactions": [{"path": "/changes/1/after", "rule": "aws_key", "action": "mask"}]},
    }
    first, second = view_changes(event)
    assert (first.before, first.after, first.masked) == (None, "null", False)
    assert (second.masked, second.rule) == (True, "aws_key")


def test_context_shows_metadata_with_any_key() -> None:
    """Names of strangers are text like their values; a huge value says how long it is."""
    facts = dict(context_facts({"metadata": {"<img src=x>": {"a": 1}, "big": "x" * 10_000}}))
    assert facts["<img src=x>"][0].text == '{"a":1}'
    assert "10,000 characters" in facts["big"][0].text


@pytest.mark.parametrize("char", ["\u202e", "\u200b", "\x1b", "\u2066", "\ufeff", "\u2028", "\x9b"])
def test_hidden_characters_become_visible(char: str) -> None:
    """What hides or reorders text is shown as an escape."""
    assert char not in visible(f"a{char}b")
    assert visible("Zoë 日本 \n\t") == "Zoë 日本 \n\t"
