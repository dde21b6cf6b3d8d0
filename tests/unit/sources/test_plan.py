"""Plans: what the configuration says of each source, and what it may not say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.query.evaluate import compile_query
from tallystick.sources.plan import SourcePlan, build_plans


def plans(tmp_path: Path, text: str) -> dict[str, SourcePlan]:
    path = tmp_path / "tallystick.toml"
    path.write_text(text)
    return dict(build_plans(load_config(path), compile_query))


def test_built_in_sources_are_there_without_a_file() -> None:
    """`/v1/events` refuses bad events by default and redacts secrets; our own events are left as they are."""
    built = build_plans(load_config(None), compile_query)
    assert {"events", "tallystick", "otlp", "hec"} <= set(built)
    assert (built["events"].on_invalid, [one.name for one in built["events"].transforms]) == ("reject", ["secrets"])
    assert built["tallystick"].transforms == ()


def test_a_declared_source(tmp_path: Path) -> None:
    """Mapping, tenant, and transforms: those of the pipeline first, then its own, in order."""
    text = """
[transforms.noise]
type = "filter"
drop = "action:a.b"
[sources.gh-1]
type = "http"
mapping = "github_audit"
tenant = "acme"
transforms = ["noise"]
keep_raw = false
"""
    plan = plans(tmp_path, text)["gh-1"]
    assert plan.mapping is not None
    assert (plan.mapping.name, plan.tenant, plan.on_invalid, plan.keep_raw) == ("github_audit", "acme", "quarantine", False)
    assert [one.name for one in plan.transforms] == ["secrets", "noise"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[sources.events]\ntype = "http"', "built-in"),
        ('[sources.tallystick]\ntype = "http"', "built-in"),
        ('[sources."a/b"]\ntype = "http"', "no name of a source"),
        ('[sources.x]\ntype = "nosuch"', "unknown source type 'nosuch'"),
        ("[sources.x]\nmapping = 'generic'", "sources.x has no `type`"),
        ('[sources.x]\ntype = "http"\nmapping = "nosuch"', "no mapping `nosuch`"),
        ('[sources.x]\ntype = "http"\ntenant = "Not a tenant"', "sources.x.tenant"),
        ('[sources.x]\ntype = "http"\ncolour = 3', "unknown key `colour`"),
        ('[sources.x]\ntype = "http"\ntransforms = ["nosuch"]', "no transform `nosuch`"),
        ('[transforms.unused]\ntype = "filter"', "needs either `drop` or `keep`"),
        ('[transforms.unused]\ntype = "nosuch"', "no known type"),
        ('[transforms.unused]\ntype = "filter"\ndrop = "action:(a"', "transforms.unused: "),
        ('[pipeline]\ntransforms = ["nosuch"]', "no transform `nosuch`"),
    ],
)
def test_what_a_configuration_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    """Each is a ConfigError that names what is wrong, and the line."""
    with pytest.raises(ConfigError, match=message) as caught:
        plans(tmp_path, text)
    assert re.fullmatch(r".*tallystick\.toml:[1-4]", caught.value.place or "")
