"""Syslog frames: what was framed is split again, and by the receiving side of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.destinations.encodings.json import make
from tallystick.destinations.encodings.syslog_frames import SyslogFrames
from tallystick.protocols.syslog_frames import SyslogFramer

MESSAGES = st.lists(st.binary(min_size=1, max_size=40).map(lambda data: b"<1>" + data.replace(b"\n", b" ")), min_size=1, max_size=6)


@pytest.mark.parametrize("is_counted", [True, False])
@given(messages=MESSAGES)
def test_frames_are_split_again(is_counted: bool, messages: list[bytes]) -> None:
    """Lengths and line feeds; messages may hold digits, blanks and anything but a line feed."""
    frames = SyslogFrames(make({}), is_counted=is_counted)
    assert frames.split(frames.frame(messages)) == messages
    if is_counted:
        assert SyslogFramer(1 << 16).feed(frames.frame(messages)) == messages
