"""Tables of answers: the first row decides, and what is in no row is tried again."""

from __future__ import annotations

import pytest

from tallystick.destinations.answers import AnswerTable, Row
from tallystick.http.outbound import Reply
from tallystick.plugin import AnswerKind

TABLE = AnswerTable(
    Row([200, range(202, 204)], AnswerKind.DELIVERED, "200, 202, 203", "delivered"),
    Row([413], AnswerKind.SPLIT, "413", "split", "too_large"),
    Row([range(400, 500)], AnswerKind.PARK, "4xx", "park"),
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, AnswerKind.DELIVERED),
        (203, AnswerKind.DELIVERED),
        (201, AnswerKind.RETRY),
        (413, AnswerKind.SPLIT),
        (499, AnswerKind.PARK),
    ],
)
def test_the_first_row_that_holds_a_code_decides(status: int, kind: AnswerKind) -> None:
    """Single codes, ranges, order, and a code that nobody thought of."""
    assert TABLE.kind(status) is kind
    assert TABLE.answer(Reply(status, {}, b""), "there").kind is kind


def test_an_answer_says_what_was_said_and_where() -> None:
    """A named reason counts dead letters; without one the status and the beginning of the reply are shown in one line."""
    large = TABLE.answer(Reply(413, {}, b"too\nbig"), "there")
    assert (large.reason, large.where, large.reply) == ("too_large", "there", "too\nbig")
    parked = TABLE.answer(Reply(403, {"retry-after": "3"}, b"no\n\tentry"), "there")
    assert (parked.reason, parked.retry_after_s) == ("HTTP 403: no entry", 3.0)
    assert TABLE.answer(Reply(403, {}, b""), "").reason == "HTTP 403"


def test_the_published_form_has_each_row() -> None:
    """What documentation repeats is the table itself."""
    assert TABLE.published == {"200, 202, 203": "delivered", "413": "split", "4xx": "park"}
