"""Destination `clickhouse` without a server: rows, tables, answers, settings."""

from __future__ import annotations

from typing import Any

import pytest

from support.delivery import make_line
from tallystick.destinations.clickhouse import ClickHouseSettings, answer_reply
from tallystick.destinations.clickhouse_table import COLUMNS, TableUnfitError, columns_to_fill, create_statement, make_row
from tallystick.errors import ConfigError
from tallystick.http.outbound import Reply
from tallystick.plugin import AnswerKind


@pytest.mark.parametrize(
    ("kind", "time", "value"),
    [
        ("DateTime64(6, 'UTC')", "2026-03-04T05:06:07.123456Z", "2026-03-04 05:06:07.123456"),
        ("DateTime64(6, 'UTC')", "0001-01-01T00:00:00.000000Z", "1900-01-01 00:00:00.000000"),
        ("Nullable(DateTime('UTC'))", "2026-03-04T05:06:07.123456Z", "2026-03-04 05:06:07"),
        ("DateTime('UTC')", "9999-12-31T23:59:59.999999Z", "2105-12-31 23:59:59"),
        ("String", "2026-03-04T05:06:07.123456Z", "2026-03-04T05:06:07.123456Z"),
    ],
)
def test_times_have_the_form_of_their_column(kind: str, time: str, value: str) -> None:
    """Microseconds where they fit, and the nearest border where the column's years end."""
    line = make_line(0).replace(b"2026-03-04T05:06:07.000000Z", time.encode())
    assert make_row(0, line, {"occurred_at": kind}) == [value]


def test_what_an_event_lacks_is_empty_or_null() -> None:
    """Empty texts, NULL where the column allows it, and 0 in a number that cannot be NULL."""
    columns = {"category": "String", "severity": "Nullable(UInt8)", "outcome": "LowCardinality(Nullable(String))"}
    line = make_line(0).replace(b',"outcome":"success"', b"")
    assert make_row(0, line, columns) == ["", None, None]
    assert make_row(0, line, {"severity": "UInt8"}) == ["0"]


def test_a_table_says_only_what_the_server_knows() -> None:
    """An old server gets a plain table in seconds, a new one microseconds, tokens and syncing."""
    old = create_statement("t", has_micros=False, table_settings=[])
    assert "DateTime('UTC')" in old
    assert "SETTINGS" not in old
    new = create_statement("t", has_micros=True, table_settings=["fsync_after_insert", "non_replicated_deduplication_window"])
    assert "DateTime64(6, 'UTC')" in new
    assert new.endswith("SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1")


def test_a_table_without_a_place_for_the_event_is_unfit() -> None:
    """Tenant, index and id are needed; columns that are not ours are left alone."""
    with pytest.raises(TableUnfitError, match="no column id"):
        columns_to_fill("t", {"tenant": "String", "index": "UInt64"})
    assert columns_to_fill("t", COLUMNS | {"note": "String"}) == COLUMNS


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind"),
    [
        (500, {}, b"Code: 27, e.displayText() = DB::Exception: Cannot parse input", AnswerKind.SPLIT),
        (404, {}, b"Code: 60, e.displayText() = DB::Exception: Table d.t doesn't exist.", AnswerKind.PARK),
        (403, {"x-clickhouse-exception-code": "516"}, b"Code: 516. DB::Exception: Authentication failed", AnswerKind.PARK),
        (500, {"x-clickhouse-exception-code": "252"}, b"Code: 252. DB::Exception: Too many parts", AnswerKind.THROTTLE),
        (500, {}, b"Code: 999, e.displayText() = Coordination::Exception: Session expired", AnswerKind.RETRY),
        (413, {}, b"<html>", AnswerKind.SPLIT),
        (403, {}, b"<html>", AnswerKind.PARK),
        (503, {"retry-after": "7"}, b"", AnswerKind.THROTTLE),
        (502, {}, b"<html>", AnswerKind.RETRY),
    ],
)
def test_answers_are_sorted_by_code_then_by_status(status: int, headers: dict[str, str], body: bytes, kind: AnswerKind) -> None:
    """The server's own code decides; what stands before it, a proxy, has only a status."""
    assert answer_reply(Reply(status, headers, body), "there").kind is kind


@pytest.mark.parametrize(
    "changes", [{"encoding": "ocsf"}, {"password": "line\nfeed"}, {"url": "http://user:word@example.com"}, {"user": "\u00e9"}]
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    """Another encoding, a header that cannot be, a password in the URL."""
    settings = ClickHouseSettings(**({"url": "https://example.com:8443"} | changes))
    with pytest.raises(ConfigError):
        settings.check()
