"""What workers and the writer say to each other: every message comes back as it was, in whatever pieces; bounds hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.errors import ConflictError, DiskFullError, IntegrityError, NotAcceptingError, OverloadedError, TallystickError
from tallystick.journal import wire
from tallystick.journal.entries import AccountEntry, FilterCount, QuarantinedRecord
from tallystick.journal.packed import PackedBatch
from tallystick.journal.tenants import Tenant
from tallystick.journal.wire import (
    AppendAnswer,
    AppendCall,
    CommittedBatch,
    ConflictRecord,
    MessageSplitter,
    News,
    Refusal,
    TenantAnswer,
    TenantCall,
    decode_answer,
    decode_call,
    encode_message,
)

NUMBER = st.integers(0, 2**63)
TEXT = st.text(max_size=30)
RECORD = st.builds(
    QuarantinedRecord,
    handle=TEXT,
    source=TEXT,
    code=TEXT,
    message=TEXT,
    received_at=TEXT,
    data=st.binary(max_size=200),
    line=st.integers(1, 10**9),
    peer=TEXT,
)
PLACE = st.integers(0, 100_000)
CALL = st.one_of(
    st.builds(
        AppendCall,
        NUMBER,
        TEXT,
        TEXT,
        st.booleans(),
        st.lists(st.builds(PackedBatch, TEXT, PLACE, NUMBER, st.binary(max_size=300), st.binary(max_size=96)), max_size=3),
        st.lists(RECORD, max_size=2),
        st.lists(st.builds(FilterCount, handle=TEXT, source=TEXT, filter=TEXT, count=PLACE, received_at=TEXT), max_size=2),
        st.lists(st.builds(AccountEntry, handle=TEXT, id=TEXT, entry=st.dictionaries(TEXT, TEXT, max_size=2)), max_size=2),
        st.lists(st.builds(ConflictRecord, PLACE, PLACE, RECORD), max_size=2),
    ),
    st.builds(TenantCall, NUMBER, TEXT),
)
BATCH = st.builds(
    CommittedBatch,
    st.lists(st.lists(NUMBER, min_size=2, max_size=2), max_size=3),
    PLACE,
    PLACE,
    st.lists(PLACE, max_size=4),
    st.none() | st.binary(max_size=96),
)
ANSWER = st.one_of(
    st.builds(AppendAnswer, NUMBER, st.lists(BATCH, max_size=3), st.lists(st.tuples(PLACE, PLACE), max_size=3), NUMBER),
    st.builds(TenantAnswer, NUMBER, st.builds(Tenant, TEXT, TEXT, st.floats(0, 1e10))),
    st.builds(Refusal, NUMBER, TEXT, TEXT, st.none() | TEXT, st.floats(0, 60), st.lists(st.tuples(PLACE, PLACE), max_size=3)),
    st.builds(News, st.lists(TEXT, max_size=3)),
)


def stream(*messages: Any) -> bytes:
    return b"".join(part for message in messages for part in encode_message(message))


@given(st.lists(CALL, max_size=5), st.lists(ANSWER, max_size=5), st.integers(1, 50))
def test_messages_come_back_in_whatever_pieces(calls: list[Any], answers: list[Any], piece: int) -> None:
    """Calls and answers are equal after the way over a stream that is cut anywhere."""
    for messages, decode in ((calls, decode_call), (answers, decode_answer)):
        splitter, data = MessageSplitter(), stream(*messages)
        found = [body for at in range(0, len(data), piece) for body in splitter.feed(data[at : at + piece])]
        assert list(map(decode, found)) == messages


@given(st.binary(max_size=200))
def test_what_is_no_message_is_named(data: bytes) -> None:
    """Any bytes are a message or an IntegrityError, for both ends."""
    for decode in (decode_call, decode_answer):
        try:
            decode(data)
        except IntegrityError:
            continue


def test_the_size_of_a_message_is_bounded_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender refuses to make a larger one; the receiver refuses at its length, before anything of it is kept."""
    call = TenantCall(1, "x" * 1000)
    whole = stream(call)
    monkeypatch.setattr(wire, "MESSAGE_BYTES_MAX", 999)
    with pytest.raises(OverloadedError):
        encode_message(call)
    with pytest.raises(IntegrityError):
        MessageSplitter().feed(whole[:4])


@pytest.mark.parametrize(
    "error",
    [
        OverloadedError("full", retry_after_s=2.5, hint="later"),
        DiskFullError("no room", retry_after_s=5),
        NotAcceptingError("stopped"),
        ConflictError("other content", positions=[(0, 3), (1, 0)]),
    ],
)
def test_a_refusal_keeps_its_kind_and_its_advice(error: TallystickError) -> None:
    """Code, message, hint, time to wait and places arrive in the worker as they were raised in the writer."""
    answer = decode_answer(encode_message(Refusal.of(7, error))[1])
    assert isinstance(answer, Refusal)
    again = answer.error()
    assert (type(again), again.message, again.hint, answer.number) == (type(error), error.message, error.hint, 7)
    for name in ("retry_after_s", "positions"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_a_fault_of_the_writer_is_no_pushback() -> None:
    """What nobody foresaw arrives as an error that ends in 500, not as advice to come again."""
    again = Refusal.of(7, ValueError("bug")).error()
    assert type(again) is TallystickError
    assert "bug" in again.message
