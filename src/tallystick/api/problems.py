"""One place that turns every error into an RFC 9457 answer.

What the caller can mend is named with its place; what is ours to mend says only the request id.
"""

from __future__ import annotations

from litestar.exceptions import HTTPException

from tallystick.errors import (
    ConflictError,
    EventInvalidError,
    NotFoundError,
    PushbackError,
    QueryError,
    TerminalError,
    TransientError,
)
from tallystick.http.problem import Problem

_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "media_type_unsupported",
}


def problem_of(error: Exception) -> Problem:
    """The answer for ``error``; anything unknown is a bare 500."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return _of_framework(error)
    if isinstance(error, QueryError):
        item = {"pointer": "?query", "message": str(error)}
        return Problem(400, error.code, str(error), errors=[item])
    if isinstance(error, NotFoundError):
        return Problem(404, "not_found", error.message)
    if isinstance(error, ConflictError):
        return Problem(409, "conflict", error.message)
    if isinstance(error, PushbackError):
        return Problem(503, error.code, error.message, headers={"retry-after": str(max(1, round(error.retry_after_s)))})
    if isinstance(error, TransientError):
        return Problem(503, error.code, error.message, headers={"retry-after": "5"})
    if isinstance(error, EventInvalidError):
        return Problem(
            422, error.code, error.message, errors=[{"line": error.line, "pointer": error.pointer, "message": error.message}]
        )
    if isinstance(error, TerminalError):
        return Problem(422, error.code, error.message)
    return Problem(500, "internal", "this is a fault of ours; the log has it under the request id")


def _of_framework(error: HTTPException) -> Problem:
    if error.status_code >= 500:
        return Problem(500, "internal", "this is a fault of ours; the log has it under the request id")
    errors = []
    for item in error.extra if isinstance(error.extra, list) else []:
        if isinstance(item, dict):
            key, source = str(item.get("key", "")), str(item.get("source", "body")).lower()
            pointer = f"?{key}" if "query" in source else "/" + key.replace(".", "/")
            errors.append({"pointer": pointer, "message": str(item.get("message", ""))})
    code = "parameter_invalid" if errors and errors[0]["pointer"].startswith("?") else _CODES.get(error.status_code, "bad_request")
    detail = "; ".join(f"{item['pointer']}: {item['message']}" for item in errors) or _first_sentence(error.detail)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    return Problem(error.status_code, code, detail, errors=errors, headers=headers)


def _first_sentence(detail: str) -> str:
    return detail.split("\n", 1)[0][:300]
