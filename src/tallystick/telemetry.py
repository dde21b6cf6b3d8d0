"""Our own log lines, metrics and status pages, shared by all processes of one installation.

- Log: one JSON object a line on stderr, no payloads, control characters escaped by JSON itself.
- Metrics: prometheus_client in multi-process mode over ``<data>/run/metrics``, so one scrape covers all processes.
- Status: each role writes ``<data>/run/status-<role>.json`` (volatile; a restart makes it anew).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from tallystick.durable import replace_volatile

_unpublished: set[str] = set()
_level: str | None = None


class _Log:
    """A structlog logger that is made when the first line is written: the library and what it loads cost a process 0.1 s of
    CPU time, and most processes have nothing to say."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_logger(), name)


log = _Log()


def configure_logging(level: str = "INFO") -> None:
    """Send JSON lines to stderr, at ``level`` and above; what libraries log comes the same way, from warnings on."""
    global _level
    _level = level
    _logger.cache_clear()
    logging.basicConfig(handlers=[_LibraryHandler()], level=logging.WARNING, force=True)


@cache
def _logger() -> Any:
    import structlog  # here: see `_Log`

    if _level is not None:
        _configure(structlog, _level)
    return structlog.get_logger("tallystick")


def _configure(structlog: Any, level: str) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda value, **_: msgspec.json.encode(value, enc_hook=repr).decode()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=lambda *_: _LineLogger(),
        cache_logger_on_first_use=True,
    )


class _LibraryHandler(logging.Handler):
    """Takes what libraries log through `logging`, so that a traceback of theirs is one line too."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        more = {"exc_info": record.exc_info} if record.exc_info else {}
        log.log(level, record.getMessage(), logger=record.name, **more)


class _LineLogger:
    """One line, one write to stderr. A log that cannot be written (its disk is full, its reader is gone) stops nobody's work."""

    def msg(self, message: str) -> None:
        """Write the line, or lose it."""
        if sys.stderr is None:
            return  # closed at the start; its number may be another file's by now
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), message.encode("utf-8", "backslashreplace") + b"\n")

    debug = info = warning = error = critical = fatal = exception = msg


def use_metrics_dir(data_dir: Path) -> Path:
    """Point prometheus_client at this installation's directory; must run before a metric is made."""
    path = data_dir / "run" / "metrics"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(path)
    from tallystick.metric_files import use_allocated_files  # here, because the library looks at the environment when imported

    use_allocated_files()
    return path


def publish_status(data_dir: Path, role: str, status: dict[str, Any]) -> None:
    """Let other processes read this role's state. ``at`` (Unix seconds) tells them how old it is.

    A page that cannot be written (the disk is full) grows old, which readers see; the role's work goes on.
    """
    page = {"role": role, "pid": os.getpid(), "at": time.time(), **status}
    try:
        replace_volatile(data_dir / "run" / f"status-{role}.json", msgspec.json.encode(page, enc_hook=repr))
    except OSError as error:
        if role not in _unpublished:
            log.warning("status_not_published", role=role, error=str(error))
        _unpublished.add(role)
    else:
        _unpublished.discard(role)


def read_status(data_dir: Path, role: str) -> dict[str, Any] | None:
    """A role's last page, or None when it never wrote one."""
    try:
        page: dict[str, Any] = msgspec.json.decode((data_dir / "run" / f"status-{role}.json").read_bytes())
    except FileNotFoundError:
        return None
    return page
