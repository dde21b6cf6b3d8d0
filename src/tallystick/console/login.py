"""Single-use login codes: how a terminal hands a browser its first session without a key in a URL.

``run/login-<SHA-256 of the code, hex>`` holds ``{"key_id","expires_at"}``; the code itself is nowhere on disk. Redeeming
unlinks the file, and only the process that did unlink it gets the session, so a code works once however many try. The
directory is volatile: a crash loses open codes, never more.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from pathlib import Path

import msgspec

from tallystick.durable import replace_volatile, unlink

CODE_LIFETIME_S = 600.0
_CODE = re.compile(r"[A-Za-z0-9_-]{43}")


class _Ticket(msgspec.Struct):
    key_id: str
    expires_at: float


def issue_code(data_dir: Path, key_id: str) -> str:
    """A new code for a session of ``key_id``, good for ten minutes and for one use."""
    code = secrets.token_urlsafe(32)
    run_dir = data_dir / "run"
    run_dir.mkdir(mode=0o700, exist_ok=True)
    _sweep(run_dir)
    replace_volatile(_path(data_dir, code), msgspec.json.encode(_Ticket(key_id, time.time() + CODE_LIFETIME_S)))
    return code


def redeem_code(data_dir: Path, code: str) -> str | None:
    """The key id behind ``code``, once; None for a code that is unknown, used or too old."""
    if not _CODE.fullmatch(code):
        return None
    path = _path(data_dir, code)
    try:
        ticket = msgspec.json.decode(path.read_bytes(), type=_Ticket)
        unlink(path, missing_ok=False)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return ticket.key_id if time.time() < ticket.expires_at else None


def _path(data_dir: Path, code: str) -> Path:
    return data_dir / "run" / f"login-{hashlib.sha256(code.encode()).hexdigest()}"


def _sweep(run_dir: Path) -> None:
    """Take away codes that nobody used."""
    for path in run_dir.glob("login-*"):
        try:
            if path.stat().st_mtime < time.time() - CODE_LIFETIME_S:
                unlink(path)
        except FileNotFoundError:
            continue
