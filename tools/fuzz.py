"""Feeds every parser of foreign bytes with whatever Hypothesis can think of, each for a time. Run as ``python -m tools.fuzz [SECONDS]``.

A parser is a file in ``src/tallystick/protocols`` or ``src/tallystick/transforms``; its tests with ``@given`` say what must hold for any
input. Here they run with many more examples and a new seed each round, until the time is over, as many at once as there are cores. A
failure ends its parser's rounds, with the example and the seed to see it again.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 600.0
_FOLDERS = ("tests/unit/protocols", "tests/unit/transforms")
_OPTIONS = (
    "-q",
    "-x",
    "-m",
    "hypothesis",
    "--hypothesis-profile=fuzz",
    "--timeout=900",
    "--override-ini=addopts=--import-mode=importlib",
)


def targets() -> list[Path]:
    """Test files with properties of parsers."""
    files = [path for folder in _FOLDERS for path in sorted((ROOT / folder).glob("test_*.py"))]
    return [path for path in files if "@given" in path.read_text("utf-8")]


def fuzz(path: Path, seconds: float) -> bool:
    """Rounds over one file until the time is over; False when something does not hold."""
    begun, rounds, name = time.monotonic(), 0, path.relative_to(ROOT)
    while time.monotonic() < begun + seconds:
        seed = secrets.randbits(32)
        command = [sys.executable, "-m", "pytest", str(path), f"--hypothesis-seed={seed}", *_OPTIONS]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout, done.stderr, f"{name}: seed {seed}", sep="\n", flush=True)
            return False
        rounds += 1
    print(f"{name}: {rounds} rounds of {done.stdout.strip().splitlines()[-1]}, {time.monotonic() - begun:.0f} s in all", flush=True)
    return True


def main(arguments: list[str]) -> int:
    """Exit code 1 when anything failed."""
    seconds = float(arguments[0]) if arguments else SECONDS
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return 0 if all(list(threads.map(partial(fuzz, seconds=seconds), targets()))) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
