"""A place for copies of keys while a restore or a drill works with them.

It lies beside the key directory, so on its volume and under its protection, and never among temporary files or data. Its name is fixed: what
a run that was killed has left is removed by the next one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def key_scratch(keys_dir: Path) -> Iterator[Path]:
    """An empty directory (0700), gone with all that is in it when the block ends."""
    path = keys_dir.with_name(f".{keys_dir.name}.scratch")
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(mode=0o700, parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path)
