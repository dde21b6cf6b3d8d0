"""Contrast of the two palettes, computed from the style sheet itself (WCAG 2.2, 1.4.3: 4.5 to 1 for text)."""

from __future__ import annotations

import re

import pytest

from tallystick.console.pages import static_file

SHEET = static_file("console.css")[0].decode()
TEXT = ("ink", "muted", "link", "failure", "denied", "proof")
GROUND = ("paper", "panel", "hover", "select")


def palettes() -> list[dict[str, str]]:
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in SHEET.split("@media (prefers-color-scheme: dark)", 1)
    )
    return [light, dark]


def luminance(colour: str) -> float:
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_text_can_be_read_on_every_ground(palette: dict[str, str]) -> None:
    """Every colour of text on every ground it may stand on."""
    pairs = [(text, ground) for text in TEXT for ground in GROUND] + [("denied", "bad-bg"), ("proof", "proof-bg")]
    weak = {f"{text} on {ground}": round(contrast(palette[text], palette[ground]), 2) for text, ground in pairs}
    assert {name: ratio for name, ratio in weak.items() if ratio < 4.5} == {}
