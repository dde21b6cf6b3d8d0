"""Mapping files of ours and of users."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.query.evaluate import compile_query
from tallystick.sources.plan import build_plans
from tallystick.transforms.library import find_mapping, load_mappings, mapping_texts, mappings_of, read_mapping

ACME = """
title = "ACME door"

[envelope]
action = ["what"]

[actor]
type = { const = "user" }
id = "who"

[redact]
keys = ["pin"]
"""


def test_each_of_ours_is_named_as_its_file() -> None:
    """So that `mappings show NAME` prints the file that a source with that name uses."""
    assert list(load_mappings()) == list(mapping_texts())
    assert "generic" in load_mappings()


def test_a_source_names_a_file_beside_the_configuration(tmp_path: Path) -> None:
    """It maps, and its keys to redact are known to the transform that hides secrets."""
    (tmp_path / "acme.toml").write_text(ACME)
    config_file = tmp_path / "tallystick.toml"
    config_file.write_text('[sources.door]\ntype = "http"\nmapping = "acme.toml"\n')
    config = load_config(config_file)
    plan = build_plans(config, lambda text: compile_query(text).matches_line)["door"]
    assert plan.mapping is not None
    (event,) = plan.mapping.map_batch([b'{"what":"door.open","who":"ann","pin":"1234"}']).events
    assert (event.action, event.actor.id) == ("door.open", "ann")
    assert mappings_of(config)[-1].redact_keys == {"pin"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such mapping file"),
        ("[envelope\n", "TOML"),
        ("[actor]\nid = 'who'\n", r"no \[envelope\]"),
        ("[envelope]\naction = 'what'\n", r"no \[actor\]"),
        (ACME + "[colour]\n", "no table 'colour'"),
        (ACME.replace('["what"]', "{ paint = 1 }"), "is no expression"),
        (ACME.replace("action =", "act ="), "action"),
        (ACME + "[changes]\nbefore = ['(']\n", "cannot be understood"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_what_is_wrong(tmp_path: Path, text: str | None, words: str) -> None:
    """Whatever it is, the file's place stands in the error."""
    path = tmp_path / "acme.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_mapping(path)
    assert str(caught.value.place).startswith(str(path))


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no mapping `nothing`") as caught:
        find_mapping("nothing", Path())
    assert "aws_cloudtrail" in str(caught.value.hint)
