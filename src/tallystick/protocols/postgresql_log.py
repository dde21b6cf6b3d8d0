"""PostgreSQL's server log as `csvlog` and `jsonlog` write it, with what pgaudit says taken apart.

`jsonlog` (PostgreSQL 15 and newer) is an object a line; a value that is empty is left out. `csvlog` is a record of 23 (up to 12), 24
(13) or 26 columns, quoted as CSV, so one record may have several lines; its columns get the names that `jsonlog` has. pgaudit writes
its entry into the message, as CSV again:

    AUDIT: SESSION,3,1,DDL,CREATE TABLE,TABLE,public.account,"create table account (…)",<not logged>

which becomes the member ``audit`` (`type, statement_id, substatement_id, class, command, object_type, object_name, statement,
parameter, rows`, and ``action``, the command as the name of an action).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

_COLUMNS = (
    "timestamp", "user", "dbname", "pid", "connection_from", "session_id", "line_num", "ps", "session_start", "vxid", "txid",
    "error_severity", "state_code", "message", "detail", "hint", "internal_query", "internal_position", "context", "statement",
    "cursor_position", "location", "application_name", "backend_type", "leader_pid", "query_id",
)  # fmt: skip
_WIDTHS = (23, 24, 26)
_NUMBERS = {"pid", "line_num", "txid", "internal_position", "cursor_position", "leader_pid", "query_id"}
_AUDIT = (
    "type", "statement_id", "substatement_id", "class", "command", "object_type", "object_name", "statement", "parameter", "rows",
)  # fmt: skip
_MARK = "AUDIT: "
_TIME = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?) (?:(UTC|GMT)|([+-]\d\d)(?::?(\d\d))?)")
# Python's own default, 128 KiB, is less than a statement may have; sources bound their records before.
csv.field_size_limit(1 << 24)
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class LogRecord(NamedTuple):
    """One record: its own bytes, and as JSON with `jsonlog`'s names. ``fault``: why it is none; ``record`` is empty then."""

    source: bytes
    record: bytes
    fault: str = ""


def read_log(text: bytes) -> Iterator[LogRecord]:
    """The records in ``text``: one object, or one or several records of `csvlog`."""
    if text.startswith(b"{"):
        try:
            yield LogRecord(text, _finish(_decode(text)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            yield LogRecord(text, b"", f"not a record of jsonlog: {error}")
        return
    for source in _split(text):
        yield _read_csv(source)


def _read_csv(source: bytes) -> LogRecord:
    values = _csv(source.decode("utf-8", "replace").replace("\0", "\ufffd"))
    if values is None or len(values) not in _WIDTHS or not _TIME.match(values[0]):
        found = "no CSV" if values is None else f"{len(values)} columns that begin with {values[0][:32]!r}"
        return LogRecord(source, b"", f"not a record of csvlog: {found}")
    members: dict[str, Any] = {}
    for name, value in zip(_COLUMNS, values, strict=False):
        if not value:
            continue
        if name == "connection_from":
            host, _, port = value.rpartition(":") if value != "[local]" else (value, "", "")
            members |= {"remote_host": host or value} | ({"remote_port": int(port)} if port.isascii() and port.isdigit() else {})
        else:
            members[name] = int(value) if name in _NUMBERS and re.fullmatch(r"-?[0-9]{1,19}", value) else value
    return LogRecord(source, _finish(members))


def _finish(members: dict[str, Any]) -> bytes:
    """The time with its offset, and pgaudit's entry as a member."""
    time = members.get("timestamp")
    if isinstance(time, str) and (match := _TIME.fullmatch(time)):
        day, clock, is_utc, hours, minutes = match.groups()
        members["timestamp"] = f"{day}T{clock}" + ("Z" if is_utc else f"{hours}:{minutes or '00'}")
    message = members.get("message")
    if isinstance(message, str) and message.startswith(_MARK):
        values = _csv(message[len(_MARK) :])
        if values is not None and len(_AUDIT) - 1 <= len(values) <= len(_AUDIT) and values[4]:
            entry: dict[str, Any] = {name: value for name, value in zip(_AUDIT, values, strict=False) if value}
            entry["action"] = "postgresql." + re.sub(r"[^a-z0-9]+", "_", values[4].lower())[:64]
            members["audit"] = entry
            del members["message"]
    return _encode(members)


def _split(text: bytes) -> Iterator[bytes]:
    """Records end at a line feed outside quotes."""
    start, is_quoted, at = 0, False, 0
    while True:
        line_end = text.find(b"\n", at)
        if line_end < 0:
            break
        is_quoted ^= text.count(b'"', at, line_end) % 2 == 1
        at = line_end + 1
        if not is_quoted:
            yield text[start:line_end].rstrip(b"\r")
            start = at
    if start < len(text):
        yield text[start:]


def _csv(text: str) -> list[str] | None:
    """The values of one record; None when it is none."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 and rows[0] else None
