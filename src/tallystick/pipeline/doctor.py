"""`tallystick doctor`: looks at one installation from outside, changes nothing, and says what it sees with a hint for each trouble.

Works beside a running server and without one. Nothing here takes a lock or opens a state file for writing; the one thing written is
an unnamed temporary file for measuring syncs (`doctor_disk`). What only `tallystick verify` can say is left to it.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tallystick import __version__
from tallystick.config import Config, load_config
from tallystick.durable import StateFile
from tallystick.errors import ConfigError, FormatRefusedError, IntegrityError, QueryError, StartError
from tallystick.http.access import AccessKeys
from tallystick.journal.mark import MarkReader
from tallystick.journal.segment import list_segments
from tallystick.pipeline.check import check_config
from tallystick.pipeline.context import check_format
from tallystick.pipeline.doctor_disk import check_clock, check_disk, check_syncs
from tallystick.pipeline.finding import Finding, fail, ok, warn
from tallystick.pipeline.role import overrides_from
from tallystick.pipeline.start import check_listen
from tallystick.privacy.keys import KeyStore, check_key_place

_EXPIRY_WARNING_S = 14 * 86_400
_PACKAGES = ("msgspec", "zstandard", "google-crc32c", "cryptography", "pyarrow", "duckdb", "obstore", "litestar", "uvicorn")


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What the command line said."""

    config: Path | None = None
    data: str | None = None
    keys: str | None = None


def examine(options: DoctorOptions) -> Iterator[Finding]:
    """Every finding, one after another. A configuration that cannot be read ends it: then nothing else has a place."""
    yield from _check_versions()
    try:
        config = load_config(options.config, overrides_from(options.data, options.keys, None))
        check_listen(config)
        check_config(config)
    except (ConfigError, QueryError) as error:
        yield fail(
            "configuration", error.message, f"{error.place or ''} {error.hint or ''}".strip() or "`tallystick check` says more"
        )
        return
    yield ok("configuration", config.path or "no file, all defaults")
    for check in _CHECKS:
        yield from check(config)


def _check_versions() -> Iterator[Finding]:
    found, missing = [f"tallystick {__version__}", f"Python {platform.python_version()}", f"Linux {platform.release()}"], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield fail("versions", f"not installed: {', '.join(missing)}", "pip install 'tallystick[server]'")
    yield ok("versions", ", ".join(found))


def _check_data(config: Config) -> Iterator[Finding]:
    directory = config.data_dir
    if not (directory / "FORMAT").exists():
        yield warn("data directory", f"{directory} holds no installation yet", "`tallystick up` makes one")
        return
    try:
        check_format(config, directory)
    except (FormatRefusedError, ConfigError) as error:
        yield fail("data directory", str(error), error.hint or "")
        return
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o077:
        yield warn("data directory", f"others may look into {directory} (mode {mode:04o})", f"chmod 700 {directory}")
    elif directory.is_symlink():
        yield warn("data directory", f"{directory} is a symbolic link", "Name the directory itself")
    else:
        yield ok("data directory", f"{directory}, mode {mode:04o}")


def _check_keys(config: Config) -> Iterator[Finding]:
    directory = config.keys_dir
    try:
        check_key_place(config.data_dir, directory, is_named=config.keys.dir is not None)
    except StartError as error:
        yield fail("key directory", error.message, error.hint or "")
        return
    if not directory.is_dir():
        if (config.data_dir / "FORMAT").exists():
            yield fail(
                "key directory", f"{directory} is missing, and without it the data cannot be read", "Restore it from its backup"
            )
        return
    yield from _check_modes(directory)
    try:
        KeyStore.open(directory)
    except (StartError, IntegrityError) as error:
        yield fail("key store", error.message, f"{error.place or ''} {error.hint or ''}".strip())
        return
    yield ok("key store", "opens with its root key")


def _check_modes(directory: Path) -> Iterator[Finding]:
    wrong = []
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.lstat()
        is_public = path.name == "root.vkey"
        if stat.S_ISLNK(status.st_mode) or (not is_public and stat.S_IMODE(status.st_mode) & 0o077):
            wrong.append(path)
    if wrong:
        hint = f"chmod -R go-rwx {directory}"
        yield fail("key directory", f"others may read {wrong[0]}" + (f" and {len(wrong) - 1} more" if wrong[1:] else ""), hint)
    else:
        yield ok("key directory", f"{directory}, for its owner only")


def _check_access(config: Config) -> Iterator[Finding]:
    if not config.keys_dir.is_dir():
        return
    try:
        keys = AccessKeys(config.keys_dir, "doctor").list()
    except IntegrityError as error:
        yield fail("API keys", error.message, error.hint or "")
        return
    now = time.time()
    live = [key for key in keys if key.is_live(now)]
    if keys and not any(key.may("keys") for key in live):
        hint = "The next start of `tallystick up` makes an admin key for 24 hours"
        yield warn("API keys", "no live key may manage keys", hint)
    for key in live:
        if key.expires_at is not None and key.expires_at < now + _EXPIRY_WARNING_S:
            hours = (key.expires_at - now) / 3600
            left = f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
            yield warn(
                "API keys",
                f"{key.id} ({key.owner or 'no owner'}) expires in {left}",
                "`tallystick keys create` makes its successor",
            )
    yield ok("API keys", f"{len(live)} live, {len(keys) - len(live)} expired or revoked")


def _check_locks(config: Config) -> Iterator[Finding]:
    """Who holds which role, by the kernel's own table: a lock file that nobody holds is no lock."""
    holders = _lock_holders()
    held: dict[str, int] = {}
    for path in sorted((config.data_dir / "locks").glob("*")):
        status = path.stat()
        pid = holders.get((os.major(status.st_dev), os.minor(status.st_dev), status.st_ino))
        if pid is not None:
            held[path.name] = pid
    if held and "supervisor" not in held:
        names = ", ".join(f"{role} by process {pid}" for role, pid in held.items())
        yield warn("locks", f"held without a supervisor: {names}", "A start would be refused; end these processes")
    elif held:
        yield ok(
            "locks", f"a server is running, process {held['supervisor']}; roles {', '.join(sorted(set(held) - {'supervisor'}))}"
        )
    else:
        yield ok("locks", "nobody holds one; stale lock files hold nobody up")


def _lock_holders() -> dict[tuple[int, int, int], int]:
    holders = {}
    for line in Path("/proc/locks").read_text("ascii").splitlines():
        words = line.split()
        if "FLOCK" in words:
            at = words.index("FLOCK")
            major, minor, inode = words[at + 4].split(":")
            holders[int(major, 16), int(minor, 16), int(inode)] = int(words[at + 3])
    return holders


def _check_state(config: Config) -> Iterator[Finding]:
    data, keys = config.data_dir, config.keys_dir
    if not (data / "FORMAT").exists():
        return
    damaged = [str(path) for path in _state_files(data, keys) if StateFile(path).is_damaged()]
    if damaged:
        hint = "The other copy is used, or the state is made anew; look at the disk that changed it"
        yield warn("state files", f"a copy is damaged: {', '.join(damaged)}", hint)
    else:
        yield ok("state files", "all copies are whole")
    if (data / "journal" / "MARK").exists() and MarkReader(data / "journal").read() is None:
        yield warn(
            "journal", "MARK cannot be read", "The next start finds the journal's end by reading; then run `tallystick verify`"
        )
    listed = list_segments(data / "journal")
    for path in listed.unreadable:
        yield fail(
            "journal", f"{path.name} has no readable header", "Leave it where it is; `tallystick verify` says what is missing"
        )
    yield ok("journal", f"{len(listed.segments)} segments with whole headers")
    salvaged = list((data / "salvage").glob("*.bin"))
    if salvaged:
        yield warn(
            "salvage",
            f"{len(salvaged)} pieces were cut from damaged or torn files",
            f"See {data / 'salvage'}; nothing in it was delivered",
        )
    yield from _check_databases(data)


def _state_files(data: Path, keys: Path) -> list[Path]:
    """Their names without the slot."""
    slots = [*data.glob("*.[ab]"), *data.glob("cursors/*.[ab]"), *data.glob("dedupe/*.[ab]"), *keys.rglob("*.[ab]")]
    return sorted({path.with_suffix("") for path in slots})


def _check_databases(data: Path) -> Iterator[Finding]:
    for path in [data / "catalog.sqlite", *sorted((data / "cursors").glob("*.sqlite"))]:
        if not path.exists():
            continue
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as database:
                (answer,) = database.execute("PRAGMA quick_check").fetchone()
        except sqlite3.Error as error:
            answer = str(error)
        if answer != "ok":
            yield fail("databases", f"{path.name}: {answer}", "It is rebuilt at the next start; look at the disk that changed it")
        else:
            yield ok("databases", f"{path.name} is whole")


_CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    _check_data, check_disk, check_syncs, check_clock, _check_keys, _check_access, _check_locks, _check_state,
)  # fmt: skip
