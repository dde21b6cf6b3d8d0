"""`verify`: does the evidence hold, how far, and what is not proven."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from tallystick.cli.output import JsonOption, console, errors, print_json, safe, wants_json

if TYPE_CHECKING:
    from tallystick.evidence.verify import Report


def register(app: typer.Typer) -> None:
    app.command("verify")(verify)


def verify(
    data: Annotated[Path, typer.Option("--data", envvar="TALLYSTICK_DATA", help="Data directory.")] = Path("data"),
    keys: Annotated[Path | None, typer.Option("--keys", envvar="TALLYSTICK_KEYS", help="Key directory; default DATA.keys.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Configuration, when it names an archive outside the data directory.")
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option("--public-key", help="Public key of the root log (a vkey, or a file with one), obtained elsewhere."),
    ] = None,
    heads: Annotated[
        Path | None, typer.Option("--heads", help="A signed root head seen earlier; default the remembered one.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Recompute everything offline: heads, trees, root log, archive, journal; name the place of whatever does not hold.

    Exit code 0: all holds. 4: something does not. 5: consistent, but signer or freshness could not be proven.

    Examples:

      tallystick verify --data data
      tallystick verify --data copy --public-key root.vkey --heads last-head.txt
    """
    from tallystick.pipeline.verify import VerifyOptions, verify_directory

    if public_key is not None and Path(public_key).is_file():
        public_key = Path(public_key).read_text("utf-8").strip()
    options = VerifyOptions(data, keys, config, public_key, heads)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("verify", total=None)
        report = verify_directory(options, lambda title: progress.update(task, description=title))
    if wants_json(json):
        _print_json(report)
    else:
        _print_text(report)
    raise typer.Exit(report.status)


def _print_json(report: Report) -> None:
    print_json(
        {
            "status": report.status,
            "tier": report.tier,
            "events": report.events,
            "steps": [{"number": step.number, "title": step.title, "detail": step.detail} for step in report.steps],
            "problems": [{"step": problem.step, "message": problem.message, "place": problem.place} for problem in report.problems],
            "excused": report.excused,
            "notes": report.notes,
            "not_proven": report.not_proven,
        }
    )


def _print_text(report: Report) -> None:
    for step in report.steps:
        console.print(f"{step.number}. {step.title:<16} {safe(step.detail)}")
    for title, lines in (("excused absence", report.excused), ("note", report.notes), ("not proven", report.not_proven)):
        for line in lines:
            console.print(f"{title}: {safe(line)}")
    for problem in report.problems:
        console.print(Text("does not hold", style="red") + Text(f" (step {problem.step}): {safe(problem.message)}"))
        console.print(f"    at {safe(problem.place)}")
    verdict = {0: "everything holds", 4: "THE EVIDENCE DOES NOT HOLD", 5: "consistent, but not all is proven"}[report.status]
    console.print(f"{report.events:,} events checked; tier: {report.tier}; {verdict}")
