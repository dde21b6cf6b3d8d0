"""`up`: everything, in one command."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from tallystick.cli.output import console, fail
from tallystick.errors import TallystickError


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
    from tallystick.demo.tell import prepare
    from tallystick.pipeline.start import StartHooks, StartOptions, start

    if demo:
        config = config or prepare(Path("demo-data"))
    elif config is None and Path("tallystick.toml").exists():
        config = Path("tallystick.toml")
    options = StartOptions(config=config, data=data, keys=keys, listen=listen, is_demo=demo)
    hooks = StartHooks(issue_login=issue_code, announce=partial(_announce, is_demo=demo), tell_story=_tell_story)
    raise typer.Exit(start(options, hooks))


def _tell_story(url: str, key: str) -> None:
    """Fill the demo, in a thread beside the supervisor; a story that breaks off ends in one line, and what was sent stays."""
    from tallystick.demo.tell import tell_story

    try:
        tell_story(url, key)
    except TallystickError as error:
        fail(f"the demo's story was not told to its end: {error}")


def _announce(url: str, login_url: str | None, key_file: Path | None, key: str | None, *, is_demo: bool) -> None:
    """Say where to look and what to paste. The key itself is never printed: output ends in logs and scrollback.

    The console link signs in whoever opens it first, so it goes to a person at a terminal, or into the demo's output.
    """
    from tallystick.demo.tell import FIRST_PAGE

    is_person = is_demo or sys.stdout.isatty()
    lines = [f"Tallystick is up on {url}"]
    if login_url and is_demo:
        login_url += f"&next={quote(FIRST_PAGE, safe='')}"
    if login_url and is_person:
        lines.append(f"  console    {login_url}   (works once, for ten minutes)")
    if key and key_file is not None:
        read_key = f"$(cat {shlex.quote(str(key_file))})"
        tenant = '"tenant":"northwind",' if is_demo else ""  # where the console of the demo opens
        body = f'{{{tenant}"action":"invoice.export","actor":"u_1","targets":[{{"type":"invoice","id":"i_5"}}]}}'
        kind = "-H 'Content-Type: application/json'"
        lines.append(f"  admin key  {key_file}")
        lines.append(f'  verbs      export TALLYSTICK_URL={url} TALLYSTICK_KEY="{read_key}"')
        lines.append(f"  try it     curl -sS {url}/v1/events -H \"Authorization: Bearer {read_key}\" {kind} -d '{body}'")
    console.print("\n".join(lines), soft_wrap=True)
