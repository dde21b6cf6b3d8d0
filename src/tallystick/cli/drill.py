"""`drill`: is the backup really a backup, and is tampering really found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tallystick.cli.backup import ConfigOption, DataOption, KeysOption, open_files, shown_progress
from tallystick.cli.output import JsonOption, console, print_json, print_table, safe, wants_json

app = typer.Typer(help="Drills in scratch directories; the server may be running.", no_args_is_help=True)
ScratchOption = Annotated[
    Path | None, typer.Option("--dir", help="Where the scratch directory goes; default beside the data directory.")
]


def register(main: typer.Typer) -> None:
    main.add_typer(app, name="drill")


@app.command("restore")
def restore(
    config: ConfigOption = None,
    data: DataOption = None,
    keys: KeysOption = None,
    directory: ScratchOption = None,
    json: JsonOption = False,
) -> None:
    """Restore the newest backup to a scratch directory, verify it, compare it with the live data; a signed report says how long it took.

    Exit code 4 when something does not hold.

    Examples:

      tallystick drill restore
    """
    from tallystick.pipeline.drill import drill_restore

    installation = open_files(config, data, keys)
    with shown_progress() as progress:
        task = progress.add_task("restore", total=None)
        scratch = directory or installation.data_dir.parent
        report = drill_restore(installation, scratch, lambda step: progress.update(task, description=step))
    if not wants_json(json):
        console.print(f"backup {report['backup']}, made {report['made']}", highlight=False)
        if "recovery_seconds" in report:
            console.print(
                f"recovery time {report['recovery_seconds']} s, recovery point {report['recovery_point_seconds']} s ago",
                highlight=False,
            )
            console.print(
                f"{report['events']:,} events verified, {report['compared']:,} compared with the live data", highlight=False
            )
    _end(report, is_json=wants_json(json))


@app.command("tamper")
def tamper(
    config: ConfigOption = None,
    data: DataOption = None,
    keys: KeysOption = None,
    demo: Annotated[bool, typer.Option("--demo", help="Use ./demo-data, as `tallystick up --demo` makes it.")] = False,
    directory: ScratchOption = None,
    json: JsonOption = False,
) -> None:
    """Change a copy of the evidence, once in each way, and see that verify fails each time. The data itself is not touched.

    Exit code 4 when verify did not notice something.

    Examples:

      tallystick drill tamper
      tallystick drill tamper --demo
    """
    from tallystick.pipeline.drill import drill_tamper

    installation = open_files(config, "demo-data" if demo else data, keys)
    with shown_progress() as progress:
        task = progress.add_task("tamper", total=None)
        scratch = directory or installation.data_dir.parent
        report = drill_tamper(installation, scratch, lambda step: progress.update(task, description=step))
    if not wants_json(json):
        print_table(
            ("tampering", "changed", "verify says"),
            [(row["name"], row["what"], row["found"] or "NOTHING") for row in report["tried"]],
        )
    _end(report, is_json=wants_json(json))


def _end(report: dict[str, Any], *, is_json: bool) -> None:
    if is_json:
        print_json(report)
    else:
        for problem in report["problems"]:
            console.print(f"does not hold: {safe(problem)}", highlight=False)
        console.print(f"{'FAILED' if report['problems'] else 'passed'}; signed report: {safe(report['report'])}", highlight=False)
    if report["problems"]:
        raise typer.Exit(4)
