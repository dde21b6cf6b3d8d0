"""Names of files: which there are behind patterns, and which are names that rotation gives."""

from __future__ import annotations

import glob
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

Inode = tuple[int, int]
"""Device and number."""
_ROTATED = re.compile(r"(?:[.-][0-9][0-9T_.-]*|\.old|\.bak)(?:\.(?:gz|bz2|xz|zst))?")


@dataclass(slots=True)
class Found:
    """One name with a regular file behind it."""

    path: Path
    status: os.stat_result

    @property
    def inode(self) -> Inode:
        return self.status.st_dev, self.status.st_ino

    @property
    def look(self) -> tuple[int, int]:
        """Size and time of the last change: the file is as it was while these are."""
        return self.status.st_size, self.status.st_mtime_ns


def matching(pattern: str) -> list[str]:
    """Paths that an absolute pattern names now."""
    return glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern


def look_at(path: Path) -> Found | None:
    """None for what is gone, or no regular file. Symbolic links are followed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Found(path, status) if stat.S_ISREG(status.st_mode) else None


def is_rotated_name(path: Path, of: Path) -> bool:
    """Whether ``path`` is a name that rotation gives to ``of``: `app.log.1`, `app.log-20260301.gz`."""
    return path.parent == of.parent and path.name.startswith(of.name) and _ROTATED.fullmatch(path.name[len(of.name) :]) is not None


def rotated_names(of: Path) -> list[Found]:
    """Files beside ``of`` under such names, oldest change first."""
    names = [Path(name) for name in matching(glob.escape(str(of)) + "[.-]*")]
    found = [one for name in names if is_rotated_name(name, of) and (one := look_at(name))]
    return sorted(found, key=lambda one: one.status.st_mtime_ns)
