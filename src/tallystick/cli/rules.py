"""`rules`: which there are, whether they are good, what their tests say, and what they would have raised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from tallystick.cli.connect import connect
from tallystick.cli.output import JsonOption, KeyOption, UrlOption, console, print_json, print_rows, print_table, safe, wants_json
from tallystick.errors import ConfigError

if TYPE_CHECKING:
    from tallystick.alerts.rule import RuleFile

rules = typer.Typer(help="Alert rules: list, check, test, and try them on what was archived.", no_args_is_help=True)
FilesArgument = Annotated[list[Path] | None, typer.Argument(help="Rule files; absent: those of the configuration.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="TALLYSTICK_CONFIG", help="Configuration file; ./tallystick.toml if there.")
]


def register(app: typer.Typer) -> None:
    app.add_typer(rules, name="rules")


def _load(files: list[Path] | None, config: Path | None) -> list[RuleFile]:
    """The named files, or those of the configuration, or else the built-in packs."""
    from tallystick.alerts.library import load_files, packs, read_file
    from tallystick.config import load_config

    if files:
        return [read_file(path) for path in files]
    if config is None and Path("tallystick.toml").exists():
        config = Path("tallystick.toml")
    return load_files(load_config(config)) if config is not None else list(packs().values())


@rules.command("list")
def list_rules(files: FilesArgument = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """List rules: those of files, of the configuration, or without one the built-in packs.

    Example:

      tallystick rules list
    """
    rows = [
        {"pack": Path(file.path).stem, "name": rule.name, "severity": rule.severity, "kind": rule.kind, "title": rule.title}
        for file in _load(files, config)
        for rule in file.rules
    ]
    print_rows(rows, ("pack", "name", "severity", "kind", "title"), is_json=json, empty="there are none")


@rules.command("check")
def check(files: FilesArgument = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Say what is wrong in rule files, by file and line: exit code 2. Warns of rules without a test that fires, and of fields that no
    event of a rule's tests has: such a rule may be deaf.

    Examples:

      tallystick rules check rules/*.toml
      tallystick rules check --config tallystick.toml
    """
    from tallystick.alerts.cases import warnings_of

    loaded = _load(files, config)
    found = [{"place": place, "rule": rule, "warning": text} for file in loaded for place, rule, text in warnings_of(file)]
    count = sum(len(file.rules) for file in loaded)
    if wants_json(json):
        for warning in found:
            print_json(warning)
        print_json({"rules": count, "warnings": len(found)})
        return
    for warning in found:
        console.print(f"{safe(warning['place'])}: {safe(warning['rule'])}: {safe(warning['warning'])}", style="yellow")
    console.print(f"{count} rules are good, {len(found)} warnings", style="yellow" if found else "green")


@rules.command("test")
def run_tests(files: FilesArgument = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Run the [[tests]] of rule files: events that must fire a rule, and events that must leave it silent. Exit code 1 when one fails.

    Examples:

      tallystick rules test rules/*.toml
      tallystick rules test
    """
    from tallystick.alerts.cases import run_rule_tests

    results = [result for file in _load(files, config) for result in run_rule_tests(file)]
    failed = [result for result in results if not result.ok]
    if wants_json(json):
        for result in results:
            print_json({**msgspec.to_builtins(result), "ok": result.ok})
        print_json({"passed": len(results) - len(failed), "failed": len(failed)})
    else:
        for result in failed:
            told = f"{result.rule}: {result.name}: {result.expected} alerts expected, {result.fired} raised ({result.place})"
            console.print(f"FAIL  {safe(told)}", style="bold red")
        console.print(f"{len(results) - len(failed)} passed, {len(failed)} failed", style="red" if failed else "green")
    if failed:
        raise typer.Exit(1)


@rules.command("backtest")
def backtest(
    files: FilesArgument = None,
    config: ConfigOption = None,
    last: Annotated[str, typer.Option("--last", help="How far back, by time of receipt, as in 7d or 24h.")] = "7d",
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Show what rules would have raised over the last days. Nothing is stored; the export that it reads is on record as any other.

    Examples:

      tallystick rules backtest rules/new.toml --last 7d
      tallystick rules backtest --config tallystick.toml --last 24h --tenant acme --json
    """
    from tallystick.alerts.backtest import Backtest

    chosen = [rule for file in _load(files, config) for rule in file.rules]
    if not chosen:
        raise ConfigError("there are no rules to try")
    trial = Backtest(chosen)
    is_json = wants_json(json)
    with connect(url, key) as client:
        for event in _exported(
            client.stream("/v1/export", format="jsonl", time="received_at", tenant=tenant, **{"from": f"-{last}"})
        ):
            for alert in trial.take(event):
                if is_json:
                    print_json({"tenant": alert.tenant, **alert.event})
    report = trial.report()
    if is_json:
        print_json(report)
        return
    rows = ((name, row["severity"], row["alerts"], ", ".join(row["unresolved"])) for name, row in report["rules"].items())
    print_table(("rule", "severity", "alerts", "fields that no event has"), rows)
    console.print(f"{report['events']:,} events, {report['alerts']:,} alerts")


def _exported(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line:
            yield msgspec.json.decode(line)
