"""Ids from places in a stream."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from tallystick.event import Actor, Event
from tallystick.event.fields import ID
from tallystick.sources.naming import name_by_place, place_id


@given(st.text(min_size=1, max_size=300), st.integers(0, 2**64), st.binary(max_size=20))
def test_every_place_gives_an_id(stream: str, number: int, data: bytes) -> None:
    """Whatever a stream is called, the id is one that the event model takes, and the same each time."""
    made = place_id(stream, str(number), 5, data)
    assert ID.fullmatch(made)
    assert made == place_id(stream, str(number), 5, data)


@given(st.text(string.ascii_lowercase, min_size=1, max_size=40), st.integers(0, 2**64))
def test_ordinary_names_stay_readable(stream: str, number: int) -> None:
    """An operator can find the record in its stream by the id."""
    assert place_id(stream, str(number), 5, b"x").startswith(f"{stream}:{number}.")


def test_another_record_at_the_same_place_has_another_id() -> None:
    """As in a stream that was deleted and made anew: other content, or the same content at another time."""
    ids = {place_id("s", "1", 5, b"x"), place_id("s", "1", 6, b"x"), place_id("s", "1", 5, b"y"), place_id("s", "2", 5, b"x")}
    assert len(ids) == 4


def test_only_events_without_an_id_are_named() -> None:
    """The answer says whether any event was changed."""
    events = [Event(action="a.b", actor=Actor(type="user", id="u"), id=name) for name in ("mine", UNSET, UNSET)]
    assert name_by_place(events, ["p", "p", ""])
    assert [event.id for event in events] == ["mine", "p.2", UNSET]
    assert not name_by_place(events, ["", "", ""])
