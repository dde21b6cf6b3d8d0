"""The server's RFC 9457 problem, as an error."""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.errors import TerminalError, TransientError


class ProblemError(TerminalError):
    """The server refused. ``status`` is the HTTP status, ``problem`` the document it sent."""

    code = "refused"

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        detail = problem.get("detail") or problem.get("title") or f"HTTP {status}"
        super().__init__(f"{detail} [{problem.get('code', status)}]", place=_place(problem.get("errors")))
        self.status = status
        self.problem = problem


class UnavailableError(TransientError):
    """No answer, or none but "later", until the client's patience ended; or an answer that was lost and must not be repeated."""

    code = "unavailable"


def problem_from(status: int, body: bytes) -> ProblemError:
    """The error for an answer of 400 and above; a body that is no problem document becomes its detail."""
    try:
        problem = msgspec.json.decode(body)
    except msgspec.DecodeError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    return ProblemError(status, problem or {"detail": body[:200].decode("utf-8", "replace")})


def _place(errors: Any) -> str | None:
    if not isinstance(errors, list) or not errors:
        return None
    first = errors[0] if isinstance(errors[0], dict) else {}
    more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    return f"line {first.get('line')}, {first.get('pointer') or 'whole record'}: {first.get('message')}{more}"
