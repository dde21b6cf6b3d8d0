"""`check`: is this configuration good, and where may events end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tallystick.cli.output import JsonOption, console, print_json, safe, wants_json


def register(app: typer.Typer) -> None:
    app.command("check")(check)


def check(
    config: Annotated[Path, typer.Argument(help="Configuration file.")],
    probe: Annotated[bool, typer.Option("--probe", help="Also talk to the destinations.")] = False,
    json: JsonOption = False,
) -> None:
    """Validate a configuration without opening a socket, and print every way an event can go and every place it can end.

    Examples:

      tallystick check tallystick.toml
      tallystick check tallystick.toml --probe
    """
    from tallystick.config import load_config
    from tallystick.pipeline.check import check_config, probe_destinations
    from tallystick.pipeline.start import check_listen

    loaded = load_config(config)
    check_listen(loaded)
    plan = check_config(loaded)
    answers = probe_destinations(loaded) if probe else {}
    is_ok = all(answer is True for answer in answers.values())
    if wants_json(json):
        print_json({"ok": is_ok, "ways": plan, "probes": answers})
    else:
        for way in plan:
            console.print(f"{way['source']} → {' → '.join(way['steps'])}")
            for end in way["ends"]:
                console.print(f"    may end: {end}", style="dim")
        for name, answer in answers.items():
            console.print(f"probe {name}: {'ok' if answer is True else safe(answer)}")
        console.print("the configuration is good")
    if not is_ok:
        raise typer.Exit(1)
