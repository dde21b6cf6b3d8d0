"""Destination `postgresql` without a server: rows, errors, settings."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import psycopg2
import pytest

from support.delivery import make_line
from tallystick.destinations.postgresql import PostgresqlSettings, answer_error
from tallystick.destinations.postgresql_table import COLUMNS, TableUnfitError, make_row
from tallystick.destinations.row import tab_separated
from tallystick.errors import ConfigError
from tallystick.plugin import AnswerKind
from tallystick.sources.remote import RemoteTlsSettings


def test_a_row_has_the_columns_that_are_asked_for() -> None:
    """In the order asked for; what an event has not is NULL."""
    line = make_line(3)
    assert make_row(3, line, ["index", "id", "ip", "target_id", "outcome"]) == ["3", "acme-3", None, None, "success"]
    assert dict(zip(COLUMNS, make_row(3, line, list(COLUMNS)), strict=True))["line"] == line.decode()
    assert len(
        next(
            csv.reader(
                io.StringIO(tab_separated([make_row(3, line, list(COLUMNS))]).decode()), delimiter="\t", quoting=csv.QUOTE_NONE
            )
        )
    ) == len(COLUMNS)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg2.errors.CheckViolation("no"), AnswerKind.RETRY),  # without the server's code nothing is known
        (psycopg2.OperationalError("connection refused"), AnswerKind.RETRY),
        (psycopg2.OperationalError('FATAL:  password authentication failed for user "x"'), AnswerKind.PARK),
        (psycopg2.OperationalError('FATAL:  database "x" does not exist'), AnswerKind.PARK),
        (psycopg2.InterfaceError("connection already closed"), AnswerKind.RETRY),
        (TableUnfitError("there is no table x"), AnswerKind.PARK),
    ],
)
def test_errors_are_sorted(error: Exception, kind: AnswerKind) -> None:
    """A login that is refused parks, everything that may pass is a retry."""
    answer = answer_error(error)
    assert answer.kind is kind
    assert answer.reason


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "db.example.com"}, "in the clear"),
        ({"tls": RemoteTlsSettings(ca="none.pem")}, "none.pem cannot be used"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    """A connection in the clear to another machine, a certificate that is not there."""
    made = PostgresqlSettings(database="d", user="u", **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        made.rooted(tmp_path).check()
