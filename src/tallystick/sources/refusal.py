"""What a sender is told when its request ends in an error: each error of the intake as one `Problem`."""

from __future__ import annotations

import math
import traceback

from tallystick.errors import NotFoundError, PushbackError, QuotaExceededError
from tallystick.http.problem import Problem
from tallystick.sources.submission import ConflictingLinesError, ForbiddenTenantError, InvalidBatchError, problem_lines

TOO_MANY_EVENTS = "too_many_events"


def problem_of(error: Exception) -> Problem | None:
    """The answer for an error that a request may end with; None for one that it should not."""
    match error:
        case Problem():
            return error
        case PushbackError():
            return pushback_problem(error)
        case InvalidBatchError():
            return invalid_problem(error)
        case ForbiddenTenantError():
            return Problem(403, error.code, str(error))
        case ConflictingLinesError():
            lines = [{"line": line, "pointer": "/id", "message": "other content under this id"} for line in error.lines]
            return Problem(409, error.code, error.message, lines)
        case NotFoundError():
            return Problem(404, error.code, error.message)
    return None


def forget_request(error: BaseException) -> None:
    """Let go of what the frames behind an error hold, its body and its events most of all.

    An error that is kept while its sender is made to wait keeps them too; and where a frame holds the error in turn (a future in a
    variable is enough), they would stay until the collector of cycles comes by, which on purpose is seldom.
    """
    seen: list[BaseException] = []
    behind: BaseException | None = error
    while behind is not None and behind not in seen:
        seen.append(behind)
        behind = behind.__cause__ or behind.__context__
    for one in seen:
        traceback.clear_frames(one.__traceback__)
        one.__traceback__ = None


def pushback_problem(error: PushbackError) -> Problem:
    """429 for a quota, else 503, with the error's advice in whole seconds, at least one."""
    seconds = max(1, math.ceil(error.retry_after_s))
    status = 429 if isinstance(error, QuotaExceededError) else 503
    return Problem(status, error.code, error.message, headers={"retry-after": str(seconds)})


def invalid_problem(error: InvalidBatchError) -> Problem:
    """400 when nothing could be read as JSON, 413 for too many events, 422 when records are no events."""
    if error.bad[0].error.code == TOO_MANY_EVENTS:
        return Problem(413, TOO_MANY_EVENTS, error.bad[0].error.message)
    status, code = (400, error.bad[0].error.code) if error.is_unreadable else (422, error.code)
    return Problem(status, code, error.message, problem_lines(error.bad))
