"""`tallystick test` and `tallystick try`: the examples of the documentation, differences, what no test touched, every fate."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tallystick.cli.main import app
from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.pipeline.cases import run_cases

PAGE = Path(__file__).parents[3] / "docs" / "transforms.md"
EXAMPLES = re.findall(r"^## (\w+)\n(?:(?!^## ).)*?```toml\n(.*?)```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)

CONFIGURATION = """
[pipeline]
transforms = ["noise", "team"]
[sources.cloudtrail]
type = "http"
mapping = "aws_cloudtrail"
tenant = "acme"
[transforms.noise]
type = "filter"
drop = "action:health.check"
[transforms.team]
type = "rename"
paths = { "metadata.team" = "actor.name" }
[destinations.disk]
type = "file"
path = "out.jsonl"
where = "outcome:denied"
"""


def run(tmp_path: Path, *arguments: str, text: str = CONFIGURATION) -> tuple[int, list[dict[str, Any]]]:
    (tmp_path / "t.toml").write_text(text)
    done = CliRunner().invoke(app, list(arguments))
    if isinstance(done.exception, ConfigError):
        raise done.exception
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
async def test_the_examples_of_the_page_pass(tmp_path: Path, name: str, text: str) -> None:
    """Each as it stands there, and its transform is touched by its tests."""
    path = tmp_path / "t.toml"
    path.write_text(text)
    results, untouched = await run_cases(load_config(path))
    assert results
    assert [(result.name, result.differences) for result in results if not result.ok] == []
    assert not [one for one in (*untouched.transforms, *untouched.filters) if one not in ("secrets", "own")]


def test_every_type_has_an_example() -> None:
    """A transform without one is found here."""
    from tallystick.transforms import TRANSFORMS

    assert {name for name, _ in EXAMPLES} == set(TRANSFORMS)


def test_a_failure_names_what_differs_and_what_no_test_touched(tmp_path: Path) -> None:
    """Exit 1; the place of the test, each path with both sides; mappings, transforms and filters by name."""
    tests = """
[[tests]]
name = "good"
source = "events"
input = { action = "user.login", actor = "u", outcome = "denied" }
expect = { actor = { id = "u" } }
destinations = ["disk"]
[[tests]]
name = "bad"
source = "events"
input = { action = "user.login", actor = "u" }
expect = { actor.id = "v", outcome = "unknown", metadata.x = 1 }
absent = ["actor.type"]
destinations = ["disk"]
[[tests]]
name = "worse"
source = "events"
input = ["no json", { action = "a", actor = "u" }]
expect = { action = "a" }
"""
    code, lines = run(tmp_path, "test", str(tmp_path / "t.toml"), text=CONFIGURATION + tests)
    assert code == 1
    assert [line["ok"] for line in lines[:-1]] == [True, False, False]
    found = {one["path"]: (one["expected"], one["found"]) for one in lines[1]["differences"]}
    assert found == {
        "actor.id": ("v", "u"),
        "metadata": ({"x": 1}, None),
        "actor.type": (None, "user"),
        "destinations": (["disk"], []),
    }
    line = 1 + (CONFIGURATION + tests).split("\n").index('name = "bad"')
    assert lines[1]["place"] == f"{tmp_path / 't.toml'}:{line - 1}"
    assert "json_invalid" in lines[2]["differences"][0]["found"]
    assert lines[-1] == {
        "passed": 1,
        "failed": 2,
        "untouched": {"mappings": ["aws_cloudtrail"], "transforms": ["team"], "filters": ["noise"]},
    }


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("", "there are no tests"),
        ('[[tests]]\nname = "x"\nsource = "nosuch"\ninput = "x"\nexpect = {}', "no source `nosuch`"),
        ('[[tests]]\nname = "x"\nsource = "events"\ninput = "x"', "needs `expect`"),
        ('[[tests]]\nname = "x"\nsource = "events"\ninput = "x"\nfiltered = "nosuch"', "no transform `nosuch`"),
        ('[[tests]]\nname = "x"\nsource = "events"\ninput = "x"\nexpect = {}\ndestinations = ["no"]', "no destination `no`"),
        ('[[tests]]\nname = "x"\nsource = "events"\ninput = "x"\nexpects = {}', "unknown key `expects`"),
    ],
)
def test_wrong_tests_are_refused_with_their_line(tmp_path: Path, test: str, words: str) -> None:
    """As any wrong configuration."""
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, "test", str(tmp_path / "t.toml"), text=f"{CONFIGURATION}\n{test}\n")
    assert words in str(caught.value)
    assert "t.toml" in str(caught.value)


def test_strict_fails_for_what_no_test_touched(tmp_path: Path) -> None:
    """All tests pass, and yet exit 1 with `--strict`."""
    text = CONFIGURATION + '[[tests]]\nname = "x"\nsource = "events"\ninput = { action = "a", actor = "u" }\nexpect = {}\n'
    assert run(tmp_path, "test", str(tmp_path / "t.toml"), text=text)[0] == 0
    assert run(tmp_path, "test", "--strict", str(tmp_path / "t.toml"), text=text)[0] == 1


def test_try_shows_every_fate_and_stores_nothing(tmp_path: Path) -> None:
    """Event, duplicate, conflict, filtered, bad and unshapeable, each with who, why and which destinations."""
    records = [
        '{"id":"1","action":"a.b","actor":"u","metadata":{"team":"red"},"outcome":"denied"}',
        '{"id":"1","action":"a.b","actor":"u","metadata":{"team":"red"},"outcome":"denied"}',
        '{"id":"1","action":"a.c","actor":"u"}',
        '{"action":"health.check","actor":"u"}',
        '{"action":"a.b"}',
        '{"action":"a.b","actor":"u","metadata":{"team":7}}',
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(records))
    config, file = str(tmp_path / "t.toml"), str(tmp_path / "r.jsonl")
    code, fates = run(tmp_path, "try", "--config", config, "--source", "events", file)
    assert code == 0
    assert [(fate["record"], fate["outcome"]) for fate in fates] == list(
        enumerate(["accepted", "duplicate", "quarantined", "filtered", "refused", "refused"], 1)
    )
    assert (fates[0]["event"]["actor"]["name"], fates[0]["changed_by"]) == ("red", ["team"])
    assert fates[0]["destinations"] == {"disk": "would get it"}
    assert (fates[2]["code"], fates[3]["by"]) == ("id_conflict", "noise")
    assert (fates[4]["pointer"], fates[5]["code"]) == ("/actor", "transform_failed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.jsonl", "t.toml"]


def test_try_opens_what_a_mapping_opens(tmp_path: Path) -> None:
    """One file of a product with several records in it; what has no action says which mapping found it bad."""
    (tmp_path / "r.json").write_text('{"Records":[{"eventVersion":"1.08","eventSource":"s3.amazonaws.com","eventName":"GetObject","eventID":"1","userIdentity":{"type":"Root","arn":"arn:aws:iam::1:root"},"eventTime":"2026-03-04T10:00:00Z"},{"x":1}]}')  # fmt: skip
    _, fates = run(
        tmp_path, "try", "--config", str(tmp_path / "t.toml"), "--source", "cloudtrail", "--json", str(tmp_path / "r.json")
    )
    assert [fate["outcome"] for fate in fates] == ["accepted", "quarantined"]
    assert (fates[0]["tenant"], fates[1]["by"]) == ("acme", "mapping aws_cloudtrail")
