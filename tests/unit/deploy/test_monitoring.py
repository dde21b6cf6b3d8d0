"""What `deploy/` ships for Grafana and Prometheus asks only for metrics, labels and answers that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy/prometheus/tallystick.rules.yaml"
DASHBOARD = ROOT / "deploy/grafana/tallystick.json"
_ROW = re.compile(r"^\| `(tallystick_[a-z_0-9]+)` \| (\w+) \| ([^|]*) \|", re.M)
_SELECTOR = re.compile(r"(tallystick_[a-z_0-9]+)(?:\{([^}]*)\})?")


def metrics() -> dict[str, set[str]]:
    """Every name that a scrape can have, with its labels, as docs/metrics.md lists them (held to the registry by test_docs)."""
    found: dict[str, set[str]] = {}
    for name, kind, labels in _ROW.findall((ROOT / "docs/metrics.md").read_text()):
        own = set(re.findall(r"`([a-z_]+)`", labels))
        found[name] = own
        if kind == "histogram":
            found |= {f"{name}_bucket": own | {"le"}, f"{name}_sum": own, f"{name}_count": own}
    return found


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str, str]]:
    """(where, expression, text that names labels of its result)"""
    for rule in alerts():
        yield rule["alert"], rule["expr"], " ".join(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"], " ".join(re.findall(r"{{(\w+)}}", target["legendFormat"]))


@pytest.mark.parametrize(("where", "expression", "labels"), list(expressions()))
def test_each_expression_asks_for_what_there_is(where: str, expression: str, labels: str) -> None:
    """Names of metrics, labels that select or group them, and labels that a text shows."""
    known = metrics()
    named = dict(_SELECTOR.findall(expression))
    assert named or "up{" in expression, where
    available = {"instance", "job"}
    for name, selector in named.items():
        assert name in known, (where, name)
        available |= known[name]
        assert set(re.findall(r"(\w+)\s*[=!]~?\"", selector)) <= known[name] | {"instance", "job"}, (where, name)
    for grouping in re.findall(r"by \(([^)]*)\)", expression):
        assert {one.strip() for one in grouping.split(",")} <= available, where
    assert set(labels.split()) <= available, where
    assert expression.count("(") == expression.count(")")
    is_rate = re.search(r"(?:rate|increase)\((?!tallystick_\w+(?:_total|_bucket|_sum|_count)\b)", expression)
    assert not is_rate, f"{where}: a rate of what is no counter"


def test_each_alert_can_be_acted_on() -> None:
    """A name of its own, a severity, a summary, and a sentence on what to do."""
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) >= 10
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} == set(rule["annotations"])
    page = (ROOT / "docs/operate.md").read_text()
    assert not [name for name in names if f"`{name}`" not in page]


def test_the_rules_pass_promtool(tmp_path: Path) -> None:
    """Prometheus' own checker reads every rule and every expression of the dashboard."""
    promtool = shutil.which("promtool")
    assert promtool, "run tools/install-test-parts"
    panelled = [target["expr"].replace("$__rate_interval", "5m") for panel in panels() for target in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(panelled)]
    made = tmp_path / "dashboard.yaml"
    made.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(RULES), str(made)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_one() -> None:
    """Ids are unique, panels lie on the grid of 24 and do not overlap, and all go by the data source that the reader picks."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "schemaVersion", "templating", "time"} <= set(dashboard)
    every = dashboard["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    cells: set[tuple[int, int]] = set()
    for panel in every:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not own & cells, panel["title"]
        cells |= own
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    assert variables == {"datasource", "instance"}
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) >= 1
