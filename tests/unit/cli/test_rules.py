"""`tallystick rules`, run as a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from tallystick.alerts.backtest import Backtest
from tallystick.alerts.rule import read_rules
from tallystick.cli.main import app
from tallystick.errors import ConfigError

RULE = """
[[rules]]
name = "denials"
title = "t"
severity = "low"
query = "outcome:denied AND metadata.plan:gold"
kind = "threshold"
count = 2
window = "1h"

[[tests]]
rule = "denials"
name = "two"
fires = 1
events = [{ action = "a.b", actor = "u", outcome = "denied", metadata = { plan = "gold" }, times = 2 }]
"""


def run(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["rules", *arguments])
    assert done.exit_code == code, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(RULE)
    return path


def test_list_names_every_rule_with_its_pack() -> None:
    """Without a configuration these are the built-in ones."""
    rows = run("list")
    assert {"tallystick", "aws", "okta"} <= {row["pack"] for row in rows}
    assert len(rows) >= 40


def test_check_tells_what_is_wrong_and_what_may_be_deaf(file: Path) -> None:
    """A field that no event of the tests has, a rule that no test fires, and a mistake with its line."""
    assert run("check", str(file)) == [{"rules": 1, "warnings": 0}]
    file.write_text(RULE.replace('plan = "gold"', 'plam = "gold"'))
    assert run("check", str(file))[0]["warning"] == "no event of its tests has metadata.plan"
    file.write_text(RULE.replace("fires = 1", "fires = 0"))
    assert run("check", str(file))[0]["warning"] == "no test fires it"
    file.write_text(RULE.replace("count = 2", "count = 1"))
    with pytest.raises(ConfigError, match=r"r\.toml:8"):
        CliRunner().invoke(app, ["rules", "check", str(file)], catch_exceptions=False)


def test_a_failed_test_is_exit_code_1(file: Path) -> None:
    """And says how many alerts there were."""
    assert run("test", str(file))[-1] == {"passed": 1, "failed": 0}
    file.write_text(RULE.replace("times = 2", "times = 1"))
    result, total = run("test", str(file), code=1)
    assert (result["expected"], result["fired"], result["ok"]) == (1, 0, False)
    assert total == {"passed": 0, "failed": 1}


def test_a_backtest_judges_each_tenant_for_itself() -> None:
    """Tenants follow one another in an export, and their times begin again; fields that no event has are named."""
    trial = Backtest(read_rules(RULE.encode(), "r.toml").rules)
    alerts = []
    for tenant, minutes in (("a", (0, 10)), ("b", (5, 50)), ("c", (1,))):
        for minute in minutes:
            event = {"id": "e", "tenant": tenant, "action": "a.b", "actor": {"type": "user", "id": "u"}, "outcome": "denied"}
            event |= {"received_at": f"2026-03-01T10:{minute:02}:00.000000Z", "metadata": {"plan": "gold"}}
            alerts += trial.take(event)
    assert [alert.tenant for alert in alerts] == ["a", "b"]
    assert msgspec.to_builtins(trial.report()) == {
        "events": 5,
        "alerts": 2,
        "rules": {"denials": {"severity": "low", "alerts": 2, "unresolved": []}},
    }
    other = Backtest(read_rules(RULE.encode(), "r.toml").rules)
    other.take({**event, "metadata": {}})
    assert other.report()["rules"]["denials"]["unresolved"] == ["metadata.plan"]
