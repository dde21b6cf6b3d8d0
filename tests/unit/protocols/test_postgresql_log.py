"""PostgreSQL's log: records written here after its documentation, and pgaudit's."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.postgresql_log import read_log

TIME = "2026-03-01 10:00:00.123 UTC"
AUDIT = 'AUDIT: SESSION,3,1,DDL,CREATE TABLE,TABLE,public.account,"create table account (\n  id int, ""Name"" text)",<not logged>'


def row(message: str, width: int = 26, time: str = TIME, connection: str = "192.0.2.7:5004") -> bytes:
    """One record of csvlog."""
    values = [time, "ann", "shop", "4711", connection, "65f0.1267", "3", "CREATE TABLE", TIME, "3/12", "0", "LOG", "00000", message]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([*values, *[""] * (width - len(values))])
    return out.getvalue().encode()


def read(text: bytes) -> list[dict[str, Any]]:
    found = list(read_log(text))
    assert [one.fault for one in found] == [""] * len(found)
    return [json.loads(one.record) for one in found]


@pytest.mark.parametrize("width", [23, 24, 26])
def test_a_record_of_csvlog_gets_the_names_of_jsonlog(width: int) -> None:
    """In every version's width; numbers as numbers, the address apart from the port, the time with its offset, empty values left out."""
    (found,) = read(row("connection received", width))
    assert found == {
        "timestamp": "2026-03-01T10:00:00.123Z", "user": "ann", "dbname": "shop", "pid": 4711, "remote_host": "192.0.2.7",
        "remote_port": 5004, "session_id": "65f0.1267", "line_num": 3, "ps": "CREATE TABLE", "session_start": TIME, "vxid": "3/12",
        "txid": 0, "error_severity": "LOG", "state_code": "00000", "message": "connection received",
    }  # fmt: skip


def test_an_entry_of_pgaudit_is_taken_apart() -> None:
    """In both forms: quotes within quotes, commas and line ends in the statement, empty values left out."""
    expected = {
        "type": "SESSION", "statement_id": "3", "substatement_id": "1", "class": "DDL", "command": "CREATE TABLE",
        "object_type": "TABLE", "object_name": "public.account", "statement": 'create table account (\n  id int, "Name" text)',
        "parameter": "<not logged>", "action": "postgresql.create_table",
    }  # fmt: skip
    as_json = json.dumps({"timestamp": TIME, "error_severity": "LOG", "message": AUDIT}).encode()
    for text in (row(AUDIT), as_json):
        (found,) = read(text)
        assert found["audit"] == expected
        assert "message" not in found


def test_several_records_keep_their_own_bytes() -> None:
    """They end at line feeds outside quotes."""
    texts = [row("one"), row(AUDIT), row("three\nlines\nlong")]
    assert [one.source + b"\n" for one in read_log(b"".join(texts))] == texts


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-03-01 10:00:00 GMT", "2026-03-01T10:00:00Z"),
        ("2026-03-01 10:00:00.5 +02", "2026-03-01T10:00:00.5+02:00"),
        ("2026-03-01 10:00:00 +0530", "2026-03-01T10:00:00+05:30"),
        ("2026-03-01 10:00:00 CET", "2026-03-01 10:00:00 CET"),
    ],
)
def test_times(time: str, expected: str) -> None:
    """An abbreviation that may mean several zones is left as it is, for the mapping to flag."""
    (found,) = read(json.dumps({"timestamp": time}).encode())
    assert found["timestamp"] == expected


@pytest.mark.parametrize("connection", ["[local]", "2001:db8::7:5004", "host.example.com:1"])
def test_addresses(connection: str) -> None:
    """Sockets of the machine, IPv6 and names."""
    (found,) = read(row("x", connection=connection))
    assert found["remote_host"] == (connection if connection == "[local]" else connection.rpartition(":")[0])


@pytest.mark.parametrize("text", [b"{", b"[1]", b'{"a":1}x', b"no,log", b'"open', b"\xff\xfe", b"2026-03-01 10:00:00 UTC,short"])
def test_what_is_no_record_is_named(text: bytes) -> None:
    """With its bytes, for the quarantine."""
    (found,) = read_log(text)
    assert found.fault
    assert (found.source, found.record) == (text, b"")


def test_an_entry_that_is_not_whole_stays_a_message() -> None:
    """A line of the log that only begins like pgaudit's is an ordinary one."""
    for message in ("AUDIT: nothing", 'AUDIT: SESSION,1,1,READ,SELECT,,,"open'):
        (found,) = read(row(message))
        assert (found["message"], "audit" in found) == (message, False)


@given(st.lists(st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])), min_size=9, max_size=10))
def test_what_pgaudit_quotes_comes_out_again(values: list[str]) -> None:
    """Whatever a statement holds."""
    values[4] = values[4] or "SELECT"
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    (found,) = read(row("AUDIT: " + out.getvalue()[:-1]))
    assert found["audit"]["command"] == values[4]
    assert found["audit"].get("statement", "") == values[7]


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_named(text: bytes) -> None:
    """Everything is in exactly one of the records, read or not."""
    found = list(read_log(text))
    assert all(bool(one.record) != bool(one.fault) for one in found)
