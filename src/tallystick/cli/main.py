"""The `tallystick` command: verbs that parse arguments, call one thing and print. No logic of its own.

Exit codes: 0 ok · 1 operation failed · 2 usage or configuration · 3 data locked, keys missing or format refused ·
4 integrity failure · 5 incomplete.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from tallystick import __version__
from tallystick.cli import (
    alerts,
    backup,
    check,
    doctor,
    drift,
    drill,
    erase,
    evidence,
    hold,
    manage,
    mappings,
    reconcile,
    report,
    restore,
    retention,
    review,
    rules,
    status,
    talk,
    test,
    up,
)
from tallystick.cli.output import fail
from tallystick.errors import ConfigError, IntegrityError, StartError, TallystickError

SERVER_MODULES = frozenset(
    [
        "duckdb",
        "google",
        "grpc",
        "httptools",
        "jinja2",
        "jsonschema_rs",
        "litestar",
        "luqum",
        "msgpack",
        "numpy",
        "obstore",
        "opentelemetry",
        "prometheus_client",
        "pyarrow",
        "pyrage",
        "re2",
        "rfc8785",
        "uvicorn",
        "uvloop",
        "watchfiles",
    ]
)
"""What `tallystick[server]` brings; `up`, `check`, `test`, `try` and `doctor` need it, the other verbs do not."""

app = typer.Typer(
    name="tallystick",
    help="An audit logs delivery pipeline that can prove what it received and what it delivered.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

up.register(app)
check.register(app)
test.register(app)
doctor.register(app)
talk.register(app)
drift.register(app)
evidence.register(app)
status.register(app)
manage.register(app)
reconcile.register(app)
retention.register(app)
hold.register(app)
erase.register(app)
review.register(app)
report.register(app)
backup.register(app)
restore.register(app)
drill.register(app)
mappings.register(app)
rules.register(app)
alerts.register(app)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"tallystick {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)] = False,
) -> None:
    """An audit logs delivery pipeline that can prove what it received and what it delivered."""


def exit_code(error: TallystickError) -> int:
    """The exit code that DESIGN section 6 gives an error."""
    if isinstance(error, ConfigError):
        return 2
    if isinstance(error, StartError):
        return 3
    if isinstance(error, IntegrityError):
        return 4
    return 1


def run() -> None:
    """Entry point: every error of ours becomes one line on stderr and its exit code."""
    try:
        _run()
    except SystemExit as done:
        _leave(done)


def _leave(done: SystemExit) -> NoReturn:
    """Arrow's threads sometimes abort the process while it ends (seen as SIGABRT after one verify in a hundred): the verdict is
    printed, and its exit code must be the one that is seen. So nothing is torn down where Arrow was loaded."""
    if "pyarrow" not in sys.modules or not isinstance(done.code, int | None):
        raise done
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        os._exit(1)
    os._exit(done.code or 0)


def _run() -> None:
    try:
        app()
    except TallystickError as error:
        fail(str(error))
        sys.exit(exit_code(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in SERVER_MODULES:
            raise
        fail(f"this verb runs the server, and {error.name} is not installed. Try: pip install 'tallystick[server]'")
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        fail(f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else ""))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
