"""Rule files: what is wrong in one is told with its line; the built-in packs hold what their tests say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.alerts.cases import events_of, run_rule_tests, unresolved
from tallystick.alerts.library import load_rules, packs
from tallystick.alerts.rule import read_rules
from tallystick.config import AlertSettings, Config
from tallystick.errors import ConfigError

GOOD = '[[rules]]\nname = "a"\ntitle = "t"\nseverity = "low"\nquery = "action:a.b"\n'


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (GOOD + 'colour = "red"\n', 6, "unknown key `colour`"),
        (GOOD.replace("low", "bad"), 4, "Invalid enum value"),
        (GOOD.replace("action:a.b", "action:("), 5, "query"),
        (GOOD.replace("action:a.b", "acton:a.b"), 5, "Did you mean action"),
        (GOOD + 'kind = "threshold"\ncount = 5\n', 6, "needs `window`"),
        (GOOD + 'kind = "threshold"\nwindow = "5"\ncount = 5\n', 7, "no duration"),
        (GOOD + "count = 5\n", 6, "no meaning"),
        (GOOD + 'group = ["actor", "nobody"]\n', 6, "unknown field"),
        (GOOD + 'attack = ["1562"]\n', 6, "T1562.008"),
        (GOOD + GOOD, 6, "already"),
        (GOOD + '[[tests]]\nrule = "b"\nname = "n"\nevents = []\nfires = 0\n', 6, "no rule of this file"),
        ("rules = [\n", 1, "not valid TOML"),
        ("[rules]\n", 1, "no list of tables"),
        ("\nfoo = 1\n", 2, "unknown key"),
        ('[[rules]]\nname = "a"\n', 1, "missing required field"),
    ],
)
def test_mistakes_are_told_with_their_line(text: str, line: int, words: str) -> None:
    """File, line, and words that help."""
    with pytest.raises(ConfigError) as caught:
        read_rules(text.encode(), "r.toml")
    assert caught.value.place == f"r.toml:{line}"
    assert words in str(caught.value)


def test_rules_are_found_by_patterns_and_packs(tmp_path: Path) -> None:
    """Those left out are left out; what is named and not there is refused, and so is a name used twice."""
    (tmp_path / "one.toml").write_text(GOOD)
    (tmp_path / "two.toml").write_text(GOOD.replace('"a"', '"b"'))
    path = str(tmp_path / "tallystick.toml")

    def names(**settings: tuple[str, ...]) -> list[str]:
        return [rule.name for rule in load_rules(Config(alerts=AlertSettings(**settings), path=path))]

    assert names(rules=("*.toml",), disabled=("a",)) == ["b"]
    assert "tallystick-mass-export" in names(builtin=("all",))
    for wrong in ({"rules": ("none/*.toml",)}, {"builtin": ("none",)}, {"rules": ("*.toml",), "disabled": ("c",)}):
        with pytest.raises(ConfigError):
            names(**wrong)
    (tmp_path / "two.toml").write_text(GOOD)
    with pytest.raises(ConfigError, match="already"):
        names(rules=("*.toml",))


@pytest.mark.parametrize("pack", packs())
def test_the_built_in_packs_do_what_their_tests_say(pack: str) -> None:
    """Each rule has a test that fires it and one that does not, and no rule reads a field that none of its events has."""
    file = packs()[pack]
    results = run_rule_tests(file)
    assert [result for result in results if not result.ok] == []
    for rule in file.rules:
        expected = [result.expected for result in results if result.rule == rule.name]
        assert 0 in expected, rule.name
        assert any(expected), rule.name
        events = [
            event
            for test, place in zip(file.tests, file.test_places, strict=True)
            if test.rule == rule.name
            for _, event in events_of(test, place)
        ]
        assert unresolved(rule, events) == [], rule.name
        assert rule.name.startswith(pack.split("_")[0])
        assert rule.description
