"""What reaches a terminal."""

from __future__ import annotations

import pytest

from tallystick.cli.output import console, safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 漢字 🙂", "plain äöü 漢字 🙂"),
        ("a\tb\r\nc", "a\\u0009b\\u000d\\u000ac"),
        ("\x1b[2J\x9b", "\\u001b[2J\\u009b"),
        ("\u202egnp\u2069\u200b\ufeff\u00ad", "\\u202egnp\\u2069\\u200b\\ufeff\\u00ad"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\U000e0041", "\\U000e0041"),
        ("wide\u3000blank", "wide\u3000blank"),
        ("\ud800", "\\ud800"),
    ],
)
def test_safe_escapes_what_cannot_be_seen(text: str, shown: str) -> None:
    """Controls, line ends, direction marks, invisible characters and halves of pairs; letters of every script stay."""
    assert safe(text) == shown


def test_brackets_are_printed_as_they_are() -> None:
    """Nothing in a text is taken for a colour, a link or the name of an emoji."""
    with console.capture() as capture:
        console.print("severity:[three TO six] [/x] [red]y :smile:")
    assert capture.get() == "severity:[three TO six] [/x] [red]y :smile:\n"
