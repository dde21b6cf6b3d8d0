"""Ids made here."""

from __future__ import annotations

import uuid

import pytest

from tallystick.event.ids import IdMaker


def test_ids_are_uuid7_and_share_their_prefix() -> None:
    """Ids of one batch are canonical, sorted UUIDv7 texts, equal in the first 30 characters, with the given time."""
    maker = IdMaker(1_772_618_400_123)
    ids = maker.make(3) + maker.make(2)
    assert ids == sorted(set(ids))
    assert {made[:30] for made in ids} == {maker.prefix}
    for made in ids:
        parsed = uuid.UUID(made)
        assert (str(parsed), parsed.version, parsed.variant) == (made, 7, uuid.RFC_4122)
        assert parsed.int >> 80 == 1_772_618_400_123


def test_two_batches_of_one_millisecond_differ() -> None:
    """Fifty random bits keep batches of the same moment apart."""
    assert len({IdMaker(5).prefix for _ in range(1000)}) == 1000


def test_a_batch_has_a_bound() -> None:
    """The counter never runs over into the prefix."""
    maker = IdMaker(0)
    maker._next = (1 << 24) - 1
    assert maker.make(1)[0].endswith("ffffff")
    with pytest.raises(OverflowError):
        maker.make(1)
