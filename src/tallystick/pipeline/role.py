"""The entry point of every child process: ``python -m tallystick.pipeline.role ROLE PARENT_PID [--config F] …``.

Not for people: `tallystick up` starts these. Ends with the exit codes of DESIGN section 6.
"""

from __future__ import annotations

import argparse
import importlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tallystick.config import Config, load_config
from tallystick.errors import ConfigError, IntegrityError, StartError, TallystickError
from tallystick.pipeline.context import Installation, open_installation
from tallystick.pipeline.process import die_with_parent
from tallystick.pipeline.snapshot import read_snapshot
from tallystick.telemetry import configure_logging, log, publish_status, use_metrics_dir

# Named by text, not imported: the api process stands on a higher floor, and a follower must not load what it does not use.
ROLE_MODULES = {
    "intake": "tallystick.pipeline.intake",
    "worker": "tallystick.pipeline.worker",
    "sealer": "tallystick.pipeline.sealer",
    "archiver": "tallystick.pipeline.archiver",
    "dispatcher": "tallystick.pipeline.dispatcher",
    "api": "tallystick.console.process",
}
# Acceptance comes first: when processors are short, followers fall behind and catch up later, and no acknowledgement waits.
NICENESS = {"sealer": 2, "api": 4, "dispatcher": 5, "archiver": 8}
EXIT_FAILED, EXIT_CONFIG, EXIT_START, EXIT_INTEGRITY = 1, 2, 3, 4


def overrides_from(data: str | None, keys: str | None, listen: str | None) -> dict[str, dict[str, Any]]:
    """Command-line values as they stand in the configuration. Paths become absolute: they do not depend on the file."""
    overrides: dict[str, dict[str, Any]] = {}
    if data is not None:
        overrides["data"] = {"dir": str(Path(data).absolute())}
    if keys is not None:
        overrides["keys"] = {"dir": str(Path(keys).absolute())}
    if listen is not None:
        overrides["server"] = {"listen": listen}
    return overrides


class RoleArguments(NamedTuple):
    """What a child process is told. ``read_config``: how it reads its configuration, now, and again when it is told to;
    ``listener``: descriptor of the socket that the intake workers share."""

    role: str
    parent_pid: int
    read_config: Callable[[], Config]
    listener: int | None

    @property
    def kind(self) -> str:
        """The role without a worker's number."""
        return self.role.partition("-")[0]


def parse_role_arguments(arguments: Sequence[str]) -> RoleArguments:
    """Inverse of `role_arguments`, in the child."""
    parser = argparse.ArgumentParser(prog="tallystick.pipeline.role")
    parser.add_argument("role")
    parser.add_argument("parent_pid", type=int)
    parser.add_argument("--config")
    parser.add_argument("--config-fd", type=int)
    parser.add_argument("--data")
    parser.add_argument("--keys")
    parser.add_argument("--listen")
    parser.add_argument("--listener", type=int)
    parsed = parser.parse_args(arguments)
    path = Path(parsed.config) if parsed.config else None
    overrides = overrides_from(parsed.data, parsed.keys, parsed.listen)

    def read() -> Config:
        text = read_snapshot(parsed.config_fd) if parsed.config_fd is not None else None
        return load_config(path, overrides, text=text)

    return RoleArguments(parsed.role, parsed.parent_pid, read, parsed.listener)


def role_arguments(config_path: Path | None, data: str | None, keys: str | None, listen: str | None) -> list[str]:
    """The same choices again, for `parse_role_arguments` of a child."""
    pairs = {"--config": str(config_path) if config_path else None, "--data": data, "--keys": keys, "--listen": listen}
    return [word for name, value in pairs.items() if value is not None for word in (name, value)]


def main(arguments: Sequence[str]) -> int:
    """Run one role until it is told to stop; returns the exit code."""
    os.umask(0o077)
    configure_logging()
    role = arguments[0] if arguments else ""
    try:
        told = parse_role_arguments(arguments)
        config = told.read_config()
        die_with_parent(told.parent_pid)
        os.nice(NICENESS.get(told.kind, 0))
        use_metrics_dir(config.data_dir)
        _run(told, replace(open_installation(config), read_config=told.read_config))
    except ConfigError as error:
        log.error("configuration refused", error=str(error))
        return EXIT_CONFIG
    except StartError as error:
        log.error("start refused", error=str(error))
        return EXIT_START
    except IntegrityError as error:
        log.error("integrity failure", role=role, error=str(error))
        publish_status(config.data_dir, role, {"reason": str(error)})
        return EXIT_INTEGRITY
    except TallystickError as error:
        log.error("role ended", role=role, error=str(error))
        return EXIT_FAILED
    except OSError:
        log.exception("role ended", role=role)
        return EXIT_FAILED
    return 0


def _run(told: RoleArguments, installation: Installation) -> None:
    run: Callable[..., None] = importlib.import_module(ROLE_MODULES[told.kind]).run
    if told.listener is None:
        run(installation)
    else:
        run(installation, int(told.role.rpartition("-")[2]), socket.socket(fileno=told.listener))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
