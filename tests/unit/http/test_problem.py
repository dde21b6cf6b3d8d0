from __future__ import annotations

import msgspec
import pytest

from tallystick.http.problem import Problem


def test_body_has_the_members_of_rfc_9457_and_ours() -> None:
    """The body names status, title, code, detail, every error and the request id."""
    problem = Problem(
        422, "events_invalid", "2 of 3 events are invalid", errors=[{"line": 2, "pointer": "/actor", "message": "missing"}]
    )
    assert msgspec.json.decode(problem.body("r1")) == {
        "title": "Unprocessable Entity",
        "status": 422,
        "code": "events_invalid",
        "detail": "2 of 3 events are invalid",
        "errors": [{"line": 2, "pointer": "/actor", "message": "missing"}],
        "request_id": "r1",
    }


def test_headers_carry_length_and_advice() -> None:
    """Retry-After and the like travel in the answer's headers, in lower case."""
    problem = Problem(503, "overloaded", "the queue is full", headers={"Retry-After": "2"})
    body = problem.body("r")
    lines = dict(problem.header_lines(body))
    assert lines[b"retry-after"] == b"2"
    assert lines[b"content-length"] == str(len(body)).encode()
    assert lines[b"content-type"] == b"application/problem+json"
    assert b'"errors"' not in body


@pytest.mark.parametrize(("status", "title"), [(404, "Not Found"), (599, "Error")])
def test_title_is_the_standard_phrase(status: int, title: str) -> None:
    """The title is the phrase of the status, also when the status is not registered."""
    assert Problem(status, "x", "y").title == title
