"""Where rules are found: files that the configuration names, and the packs that ship with Tallystick (`rules/*.toml`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from tallystick.alerts.rule import RULES_MAX, Rule, RuleFile, read_rules
from tallystick.config import Config
from tallystick.config.load import place_of
from tallystick.errors import ConfigError

ALL = "all"


@cache
def packs() -> dict[str, RuleFile]:
    """The built-in packs by name."""
    found = sorted((one for one in files("tallystick.alerts").joinpath("rules").iterdir() if one.name.endswith(".toml")), key=str)
    return {one.name.removesuffix(".toml"): read_rules(one.read_bytes(), one.name) for one in found}


def load_files(config: Config) -> list[RuleFile]:
    """Every rule file of a configuration. Raises ConfigError: a file, a pack or a disabled rule that is not there, a name used twice."""
    settings = config.alerts
    names = list(packs()) if ALL in settings.builtin else list(dict.fromkeys(settings.builtin))
    for name in names:
        if name not in packs():
            hint = f"There are {', '.join(packs())}, and {ALL}"
            raise ConfigError(f"there is no pack of rules `{name}`", place=place_of(config, "alerts.builtin"), hint=hint)
    found = [packs()[name] for name in names]
    for pattern in settings.rules:
        paths = _matching(config.base_dir, pattern)
        if not paths:
            hint = "Relative paths start at the configuration file"
            raise ConfigError(f"no rule file is at `{pattern}`", place=place_of(config, "alerts.rules"), hint=hint)
        found += [read_file(path) for path in paths]
    _check_names(found)
    known = {rule.name for one in found for rule in one.rules}
    for name in settings.disabled:
        if name not in known:
            raise ConfigError(f"there is no rule `{name}` to leave out", place=place_of(config, "alerts.disabled"))
    return found


def load_rules(config: Config) -> list[Rule]:
    """The rules in force. Raises ConfigError."""
    return [rule for one in load_files(config) for rule in one.rules if rule.name not in config.alerts.disabled]


def read_file(path: Path) -> RuleFile:
    """One file of the user's. Raises ConfigError."""
    try:
        return read_rules(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read the rule file: {error.strerror}", place=str(path)) from error


def _matching(base_dir: Path, pattern: str) -> list[Path]:
    start = Path("/") if pattern.startswith("/") else base_dir
    return sorted(path for path in start.glob(pattern.lstrip("/")) if path.is_file())


def _check_names(found: Sequence[RuleFile]) -> None:
    places: dict[str, str] = {}
    for one in found:
        for name, place in one.places.items():
            if name in places:
                raise ConfigError(f"there is a rule `{name}` already", place=place, hint=f"The other is at {places[name]}")
            places[name] = place
    if len(places) > RULES_MAX:
        raise ConfigError(f"there are {len(places)} rules, and {RULES_MAX} at most are judged")
