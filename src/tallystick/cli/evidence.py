"""`verify`: does the evidence hold, how far, and what is not proven."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from tallystick.cli.output import JsonOption, console, errors, print_json, safe, wants_json
from tallystick.errors import ConfigError

if TYPE_CHECKING:
    from tallystick.evidence.verify import Report


def register(app: typer.Typer) -> None:
    app.command("verify")(verify)


def verify(
    context: typer.Context,
    data: Annotated[Path, typer.Option("--data", envvar="TALLYSTICK_DATA", help="Data directory.")] = Path("data"),
    keys: Annotated[Path | None, typer.Option("--keys", envvar="TALLYSTICK_KEYS", help="Key directory; default DATA.keys.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Configuration, when it names an archive outside the data directory.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Instead of a directory, verify the logs that this server serves (with TALLYSTICK_KEY)."),
    ] = None,
    delivered: Annotated[
        Path | None,
        typer.Option(
            "--delivered", help="Instead of a directory of ours, verify a copy of what an object_store destination holds."
        ),
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option(
            "--public-key",
            help="Public key of the root log, with --delivered of the event log (a vkey, or a file with one), obtained elsewhere.",
        ),
    ] = None,
    heads: Annotated[
        Path | None,
        typer.Option(
            "--heads",
            help="A signed root head seen earlier, with --delivered one of the event log; default with --data the remembered one.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Recompute everything: heads, trees, root log, archive, journal; name the place of whatever does not hold.

    A data directory is verified offline; it may be a copy, or in use by a running server. With --url everything that the server
    serves as a log is read and recomputed, over HTTP; the key needs the permissions verify and, for entries, read.
    With --delivered a directory with delivered objects and their proofs is checked offline.

    Exit code 0: all holds. 4: something does not. 5: consistent, but signer or freshness could not be proven.

    Examples:

      tallystick verify --data data
      tallystick verify --data copy --public-key root.vkey --heads last-head.txt
      tallystick verify --url https://audit.example.com --public-key root.vkey --heads last-head.txt
      tallystick verify --delivered lake-copy --public-key log.vkey --heads log-head.txt
    """
    from tallystick.pipeline.served import read_public_key

    public_key = read_public_key(public_key) if public_key is not None else None
    if delivered is not None:
        _check_alone(context, "delivered", "data", "keys", "config", "url")
        report = _verify_delivered(delivered, public_key, heads)
    elif url is not None:
        _check_alone(context, "url", "data", "keys", "config")
        report = _verify_url(url, public_key, heads)
    else:
        report = _verify_directory(data, keys, config, public_key, heads)
    if wants_json(json):
        _print_json(report)
    else:
        _print_text(report)
    raise typer.Exit(report.status)


def _check_alone(context: typer.Context, option: str, *others: str) -> None:
    """Raises ConfigError when the command line gives one of ``others`` beside ``option``."""
    sources = {name: context.get_parameter_source(name) for name in others}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        raise ConfigError(
            f"--{option} and --{given[0]} exclude each other", hint="Verify a server, a directory or a delivered copy"
        )


def _verify_delivered(place: Path, public_key: str | None, heads: Path | None) -> Report:
    from tallystick.evidence.verify.delivered import verify_delivered
    from tallystick.pipeline.served import read_head

    if not place.is_dir():
        raise ConfigError(
            "there is no such directory", place=str(place), hint="Copy the bucket's objects and their .proof into one"
        )
    remembered = read_head(heads) if heads else None
    with _progress(SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()) as progress:
        task = progress.add_task("verify", total=None)
        return verify_delivered(place, public_key, remembered, lambda name: progress.update(task, description=name))


def _verify_directory(data: Path, keys: Path | None, config: Path | None, public_key: str | None, heads: Path | None) -> Report:
    from tallystick.pipeline.verify import VerifyOptions, verify_directory

    with _progress(SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()) as progress:
        task = progress.add_task("verify", total=None)
        options = VerifyOptions(data, keys, config, public_key, heads)
        return verify_directory(options, lambda title: progress.update(task, description=title))


def _verify_url(url: str, public_key: str | None, heads: Path | None) -> Report:
    from tallystick.pipeline.served import ServedOptions, verify_url

    with _progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    ) as progress:
        task = progress.add_task("verify", total=None)
        options = ServedOptions(url, public_key, heads)
        return verify_url(options, lambda title, done, total: progress.update(task, description=title, completed=done, total=total))


@contextmanager
def _progress(*columns: ProgressColumn) -> Iterator[Progress]:
    """A line on stderr while somebody looks."""
    with Progress(*columns, console=errors, transient=True, disable=not sys.stderr.isatty()) as progress:
        yield progress


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
    console.print(f"{report.events:,} events checked; tier: {report.tier}; {_verdict(report)}")


def _verdict(report: Report) -> str:
    if report.status == 5 and any(line.startswith("signer:") for line in report.not_proven):
        return "consistent, signer unverified"
    return {0: "everything holds", 4: "THE EVIDENCE DOES NOT HOLD", 5: "consistent, but not all is proven"}[report.status]
