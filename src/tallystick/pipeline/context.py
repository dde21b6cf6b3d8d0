"""What every process of one installation starts from: configuration, directories, keys, and the rules of a first start.

First start, in this order, each step durable before the next:

1. the key directory is checked against the data directory (never inside it), and made with its root key;
2. the data directory is made, with its FORMAT file, which also fixes the server's name.

A crash between the two leaves keys without data: the next start goes on with those keys. Data without keys is refused
(exit 3) and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tallystick.config import Config
from tallystick.durable import make_dir, replace_file
from tallystick.errors import ConfigError, FormatRefusedError, KeysMissingError, StartError
from tallystick.privacy.keys import KeyStore, check_key_place

FORMAT_MAJOR = 1
FORMAT_MINOR = 0
# What a new file system brings along, and what a crash in `_create` can leave behind.
_MAY_BE_THERE = frozenset({"lost+found", "FORMAT.tmp"})


@dataclass(frozen=True, slots=True)
class Installation:
    """An opened data directory with its keys. ``read_config``: the configuration that is in force now, for who takes a new one."""

    config: Config
    data_dir: Path
    keys_dir: Path
    keys: KeyStore
    read_config: Callable[[], Config] | None = None

    @property
    def server_name(self) -> str:
        return self.config.server.name

    @property
    def run_dir(self) -> Path:
        return self.data_dir / "run"


def open_installation(config: Config, *, create: bool = False) -> Installation:
    """Open the directories that ``config`` names; with ``create`` make them when both are absent.

    Raises StartError (keys missing, another format or server name, no access) or ConfigError (others can write there).
    """
    data_dir, keys_dir = config.data_dir, config.keys_dir
    check_key_place(data_dir, keys_dir, is_named=config.keys.dir is not None)
    if not (data_dir / "FORMAT").exists():
        if not create:
            raise KeysMissingError("this is no Tallystick data directory", place=str(data_dir), hint="`tallystick up` makes one")
        _create(config, data_dir, keys_dir)
    check_format(config, data_dir)
    return Installation(config, data_dir, keys_dir, KeyStore.open(keys_dir))


def _create(config: Config, data_dir: Path, keys_dir: Path) -> None:
    text = f"tallystick {FORMAT_MAJOR}.{FORMAT_MINOR}\nname {config.server.name}\n"
    try:
        if data_dir.is_dir() and any(path.name not in _MAY_BE_THERE for path in data_dir.iterdir()):
            raise FormatRefusedError(
                "the data directory is not empty and has no FORMAT file", place=str(data_dir), hint="Name an empty directory"
            )
        KeyStore.create(keys_dir)  # opens what is there, and finishes what a crash left half made
        make_dir(data_dir)
        data_dir.chmod(0o700)
        # In one step: a crash leaves no FORMAT or a whole one, and the next start comes here again or goes on.
        replace_file(data_dir / "FORMAT", text.encode())
    except OSError as error:
        raise StartError(f"the directories cannot be made: {error.strerror}", place=str(error.filename or data_dir)) from error


def check_format(config: Config, data_dir: Path) -> None:
    """Raises FormatRefusedError or ConfigError when this version and configuration must not use the directory."""
    path = data_dir / "FORMAT"
    lines = path.read_text("utf-8", "replace").split("\n")
    words = lines[0].split(" ")
    if len(words) != 2 or words[0] != "tallystick" or not words[1].split(".")[0].isdigit():
        raise FormatRefusedError("the FORMAT file cannot be read", place=str(path))
    if int(words[1].split(".")[0]) > FORMAT_MAJOR:
        raise FormatRefusedError(
            f"the data directory has format {words[1]}, this version reads up to {FORMAT_MAJOR}.x",
            place=str(path),
            hint="Use a newer Tallystick",
        )
    name = next((line[5:] for line in lines[1:] if line.startswith("name ")), "")
    if name != config.server.name:
        raise FormatRefusedError(
            f"this data directory belongs to the server {name!r}, the configuration says {config.server.name!r}",
            place=str(path),
            hint=f'Set [server] name = "{name}"; the name is part of every signed head and cannot change',
        )
    if data_dir.stat().st_mode & 0o022:
        raise ConfigError("others can write to the data directory", place=str(data_dir), hint="chmod 700 it")
