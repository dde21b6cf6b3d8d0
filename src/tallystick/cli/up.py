"""`up`: everything, in one command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tallystick.cli.output import console


def register(app: typer.Typer) -> None:
    app.command("up")(up)


def up(
    config: Annotated[
        Path | None, typer.Option("--config", envvar="TALLYSTICK_CONFIG", help="Configuration file; ./tallystick.toml if there.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", envvar="TALLYSTICK_DATA", help="Data directory.")] = None,
    keys: Annotated[str | None, typer.Option("--keys", envvar="TALLYSTICK_KEYS", help="Key directory, never inside data.")] = None,
    listen: Annotated[str | None, typer.Option("--listen", envvar="TALLYSTICK_LISTEN", help="Address and port.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Work in ./demo-data, filled with a story to look at.")] = False,
) -> None:
    """Start everything: intake, sealing, archive, delivery, search and the console.

    The first start makes keys and an admin key (KEYS/admin.key). Stop with Ctrl-C.

    Examples:

      tallystick up
      tallystick up --demo
      tallystick up --config /etc/tallystick.toml --listen 127.0.0.1:9000
    """
    from tallystick.console.login import issue_code
    from tallystick.demo.tell import prepare, tell_story
    from tallystick.pipeline.start import StartHooks, StartOptions, start

    if demo:
        config = config or prepare(Path("demo-data"))
    elif config is None and Path("tallystick.toml").exists():
        config = Path("tallystick.toml")
    options = StartOptions(config=config, data=data, keys=keys, listen=listen, is_demo=demo)
    raise typer.Exit(start(options, StartHooks(issue_login=issue_code, announce=_announce, tell_story=tell_story)))


def _announce(url: str, login_url: str | None, key_file: Path | None, key: str | None) -> None:
    """Tell a person at a terminal where to look and what to paste; a service's log gets one line."""
    if not sys.stdout.isatty() and not os.environ.get("TALLYSTICK_ANNOUNCE"):
        print(f"tallystick: listening on {url}", flush=True)
        if key_file is not None:
            print(f"tallystick: admin key in {key_file}", flush=True)
    console.print(f"\n[bold]Tallystick is up[/bold] on {url}")
    if login_url:
        console.print(f"  console   {login_url}", soft_wrap=True, highlight=False)
    if key:
        body = '{"action":"invoice.export","actor":"u_1","targets":[{"type":"invoice","id":"i_5"}]}'
        console.print("  try it    ", end="", highlight=False)
        console.print(
            f"curl -sS {url}/v1/events -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    if key_file is not None:
        console.print(f"  admin key {key_file}\n", highlight=False)
