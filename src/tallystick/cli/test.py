"""`test` and `try`: what a configuration makes of records, before any server runs it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from tallystick.cli.output import JsonOption, console, print_json, safe, wants_json

if TYPE_CHECKING:
    from tallystick.pipeline.cases import CaseResult, Untouched
    from tallystick.pipeline.rehearsal import Fate

_STYLES = {
    "accepted": "green",
    "duplicate": "dim",
    "filtered": "yellow",
    "quarantined": "red",
    "refused": "red",
    "nothing": "yellow",
}


def register(app: typer.Typer) -> None:
    app.command("test")(run_tests)
    app.command("try")(try_records)


def run_tests(
    config: Annotated[Path, typer.Argument(help="Configuration file with [[tests]].")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail also when no test touched a mapping, transform or filter.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run the tests written in a configuration against its mappings, transforms and filters. Nothing is stored.

    Exit code 1 when a test fails. What no test touched is named.

    Examples:

      tallystick test tallystick.toml
      tallystick test --strict --json tallystick.toml
    """
    from tallystick.config import load_config
    from tallystick.pipeline.cases import run_cases

    results, untouched = asyncio.run(run_cases(load_config(config)))
    failed = sum(not result.ok for result in results)
    if wants_json(json):
        for result in results:
            print_json(result)
        print_json({"passed": len(results) - failed, "failed": failed, "untouched": untouched})
    else:
        for result in results:
            _print_result(result)
        _print_untouched(untouched)
        console.print(f"{len(results) - failed} passed, {failed} failed", style="red" if failed else "green")
    if failed or (strict and untouched):
        raise typer.Exit(1)


def _print_result(result: CaseResult) -> None:
    if result.ok:
        console.print(f"ok    {safe(result.name)}", style="green")
        return
    console.print(f"FAIL  {safe(result.name)} ({result.place})", style="bold red")
    for one in result.differences:
        for sign, value, style in (("-", one.expected, "red"), ("+", one.found, "green")):
            console.print(f"      {sign} {safe(one.path)}: {_value(value)}", style=style)


def _value(value: Any) -> str:
    return "(nothing)" if value is None else safe(msgspec.json.encode(value, enc_hook=str).decode())


def _print_untouched(untouched: Untouched) -> None:
    for kind in ("mappings", "transforms", "filters"):
        if names := getattr(untouched, kind):
            console.print(f"no test touched these {kind}: {safe(', '.join(names))}", style="yellow")


def try_records(
    file: Annotated[Path, typer.Argument(help="Records: a JSON document, or one record a line; .gz is opened.")],
    source: Annotated[str, typer.Option("--source", help="The source that they would come to.")],
    config: Annotated[
        Path | None, typer.Option("--config", envvar="TALLYSTICK_CONFIG", help="Configuration file; ./tallystick.toml if there.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show, record by record, what would become of a file: events, what filters take away, what would be quarantined and why, and
    which destinations would get it. Nothing is stored.

    Records go alone: duplicates are found among those of the file only, and what a transport would add is not there.

    Examples:

      tallystick try --source cloudtrail sample.json
      tallystick try --config tallystick.toml --source events --json events.jsonl
    """
    from tallystick.config import load_config
    from tallystick.pipeline.rehearsal import Rehearsal, cut_records

    if config is None and Path("tallystick.toml").exists():
        config = Path("tallystick.toml")
    rehearsal = Rehearsal(load_config(config))
    records = cut_records(rehearsal.plan(source), file)
    counts: dict[str, int] = {}

    async def run() -> None:
        for number, record in enumerate(records, 1):
            for fate in await rehearsal.run(source, record, number):
                counts[fate.outcome] = counts.get(fate.outcome, 0) + 1
                _print_fate(fate, is_json=wants_json(json))

    asyncio.run(run())
    if not wants_json(json):
        total = ", ".join(f"{count} {name}" for name, count in counts.items())
        console.print(f"{len(records)} records: {total or 'nothing'}", style="bold")


def _print_fate(fate: Fate, *, is_json: bool) -> None:
    from tallystick.pipeline.cases import told

    if is_json:
        print_json(fate)
        return
    console.print(f"{fate.record:>5}  {safe(told(fate))}", style=_STYLES[fate.outcome])
    if fate.event is not None:
        console.print(f"       {safe(msgspec.json.encode(fate.event).decode())}", style="dim", soft_wrap=True)
    if fate.changed_by:
        console.print(f"       changed by {safe(', '.join(fate.changed_by))}")
    for name, what in fate.destinations.items():
        console.print(f"       {safe(name)}: {what}")
