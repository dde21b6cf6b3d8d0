"""`backup`: make one now, list them, verify them. Works on files, beside a running server or without one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tallystick.cli.output import JsonOption, console, errors, print_json, print_rows, safe, wants_json

if TYPE_CHECKING:
    from tallystick.pipeline.context import Installation

ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="TALLYSTICK_CONFIG", help="Configuration file; ./tallystick.toml if there.")
]
DataOption = Annotated[str | None, typer.Option("--data", envvar="TALLYSTICK_DATA", help="Data directory.")]
KeysOption = Annotated[str | None, typer.Option("--keys", envvar="TALLYSTICK_KEYS", help="Key directory.")]

app = typer.Typer(help="Backups: incremental, encrypted, signed; the key store apart.", no_args_is_help=True)


def register(main: typer.Typer) -> None:
    main.add_typer(app, name="backup")


def open_files(config: Path | None, data: str | None, keys: str | None) -> Installation:
    """The installation that the options name. Raises ConfigError, StartError."""
    from tallystick.config import load_config
    from tallystick.pipeline.backup import check_backup
    from tallystick.pipeline.context import open_installation
    from tallystick.pipeline.role import overrides_from
    from tallystick.telemetry import configure_logging

    configure_logging("WARNING")
    if config is None and Path("tallystick.toml").exists():
        config = Path("tallystick.toml")
    settings = load_config(config, overrides_from(data, keys, None))
    check_backup(settings)
    return open_installation(settings)


def shown_progress() -> Progress:
    """A line on stderr while somebody looks."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    return Progress(*columns, console=errors, transient=True, disable=not sys.stderr.isatty())


@app.command("now")
def now(config: ConfigOption = None, data: DataOption = None, keys: KeysOption = None, json: JsonOption = False) -> None:
    """Make a backup now: what the store has not yet, then the signed note that makes it one. The server may be running.

    Examples:

      tallystick backup now
      tallystick backup now --config /etc/tallystick.toml --json
    """
    from tallystick.pipeline.backup import HAND_WAIT_S, make_backup

    installation = open_files(config, data, keys)
    with shown_progress() as progress:
        task = progress.add_task("backup", total=None)
        taken = make_backup(installation, lambda step: progress.update(task, description=step), wait_s=HAND_WAIT_S)
    note = taken.note
    row = {
        "id": note.id,
        "at": note.at,
        "files": note.files,
        "bytes": note.bytes,
        "written": taken.written,
        "objects": taken.pieces,
    }
    if wants_json(json):
        print_json({**row, "mark": note.mark, "root_size": note.root_size, "keys": note.keys, "pruned": taken.pruned})
        return
    console.print(
        f"backup {note.id}: {note.files:,} files, {note.bytes:,} bytes; {taken.written:,} bytes were new", highlight=False
    )
    console.print(
        "key backup: none, no recipients are configured" if note.keys == "-" else f"key backup: {note.keys}", highlight=False
    )


@app.command("list")
def list_(config: ConfigOption = None, data: DataOption = None, keys: KeysOption = None, json: JsonOption = False) -> None:
    """Show the backups in the store, the oldest first. A note that this installation did not sign is shown with the reason, and exit code 4.

    Examples:

      tallystick backup list
    """
    from tallystick.pipeline.backup import open_backups

    listed = open_backups(open_files(config, data, keys)).listed()
    rows: list[dict[str, Any]] = []
    for item in listed:
        note = item.note
        if note is None:
            rows.append({"id": item.path, "problem": item.problem})
        else:
            fields = {"id": note.id, "at": note.at, "files": note.files, "bytes": note.bytes}
            rows.append({**fields, "mark": note.mark, "root_size": note.root_size, "keys": note.keys, "problem": ""})
    columns = ["id", "at", "files", "bytes", "mark", "root_size", "keys", "problem"]
    print_rows(rows, columns, is_json=wants_json(json), empty="no backup yet")
    if any(item.problem for item in listed):
        raise typer.Exit(4)


@app.command("verify")
def verify(
    backup: Annotated[str | None, typer.Argument(help="A backup's id, or a time; default is the newest.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    keys: KeysOption = None,
    json: JsonOption = False,
) -> None:
    """Read a backup back whole: signature, list of files, and every piece against its digest. Exit code 4 names what does not hold.

    That the evidence in it holds too is what `tallystick drill restore` shows.

    Examples:

      tallystick backup verify
      tallystick backup verify 2026-11-25T10:00:00Z
    """
    from tallystick.archive.backup.take import newest
    from tallystick.pipeline.backup import open_backups

    backups = open_backups(open_files(config, data, keys))
    note = newest(backups.listed(), backup)
    with shown_progress() as progress:
        task = progress.add_task("verify", total=None)
        total = backups.check(note, progress=lambda path: progress.update(task, description=path))
    if wants_json(json):
        print_json({"id": note.id, "at": note.at, "files": note.files, "bytes": total, "status": 0})
    else:
        console.print(f"backup {safe(note.id)}: {note.files:,} files, {total:,} bytes, all as signed", highlight=False)
