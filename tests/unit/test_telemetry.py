"""What the processes say of themselves: log lines and status pages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tallystick.telemetry import publish_status, read_status, use_metrics_dir

PROGRAM = """
from tallystick.telemetry import configure_logging, log
configure_logging({level!r})
log.info("quiet", path=__import__("pathlib").Path("/x"))
log.warning("loud\\n\\x1b[31m", text="ü", number=1, odd={{1, 2}} and object)
def fail(secret):
    raise RuntimeError("it failed")
try:
    fail("a payload in a variable")
except RuntimeError:
    log.exception("caught")
"""


def logged(level: str) -> list[dict[str, object]]:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(level=level)], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_log_lines_are_json_on_stderr() -> None:
    """One object a line whatever is in it, with level and time; nothing odd breaks a line or reaches a terminal raw."""
    quiet, loud, caught = logged("INFO")
    assert (quiet["event"], quiet["level"]) == ("quiet", "info")
    assert (loud["event"], loud["text"], loud["number"]) == ("loud\n\x1b[31m", "ü", 1)
    assert str(loud["timestamp"]).endswith("Z")
    assert "RuntimeError: it failed" in str(caught["exception"])


def test_a_traceback_shows_no_variables() -> None:
    """Values on the stack are senders' data."""
    assert "a payload in a variable" not in str(logged("INFO")[2]["exception"]).replace('fail("a payload in a variable")', "")


def test_levels_filter() -> None:
    """Below the level nothing is said."""
    assert [line["level"] for line in logged("WARNING")] == ["warning", "error"]


def test_a_status_page_says_whose_and_how_old(tmp_path: Path) -> None:
    """The last one counts; a role that never wrote one has none."""
    (tmp_path / "run").mkdir()
    publish_status(tmp_path, "sealer", {"seq": 1, "reason": None})
    publish_status(tmp_path, "sealer", {"seq": 2, "where": tmp_path})
    page = read_status(tmp_path, "sealer")
    assert page is not None
    assert (page["role"], page["pid"], page["seq"]) == ("sealer", os.getpid(), 2)
    assert abs(time.time() - page["at"]) < 60
    assert read_status(tmp_path, "archiver") is None


def test_metrics_have_a_directory_of_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made for its owner alone, and named to the library before a metric exists."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "elsewhere")
    path = use_metrics_dir(tmp_path)
    assert path == tmp_path / "run" / "metrics"
    assert path.is_dir()
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(path)
    use_metrics_dir(tmp_path)


LIBRARY = """
import logging
from tallystick.telemetry import configure_logging
configure_logging()
try:
    raise ValueError("two\\nlines")
except ValueError:
    logging.getLogger("uvicorn.error").exception("Exception in ASGI application\\n")
logging.getLogger("httpx").info("GET of something")
"""


def test_libraries_log_the_same_lines() -> None:
    """What a library logs with a traceback is one JSON line with its logger's name; what it says below a warning is left out."""
    done = subprocess.run([sys.executable, "-c", LIBRARY], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["level"], line["logger"]) for line in lines] == [("error", "uvicorn.error")]
    assert "ValueError: two\nlines" in lines[0]["exception"]
