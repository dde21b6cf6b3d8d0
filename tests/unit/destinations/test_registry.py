"""Destinations in a configuration: what is refused, with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.config import load_config
from tallystick.destinations import build_destinations
from tallystick.errors import ConfigError


def build(tmp_path: Path, text: str) -> object:
    path = tmp_path / "tallystick.toml"
    path.write_text(text)
    return build_destinations(load_config(path))


def test_relative_paths_start_at_the_configuration_file(tmp_path: Path) -> None:
    """Not at the working directory."""
    text = '[destinations.disk]\ntype = "file"\npath = "out/e.jsonl"\n[destinations.lake]\ntype = "object_store"\nurl = "lake"\n'
    built = build(tmp_path, text)
    assert set(built) == {"disk", "lake"}  # type: ignore[call-overload]
    assert (tmp_path / "lake").is_dir()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[destinations.x]\ntype = "carrier_pigeon"', "unknown destination type 'carrier_pigeon'"),
        ("[destinations.x]\npath = 'y'", "unknown destination type ''"),
        ('[destinations."Not/Good"]\ntype = "file"\npath = "y"', "made of a-z"),
        ('[destinations.x]\ntype = "file"\npath = "y"\ncolour = "red"', "unknown key `colour`"),
        ('[destinations.x]\ntype = "file"\npath = "y"\nwhere = "action:"', r"destinations\.x\.where"),
        ('[destinations.x]\ntype = "file"\npath = "y"\nbatch = { max_events = 0 }', r"destinations\.x\.batch"),
        ('[destinations.x]\ntype = "file"\npath = "y"\nencoding = "xml"', r"destinations\.x\.encoding: unknown encoding 'xml'"),
        ('[destinations.x]\ntype = "webhook"\nurl = "https://example.com"', "secret"),
        (
            '[destinations.x]\ntype = "webhook"\nurl = "https://example.com"\nsecret = "long enough a secret"\nca = "none.pem"',
            "CA file cannot be used",
        ),
        (
            '[destinations.x]\ntype = "webhook"\nurl = "https://example.com"\nsecret = "short"',
            r"destinations\.x: the secret is shorter",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    """Type, name, keys, units, filters and secrets are checked before anything is opened."""
    with pytest.raises(ConfigError, match=words):
        build(tmp_path, text)
