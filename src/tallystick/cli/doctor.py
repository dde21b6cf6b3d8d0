"""`doctor`: is this installation sound, and does it keep its promises on this disk."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tallystick.cli.output import JsonOption, console, print_json, safe, wants_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tallystick.pipeline.finding import Finding


class What(StrEnum):
    """What is to be looked at."""

    INSTALLATION = "installation"
    DURABILITY = "durability"


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    what: Annotated[What, typer.Argument(help="`installation` looks and changes nothing; `durability` hurts a scratch server.")] = (
        What.INSTALLATION
    ),
    config: Annotated[
        Path | None, typer.Option("--config", envvar="TALLYSTICK_CONFIG", help="Configuration file; ./tallystick.toml if there.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", envvar="TALLYSTICK_DATA", help="Data directory.")] = None,
    keys: Annotated[str | None, typer.Option("--keys", envvar="TALLYSTICK_KEYS", help="Key directory.")] = None,
    directory: Annotated[Path, typer.Option("--dir", help="For durability: a directory on the disk to be tried.")] = Path(),
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="For durability: kills and power cuts.")] = 5,
    json: JsonOption = False,
) -> None:
    """Check an installation offline: configuration, disk, syncs, clock, keys, locks, state files. Each line is ok, warn or fail.

    `doctor durability` starts a server of its own in a scratch directory under --dir, kills it under load, fills its quota and, as
    root, cuts its power, and says whether anything that it had accepted was lost. Exit code 1 when something failed.

    Examples:

      tallystick doctor --config /etc/tallystick.toml
      tallystick doctor durability --dir /var/lib
    """
    if what is What.DURABILITY:
        from tallystick.pipeline.durability import try_durability

        findings = try_durability(directory, rounds)
    else:
        from tallystick.pipeline.doctor import DoctorOptions, examine

        if config is None and Path("tallystick.toml").exists():
            config = Path("tallystick.toml")
        findings = examine(DoctorOptions(config, data, keys))
    states = _show(findings, is_json=wants_json(json))
    if "fail" in states:
        raise typer.Exit(1)


def _show(findings: Iterable[Finding], *, is_json: bool) -> set[str]:
    """Print each finding as soon as it is there; returns the states that occurred."""
    styles = {"ok": "green", "warn": "yellow", "fail": "bold red", "not run": "dim"}
    states: set[str] = set()
    for finding in findings:
        states.add(finding.state)
        if is_json:
            print_json({"check": finding.check, "state": finding.state, "detail": finding.detail, "hint": finding.hint})
            continue
        console.print(f"{finding.state:<8}", style=styles[finding.state], end="", highlight=False)
        console.print(f"{finding.check:<16} {safe(finding.detail)}", highlight=False, markup=False)
        if finding.hint:
            console.print(f"{'':<25}{safe(finding.hint)}", highlight=False, markup=False)
    if not is_json:
        verdict = "something failed" if "fail" in states else "sound, with warnings" if "warn" in states else "sound"
        console.print(verdict, highlight=False)
    return states
