"""What every encoding keeps, whatever its form."""

from __future__ import annotations

import pytest

from support.delivery import make_line
from tallystick.destinations.encodings import ENCODINGS, make_encoder, records_of
from tallystick.destinations.encodings.registry import find_encoding
from tallystick.errors import ConfigError

RANGE = {"origin": "audit.example.com/log/aaaaaaaaaaaaaaaa", "first_index": 3, "last_index": 5}


@pytest.mark.parametrize("name", sorted(ENCODINGS))
def test_one_event_is_one_record(name: str) -> None:
    """Lines come apart into as many records as there are events, all different, and a batch is the sum of its events."""
    lines = [make_line(index) for index in range(3)]
    records = records_of(make_encoder(name).encode(lines, **RANGE))
    assert len(set(records)) == 3
    assert records == [records_of(make_encoder(name).encode([line], **RANGE))[0] for line in lines]


def test_an_encoding_that_cannot_be_carried_is_refused() -> None:
    """The error names those that can be."""
    with pytest.raises(ConfigError, match="cannot carry") as caught:
        find_encoding("json", ("text",))
    assert "docs/encodings.md" in str(caught.value.hint)
