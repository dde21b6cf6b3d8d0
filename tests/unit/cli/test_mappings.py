"""`tallystick mappings`, run as a command."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from typer.testing import CliRunner

from tallystick.cli.main import app


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["mappings", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_list_and_show() -> None:
    """Every name that is listed can be shown, and is a whole file."""
    names = [json.loads(line)["name"] for line in run("list").splitlines()]
    assert "aws_cloudtrail" in names
    for name in names:
        assert tomllib.loads(run("show", name))["name"] == name
    assert json.loads(run("show", "generic", "--json"))["name"] == "generic"


def test_report(tmp_path: Path) -> None:
    """A file of one's own; without it, the mapping that fits; two files of one kind make one report."""
    records = tmp_path / "records.jsonl"
    records.write_text('{"what":"door.open","who":"ann"}\n{"who":"bob"}\n')
    own = tmp_path / "acme.toml"
    own.write_text('[envelope]\naction = "what"\n[actor]\ntype = { const = "user" }\nid = "who"\n')
    document = json.loads(run("report", "--mapping", str(own), str(records)))
    assert (document["mapping"], document["records"], document["problems"]) == ("acme", 2, {"field_missing": 1})
    assert json.loads(run("report", str(records), str(records)))["records"] == 4
