"""Feeds every parser of foreign bytes with whatever Hypothesis can think of, each for a time. Run as ``python -m tools.fuzz [SECONDS]``.

A parser is a file in ``src/tallystick/protocols``; its tests with ``@given`` say what must hold for any input. Here they run with many
more examples and a new seed each round, until the time is over. The first failure ends it, with the example and the seed to see it again.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 600.0
_FOLDERS = ("tests/unit/protocols", "tests/unit/transforms")


def targets() -> list[Path]:
    """Test files with properties of parsers."""
    files = [path for folder in _FOLDERS for path in sorted((ROOT / folder).glob("test_*.py"))]
    return [path for path in files if "@given" in path.read_text("utf-8")]


def fuzz(path: Path, seconds: float) -> bool:
    """Rounds over one file until the time is over; False when something does not hold."""
    deadline = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < deadline:
        seed = secrets.randbits(32)
        command = [sys.executable, "-m", "pytest", str(path), "-q", "-x", "-m", "hypothesis", f"--hypothesis-seed={seed}"]
        command += [
            "--hypothesis-profile=fuzz",
            "--timeout=900",
            "--override-ini=addopts=--import-mode=importlib",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout, done.stderr, f"{path.relative_to(ROOT)}: seed {seed}", sep="\n")
            return False
        rounds += 1
    print(f"{path.relative_to(ROOT)}: {rounds} rounds, {done.stdout.strip().splitlines()[-1]}", flush=True)
    return True


def main(arguments: list[str]) -> int:
    """Exit code 1 at the first failure."""
    seconds = float(arguments[0]) if arguments else SECONDS
    return 0 if all(fuzz(path, seconds) for path in targets()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
