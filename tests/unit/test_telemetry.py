"""Our own log."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = """
from tallystick.telemetry import configure_logging, log
configure_logging()
log.error("role ended", text="a\\nb\\x1b[2J")
print("went on", flush=True)
"""


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    """With stderr on a full disk, or closed, the process goes on."""
    for redirect in ("2>/dev/full", "2>&-"):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-c", _PROGRAM], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, "went on\n"), redirect


def test_a_line_is_one_json_object() -> None:
    """Whatever is in the text, one event is one line without control characters."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["text"] == "a\nb\x1b[2J"
