"""pgoutput's messages, written here byte by byte after PostgreSQL's documentation."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.pgoutput import Begin, Change, Commit, Decoder, Message, PgOutputError, Relation, Truncate

BEGIN = b"B" + struct.pack(">qqi", 0x16B374D848, 700_000_000, 731)
COMMIT = b"C" + struct.pack(">Bqqq", 0, 0x16B374D848, 0x16B374D900, 700_000_000)


def relation(identity: bytes = b"d", oid: int = 16_385) -> bytes:
    columns = (b"\1id\0", 23), (b"\0name\0", 25)
    body = b"".join(head + struct.pack(">ii", kind, -1) for head, kind in columns)
    return b"R" + struct.pack(">i", oid) + b"public\0users\0" + identity + struct.pack(">h", 2) + body


def row(*values: bytes | None) -> bytes:
    """Values as text; None is NULL, b"u" on its own is one that was not sent."""
    parts = [b"n" if one is None else b"u" if one == b"u" else b"t" + struct.pack(">i", len(one)) + one for one in values]
    return struct.pack(">h", len(values)) + b"".join(parts)


def change(kind: bytes, *parts: bytes) -> bytes:
    return kind + struct.pack(">i", 16_385) + b"".join(parts)


def test_a_transaction() -> None:
    """Begin, a table, a row of each kind, Commit: with the places that are confirmed later."""
    decoder = Decoder()
    assert decoder.read(BEGIN) == Begin(0x16B374D848, 700_000_000, 731)
    table = decoder.read(relation())
    assert isinstance(table, Relation)
    assert (table.schema, table.name, [column.is_key for column in table.columns]) == ("public", "users", [True, False])
    assert decoder.read(change(b"I", b"N", row(b"1", None))) == Change("insert", table, None, {"id": "1", "name": None})
    assert decoder.read(change(b"U", b"O", row(b"1", b"a"), b"N", row(b"1", b"b"))) == Change(
        "update", table, {"id": "1", "name": "a"}, {"id": "1", "name": "b"}
    )
    assert decoder.read(change(b"D", b"K", row(b"1", None))) == Change("delete", table, {"id": "1"}, None)
    assert decoder.read(b"T" + struct.pack(">iBi", 1, 0, 16_385)) == Truncate((table,))
    assert decoder.read(COMMIT) == Commit(0x16B374D848, 0x16B374D900, 700_000_000)


def test_what_was_not_sent_is_not_null() -> None:
    """A large value that did not change is absent; a key-only row has the key alone."""
    decoder = Decoder()
    decoder.read(relation())
    found = decoder.read(change(b"U", b"N", row(b"1", b"u")))
    assert isinstance(found, Change)
    assert (found.before, found.after) == (None, {"id": "1"})


def test_messages_of_the_application() -> None:
    """Prefix and content, and whether they belong to a transaction."""
    body = b"M" + struct.pack(">Bq", 1, 5) + b"tallystick\0" + struct.pack(">i", 3) + b"abc"
    assert Decoder().read(body) == Message(True, "tallystick", b"abc")


def test_types_and_origins_carry_nothing() -> None:
    """They are passed over; an unknown message is an error, for what it would have said is not known."""
    decoder = Decoder()
    assert decoder.read(b"Y" + struct.pack(">i", 1) + b"public\0mood\0") is None
    assert decoder.read(b"O" + struct.pack(">q", 1) + b"other\0") is None
    for odd in (b"S", b"Z123", b"", change(b"I", b"N", row(b"1", None))):
        with pytest.raises(PgOutputError):
            decoder.read(odd)


@given(st.binary(max_size=200), st.sampled_from([b"B", b"C", b"R", b"I", b"U", b"D", b"T", b"M", b""]))
def test_no_bytes_do_more_than_raise(noise: bytes, kind: bytes) -> None:
    """Whatever arrives, it is read or it is a PgOutputError."""
    decoder = Decoder()
    decoder.read(relation())
    for data in (kind + noise, kind + struct.pack(">i", 16_385) + noise):
        try:
            decoder.read(data)
        except PgOutputError:
            continue
