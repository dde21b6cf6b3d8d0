"""One line of what `tallystick doctor` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail", "not run"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``check`` is what was looked at, ``hint`` what to do when it is not ok."""

    check: str
    state: State
    detail: str
    hint: str = ""


def ok(check: str, detail: str) -> Finding:
    return Finding(check, "ok", detail)


def warn(check: str, detail: str, hint: str) -> Finding:
    return Finding(check, "warn", detail, hint)


def fail(check: str, detail: str, hint: str) -> Finding:
    return Finding(check, "fail", detail, hint)


def not_run(check: str, reason: str) -> Finding:
    return Finding(check, "not run", reason)
