"""`restore`: put a backup in place where there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tallystick.cli.backup import shown_progress
from tallystick.cli.output import JsonOption, console, print_json, safe, wants_json
from tallystick.errors import ConfigError


def register(app: typer.Typer) -> None:
    app.command("restore")(restore)


def restore(
    store: Annotated[str, typer.Option("--from", help="The backup store: a directory or an s3://, gs://, az:// URL.")],
    data: Annotated[Path, typer.Option("--data", help="Data directory to make; must be empty or absent.")],
    keys: Annotated[Path, typer.Option("--keys", help="Key directory: the one that is there, or with --identity the one to make.")],
    to: Annotated[
        str | None, typer.Option("--to", help="A backup's id, or a time: the newest made until then. Default: the newest.")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", help="File with an age identity: take the keys from the newest key backup.")
    ] = None,
    keys_store: Annotated[
        str | None, typer.Option("--keys-store", help="Where key backups lie; default is the store's path + .keys.")
    ] = None,
    heads: Annotated[
        Path | None, typer.Option("--heads", help="The last signed root head that anybody has seen; the backup has to cover it.")
    ] = None,
    last: Annotated[
        bool,
        typer.Option(
            "--last", help="With --identity: say that nobody has seen a head signed after this backup, and go on from there."
        ),
    ] = False,
    behind: Annotated[
        bool,
        typer.Option("--behind", help="Put it in place although a later head was signed: for reading; nothing more is signed."),
    ] = False,
    option: Annotated[list[str] | None, typer.Option("--option", help="NAME=VALUE for the object store; repeat it.")] = None,
    json: JsonOption = False,
) -> None:
    """Restore a backup: everything is decrypted, recomputed and verified in a scratch directory, and only then put in place.

    A damaged or foreign backup, a target that is not empty, and a backup that ends before a head that was signed are refused, and nothing is touched.
    Exit code 4: the backup does not hold, or is behind. 3: the target or the keys cannot be used. 5: restored with --behind.

    Examples:

      tallystick restore --from /mnt/backup/tallystick --data data --keys data.keys
      tallystick restore --from /mnt/backup/tallystick --data data --keys data.keys --identity key.txt --heads last-head.txt
    """
    from tallystick.pipeline.restoring import RestoreOptions, restore_backup
    from tallystick.telemetry import configure_logging

    configure_logging("WARNING")
    options = RestoreOptions(store, data, keys, to, identity, keys_store, heads, last, behind, _pairs(option or []))
    with shown_progress() as progress:
        task = progress.add_task("restore", total=None)
        done = restore_backup(options, lambda step: progress.update(task, description=step))
    note, report = done.note, done.report
    if wants_json(json):
        fields = {
            "id": note.id,
            "at": note.at,
            "mark": note.mark,
            "root_size": note.root_size,
            "files": note.files,
            "bytes": done.bytes,
        }
        print_json({**fields, "events": report.events, "data": str(data), "keys": str(keys), "behind": done.behind})
    else:
        console.print(
            f"restored {note.id}, made {note.at}: {note.files:,} files, {report.events:,} events, everything verifies",
            highlight=False,
        )
        if done.behind:
            console.print(f"for reading only: {safe(done.behind)}; nothing more will be signed", highlight=False)
    if done.behind:
        raise typer.Exit(5)


def _pairs(options: list[str]) -> dict[str, str]:
    pairs = {}
    for text in options:
        name, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"--option {text!r} is not NAME=VALUE")
        pairs[name] = value
    return pairs
