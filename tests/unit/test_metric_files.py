"""Metrics on a disk that is full: no byte of their files is without a block, and what has no room is not stored."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from tallystick.metric_files import AllocatedDict

PROGRAM = """
import os, sys
from pathlib import Path
from tallystick.telemetry import use_metrics_dir
use_metrics_dir(Path(sys.argv[1]))
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
counter = Counter("seen", "", ["name"])
for number in range(2000):
    counter.labels(f"{number:04}").inc(number)
path, = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).iterdir()
print(path.stat().st_size, path.stat().st_blocks * 512)
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(sum(line.startswith(b"seen_total") for line in generate_latest(registry).splitlines()))
"""


def stored(path: Path) -> dict[str, float]:
    return {key: value for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path))}


def test_the_library_uses_whole_files(tmp_path: Path) -> None:
    """Two thousand series outgrow the first size; every byte of the file has its block, and a scrape finds them all."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True)
    sizes, series = done.stdout.splitlines()
    size, allocated = map(int, sizes.split())
    assert size > 1 << 16
    assert allocated >= size
    assert series == "2000"


def test_no_room_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file values are let be; when there is room again they are stored, each with what its owner counted."""
    path = tmp_path / "counter.db"

    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        values = AllocatedDict(str(path))
        assert values.read_value("a") == (0.0, 0.0)
        values.write_value("a", 1.0, 0.0)
    values.write_value("a", 2.0, 0.0)  # not tried again at every call
    monkeypatch.setattr("tallystick.metric_files._TRY_AGAIN_S", 0.0)
    values._next_try = 0.0
    values.write_value("a", 3.0, 0.0)
    assert stored(path) == {"a": 3.0}
    values.close()


def test_no_room_to_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Series that are there go on; a new one that would need more blocks waits."""
    path = tmp_path / "counter.db"
    values = AllocatedDict(str(path))
    values.write_value("a", 1.0, 0.0)
    real = os.posix_fallocate

    def full(fd: int, offset: int, size: int) -> None:
        if size > 1 << 16:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    values.write_value("b" * (1 << 16), 1.0, 0.0)
    values.write_value("a", 2.0, 0.0)
    assert stored(path) == {"a": 2.0}
    values.close()


def test_an_earlier_process_of_that_number(tmp_path: Path) -> None:
    """What it counted is gone on from."""
    path = tmp_path / "counter.db"
    first = AllocatedDict(str(path))
    first.write_value("a", 5.0, 0.0)
    first.close()
    second = AllocatedDict(str(path))
    assert second.read_value("a") == (5.0, 0.0)
    second.close()
