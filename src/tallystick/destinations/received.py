"""When a cut's events came: before that, nothing of it can be at its destination."""

from __future__ import annotations

from datetime import datetime

import msgspec

from tallystick.plugin import Cut


class _Received(msgspec.Struct):
    received_at: str


_decode = msgspec.json.Decoder(_Received).decode


def first_received(cut: Cut) -> datetime:
    """The receipt of the cut's first event, in UTC."""
    return datetime.fromisoformat(_decode(cut.lines[0]).received_at)
