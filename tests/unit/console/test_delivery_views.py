"""The delivery page's sums and words."""

from __future__ import annotations

from typing import Any

import pytest

from tallystick.api.quarantine import QuarantineCountView
from tallystick.console.account import find_trouble
from tallystick.console.amounts import bytes_text, lag_text, rate_text, share_text
from tallystick.console.delivery_view import view_destination
from tallystick.console.reconcile_page import Sums
from tallystick.console.source_view import view_sources

ROW: dict[str, Any] = {
    "type": "webhook", "guarantee": "at_least_once", "state": "parked", "reason": "401", "accepted": 11, "delivered": 5,
    "filtered": {"where": 2}, "dead_lettered": 1, "dead_letter_reasons": {"too_large": 1}, "pending": 3, "lag_seconds": 90.0,
    "rate": 0.5, "last_success": 1.0, "last_error": {"at": 2.0, "reason": "401"}, "reads_back": False,
}  # fmt: skip


def test_a_destination_in_words() -> None:
    """State, lag, rate, times and the account's names come out as text."""
    view = view_destination("hook", ROW)
    assert (view.tone, view.lag, view.rate, view.words) == ("bad", "1.5 min", "30/min", "parked: it refuses everything")
    assert (view.last_success, view.last_error, view.last_error_at) == ("1970-01-01T00:00:01Z", "401", "1970-01-01T00:00:02Z")
    assert view.ledger is not None
    assert (view.ledger.filters, view.ledger.reasons, view.ledger.trouble) == ("2 where", "1 too_large", "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"delivered": 4}, "1 unaccounted for"),
        ({"dead_lettered": 3}, "2 too many"),
        ({"accepted": 7, "pending": -1}, "1 more outcomes than events"),
        ({"dead_letter_reasons": {"too_large": 2}}, "the reasons of dead letters do not add up"),
    ],
)
def test_an_account_that_does_not_balance_says_so(change: dict[str, Any], words: str) -> None:
    """The two sides are counted apart, and every way to differ has its words."""
    assert find_trouble({**ROW, **change}) == words


def test_a_destination_that_has_not_reported_has_no_account() -> None:
    """Zeros that nobody counted are not shown as a balance."""
    assert view_destination("hook", {**ROW, "state": "unknown"}).ledger is None


def test_many_reasons_are_cut_with_their_sum() -> None:
    """The most frequent ones by name, the others as one number."""
    reasons = {f"r{number}": number for number in range(1, 9)}
    view = view_destination("hook", {**ROW, "dead_letter_reasons": reasons, "dead_lettered": 36})
    assert view.ledger is not None
    assert view.ledger.reasons == "8 r8, 7 r7, 6 r6, 5 r5, 4 r4, 6 for other reasons"


@pytest.mark.parametrize(
    ("rate", "text"),
    [(None, ""), (0.0, "none"), (1_234.5, "1,234/s"), (2.5, "2.5/s"), (0.5, "30/min"), (0.001, "3.6/h"), (0.0001, "0.4/h")],
)
def test_rates_in_words(rate: float | None, text: str) -> None:
    """In the unit in which there is at least one."""
    assert rate_text(rate) == text


def test_shares_and_sizes_in_words() -> None:
    """A share below the whole is never shown as the whole."""
    assert [share_text(*pair) for pair in ((1, 1), (99_999, 100_000), (1, 3), (0, 0))] == ["100 %", "99.9 %", "33.3 %", ""]
    assert [bytes_text(count) for count in (12, 1_500_000, 2e18)] == ["12 B", "1.5 MB", "2000.0 PB"]
    assert (lag_text(100, 0), lag_text(7_200, 1)) == ("none", "2.0 h")


def test_sources_show_what_did_not_become_events() -> None:
    """Coverage, reasons of the quarantine, gaps and silence of each, those with something to say first."""
    counts = [
        QuarantineCountView(tenant="acme", source="github", mapping="github_audit", code="bad_time", count=3, waiting=2, sample=1),
        QuarantineCountView(tenant="acme", source="github", mapping="github_audit", code="old", count=1, waiting=0, sample=2),
    ]
    recent = [
        {"source": "events", "reason": "sequence", "ranges": [[4, 6], [9, 9]]},
        {"source": "events", "reason": "restart", "first": 0, "last": 7},
    ]
    tally = {"type": "http", "duplicates": 0, "filtered": 0, "rate": 0.0}
    idle, github, events = (
        {**tally, "accepted": 0, "quarantined": 0, "last_at": None},
        {**tally, "accepted": 97, "quarantined": 3, "last_at": "2026-03-17T12:00:00Z", "silent_since": "2026-03-17T12:00:00Z"},
        {**tally, "accepted": 5, "quarantined": 0, "last_at": "2026-03-17T12:00:00Z"},
    )
    views = view_sources({"idle": idle, "github": github, "events": events}, counts, recent)
    assert [view.name for view in views] == ["github", "events", "idle"]
    assert (views[0].coverage, views[0].mapping, views[0].quarantine) == ("97.0 %", "github_audit", (("bad_time", 2),))
    assert views[0].trouble == "silent since 2026-03-17T12:00:00Z"
    assert views[1].gaps == ("4 missing", "1 restarts")


def test_the_sums_of_a_walk_add_up_and_nonsense_counts_as_none() -> None:
    """What a form brings back is a number or nothing."""
    page = {"cuts": 2, "events": 20, "objects": 0, "findings": [{"kind": "missing", "is_repaired": True}, {"kind": "extra"}]}
    assert Sums.of_form({"cuts": "3", "events": "-1", "objects": "9" * 40, "findings": "x"}).plus(page) == Sums(5, 20, 0, 2, 1)
