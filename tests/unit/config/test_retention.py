"""`[retention]`: what cannot be meant is refused with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.config import load_config
from tallystick.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('[retention.classes.x]\nperiod = "0s"', 2, "shorter than a second"),
        ('[retention.classes.x]\nperiod = "1d"\nfloor = "2d"', 3, "longer than the period"),
        ('[retention.classes."a.b"]\nperiod = "1d"', 1, "no name of a class"),
        ('[retention.classes.standard]\nwhere = "action:*"', 1, "takes what no other class takes"),
        ('[tenants.acme]\nretention = { gone = "1d" }', 2, "no retention class 'gone'"),
        ('[retention.classes.x]\nfloor = "9d"\n[tenants.acme]\nretention = { x = "8d" }', 4, "less than the floor"),
        ('[tenants.acme]\nretention = { standard = "1y" }', 2, "no duration"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, line: int, says: str) -> None:
    """Each with the line that has to be changed."""
    path = tmp_path / "tallystick.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(path)
    assert caught.value.place == f"{path}:{line}"


def test_standard_is_there_without_a_table(tmp_path: Path) -> None:
    """400 days, beside whatever else is declared."""
    path = tmp_path / "tallystick.toml"
    path.write_text('[retention.classes.x]\nperiod = "3s"\n')
    known = load_config(path).retention.known
    assert {name: one.period.text for name, one in known.items()} == {"x": "3s", "standard": "400d"}
