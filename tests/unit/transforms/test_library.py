"""Mapping files of ours and of users."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.pipeline.cases import run_cases
from tallystick.query.evaluate import compile_query
from tallystick.sources.plan import build_plans
from tallystick.transforms.library import find_mapping, load_mappings, mapping_texts, read_mapping, redact_tables

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
    assert redact_tables(config)[plan.mapping.name][1] == {"pin"}


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


_PAGE = Path(__file__).parents[3] / "docs" / "mappings.md"


async def test_the_walk_of_the_page_ends_in_green_tests(tmp_path: Path) -> None:
    """The mapping and the configuration of the documentation, as they stand there."""
    walk = _PAGE.read_text("utf-8").partition("### From a file of samples to green tests")[2]
    mapping, configuration = re.findall(r"```toml\n(.*?)```", walk, re.DOTALL)[:2]
    (tmp_path / "grafana.toml").write_text(mapping)
    (tmp_path / "tallystick.toml").write_text(configuration)
    results, untouched = await run_cases(load_config(tmp_path / "tallystick.toml"))
    assert [(result.name, result.differences) for result in results] == [("a failed login", []), ("a login", [])]
    assert not untouched.mappings


@pytest.mark.parametrize(
    ("table", "words", "line"),
    [
        ('[context]\nadress = "a"', "no `adress`", 7),
        ('[[dispatch]]\nwhen = { path = "a", present = true }\ncategory = "login"', "no category 'login'", 8),
        ('[[dispatch]]\nwhen = { path = "a", present = true }\nseverity = 9', "no severity 9", 6),
        ('[[dispatch]]\ncategory = "data"', "no `when`", 6),
        ('[contexts]\nip = "a"', "no table 'contexts'", 6),
        ('[context]\nip = { path = "a", as = "slog" }', "no form of text", 7),
        ('[[on_behalf_of]]\nid = "a"\nmode = { template = "{a}" }', "whatever a record says", 6),
        ('[[targets]]\nid = "a"\ntype = "b"\nkind = "c"', "no `kind`", 9),
        ("match = 1", "", 1),
    ],
)
def test_what_no_event_can_have_is_refused_with_its_line(tmp_path: Path, table: str, words: str, line: int) -> None:
    """A mapping makes valid events only, and its file says where it would not."""
    head = '[envelope]\naction = [{ path = "a", as = "action" }, { const = "x" }]\noutcome = { const = "success" }\n[actor]\nid = "a"\n'
    path = tmp_path / "own.toml"
    path.write_text(table + "\n" + head if "=" in table.partition("\n")[0] else head + table + "\n")
    with pytest.raises(ConfigError) as caught:
        read_mapping(path)
    assert words in caught.value.message
    assert caught.value.place == f"{path}:{line}"


@pytest.mark.parametrize("count", [1, 8])
def test_an_action_that_no_event_can_have_goes_to_the_quarantine(tmp_path: Path, count: int) -> None:
    """Of one record and of a group that is mapped at once."""
    path = tmp_path / "own.toml"
    path.write_text('[envelope]\naction = "a"\n[actor]\ntype = { const = "system" }\nid = { const = "x" }\n')
    result = read_mapping(path).map_batch([b'{"a":"two words","n":%d}' % number for number in range(count)])
    assert not result.events
    assert [problem.code for problem in result.problems] == ["field_invalid"] * count
