"""Frameworks: the built-in ones can be read, and what is wrong with one of the user's is said with its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.reports.framework import built_in, load_frameworks

OWN = """
id = "soc2"
name = "Ours"
version = "1"
about = "What our auditor asks for."
[[controls]]
id = "X.1"
title = "Log-ins"
asks = "Log-ins are on record."
query = "action:user.login"
"""


def test_the_five_frameworks_are_there() -> None:
    """Each has controls with queries that can be read."""
    assert set(built_in()) == {"soc2", "iso27001", "pci", "hipaa", "gdpr"}
    assert all(len(one.controls) >= 12 for one in built_in().values())


def load(directory: Path, text: str) -> dict[str, str]:
    (directory / "own.toml").write_text(text)
    path = directory / "tallystick.toml"
    path.write_text('[reports]\nframeworks = ["own.toml"]\n')
    return {name: one.name for name, one in load_frameworks(load_config(path)).items()}


def test_one_of_the_users_takes_the_place_of_a_built_in(tmp_path: Path) -> None:
    """By its id; the others stay."""
    names = load(tmp_path, OWN)
    assert names["soc2"] == "Ours"
    assert names["gdpr"].startswith("GDPR")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('query = "action:user.login"', 'query = "(("', "control X.1"),
        ('query = "action:user.login"', "", "query"),
        ('id = "X.1"', 'id = "X.1"\nsee = ["elsewhere"]', "elsewhere"),
        ('version = "1"', "version = 1", "version"),
        ('about = "', "about = ", "own.toml"),
        ("[[controls]]", '[[controls]]\nid="X.1"\ntitle="a"\nasks="b"\nquery="action:a"\n[[controls]]', "twice"),
    ],
)
def test_what_is_no_framework(tmp_path: Path, old: str, new: str, said: str) -> None:
    """The error names the file and what is wrong."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, OWN.replace(old, new, 1))
    assert said in str(caught.value)
    assert "own.toml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The error points at the configuration."""
    path = tmp_path / "tallystick.toml"
    path.write_text('[reports]\nframeworks = ["nosuch.toml"]\n')
    with pytest.raises(ConfigError, match=r"tallystick\.toml:2"):
        load_frameworks(load_config(path))
