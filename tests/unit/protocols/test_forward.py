"""Messages and entries of the forward protocol, however they are cut on their way, and whatever is in them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.forward_client import event_time, pack, packed_forward
from tallystick.protocols.forward import (
    EntryCutter,
    EntrySlice,
    ForwardInvalidError,
    ForwardSplitter,
    Mode,
    acknowledge,
    chunk_of,
    decode_entries,
    decode_entry,
    is_plain_message,
    read_message,
    split_entries,
    unpacked_entries,
    without_tag,
)

RECORD = {"message": "hello", "n": 1}
NOW = event_time(1_768_832_635, 5)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


@pytest.mark.parametrize(
    ("message", "mode", "chunk"),
    [
        (["app", 1, RECORD], Mode.MESSAGE, ""),
        (["app", NOW, RECORD, {"chunk": "c1"}], Mode.MESSAGE, "c1"),
        (["app", 1.5, RECORD, None], Mode.MESSAGE, ""),
        (["app", [NOW, {}], RECORD], Mode.MESSAGE, ""),
        (["app", [[1, RECORD]]], Mode.FORWARD, ""),
        (["app", [[1, RECORD], [2, RECORD]], {"chunk": "c2", "size": 2}], Mode.FORWARD, "c2"),
        (["app", [], {"chunk": "c3"}], Mode.FORWARD, "c3"),
        (["app", [[[NOW, {"m": 1}], RECORD], [[NOW, {}], RECORD]], {}], Mode.FORWARD, ""),
        (["app", pack([1, RECORD]), {"chunk": "c4"}], Mode.PACKED, "c4"),
        (["app", b"", {}], Mode.PACKED, ""),
    ],
)
def test_the_mode_is_told_by_what_stands_second(message: list[Any], mode: Mode, chunk: str) -> None:
    """With and without option, with every kind of time."""
    found = read_message(pack(message))
    assert found is not None
    assert (found.tag, found.mode, found.chunk) == ("app", mode, chunk)


def test_old_senders_pack_entries_as_text() -> None:
    """A msgpack str whose bytes are no UTF-8 holds the entries just as well."""
    blob = pack([NOW, RECORD])
    message = b"\x92" + pack("app") + b"\xd9" + bytes([len(blob)]) + blob
    found = read_message(message)
    assert found is not None
    assert (found.mode, found.entries) == (Mode.PACKED, blob)


def test_a_heartbeat_is_no_message() -> None:
    """nil is what some senders keep a connection alive with."""
    assert read_message(pack(None)) is None


@pytest.mark.parametrize(
    "message",
    [
        1,
        "text",
        {},
        [],
        ["app"],
        [1, 2, 3],
        ["app", 1],
        ["app", 1, RECORD, 5],
        ["app", [[1, RECORD]], {"chunk": 7}],
        [b"\xff", 1, {}],
    ],
)
def test_what_is_whole_but_no_message_is_refused(message: Any) -> None:
    """With a reason, whatever it is."""
    with pytest.raises(ForwardInvalidError):
        read_message(pack(message))


def test_the_chunk_of_a_bad_message_can_be_told() -> None:
    """So that it is acknowledged and not sent for ever."""
    assert chunk_of(pack([1, 2, {"chunk": "c"}])) == "c"
    assert chunk_of(pack([1, 2, 3])) == chunk_of(pack(5)) == ""


def test_plain_messages_are_told_from_others() -> None:
    """Three parts, a short tag, a time: nothing else."""
    assert is_plain_message(pack(["app", NOW, RECORD]))
    assert is_plain_message(pack(["a" * 31, 1_768_832_635, RECORD]))
    assert is_plain_message(pack(["", 1.5, RECORD]))
    for other in (["app", [[1, RECORD]], {}], ["app", b"xx", {}], ["a" * 40, 1, RECORD], ["app", 1, RECORD, {}], "abc", None):
        assert not is_plain_message(pack(other))
    assert without_tag(pack(["app", 7, RECORD])) == ("app", pack([7, RECORD]))


def test_an_acknowledgement() -> None:
    """As the sender reads it."""
    assert msgpack.unpackb(acknowledge("c1")) == {"ack": "c1"}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=8), st.lists(st.integers(0, 2_000), max_size=10))
def test_values_survive_every_way_of_being_cut(values: list[Any], places: list[int]) -> None:
    """Any values, any packets: the same messages in the same order, and nothing left over."""
    packed = [pack(value) for value in values]
    splitter = ForwardSplitter(10_000)
    found = [message for chunk in cut(b"".join(packed), places) for message in splitter.feed(chunk)]
    assert (found, splitter.failure, splitter.waiting_bytes) == (packed, "", 0)


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_no_bytes_make_it_fail(chunks: list[bytes]) -> None:
    """Garbage gives messages, waits for more, or ends the stream; every message is read, or refused with a reason."""
    splitter = ForwardSplitter(200)
    for chunk in chunks:
        for message in splitter.feed(chunk):
            try:
                head = read_message(message)
            except ForwardInvalidError:
                continue
            if head is not None and head.mode is not Mode.MESSAGE:
                cutter = EntryCutter(200, 10, 100)
                data = unpacked_entries(head.entries) if head.mode is Mode.FORWARD else head.entries
                try:
                    for part in cutter.feed(data):
                        if decode_entries(part) is None:
                            for entry in split_entries(part):
                                try:
                                    decode_entry(entry)
                                except ForwardInvalidError:
                                    continue
                except ForwardInvalidError:
                    continue
    assert splitter.waiting_bytes <= 200


def test_a_message_that_is_too_large_ends_the_stream() -> None:
    """Whole or not, its bytes are not kept; the messages before it are good."""
    small, large = pack(["a", 1, {}]), pack(["a", b"x" * 5_000, {}])
    splitter = ForwardSplitter(1_000)
    assert splitter.feed(small + large) == [small]
    assert (splitter.failure, splitter.waiting_bytes) == ("message_too_large", 0)
    splitter = ForwardSplitter(1_000)
    assert [splitter.feed(large[start : start + 100]) for start in range(0, 2_000, 100)][-1] == []
    assert splitter.failure == "message_too_large"


@pytest.mark.parametrize(
    "hostile",
    [
        b"\xdd\xff\xff\xff\xff" * 200,
        b"\xdf\xff\xff\xff\xff" * 200,
        b"\x91" * 2_000,
        b"\xc1",
        b"\xc6\xff\xff\xff\xff" + b"x" * 2_000,
    ],
    ids=["arrays that claim everything", "maps that claim everything", "deep", "no msgpack", "a blob that claims everything"],
)
def test_what_claims_more_than_it_brings_ends_the_stream_or_waits(hostile: bytes) -> None:
    """Nothing is made of claims; past the bound the stream ends."""
    splitter = ForwardSplitter(1_000)
    assert splitter.feed(hostile) == []
    assert splitter.failure or splitter.waiting_bytes <= 1_000


@given(st.integers(0, 40), st.integers(1, 7), st.lists(st.integers(0, 2_000), max_size=10))
def test_entries_are_cut_into_slices_in_order(count: int, most: int, places: list[int]) -> None:
    """However the bytes come: every entry once, none in two slices, numbered through."""
    entries = [pack([number, {"n": number}]) for number in range(count)]
    cutter = EntryCutter(1_000, most, 10_000)
    parts = [part for piece in cut(b"".join(entries), places) for part in cutter.feed(piece)]
    cutter.end()
    assert [entry for part in parts for entry in split_entries(part)] == entries
    assert all(1 <= part.length <= most for part in parts)
    assert [part.first for part in parts] == [sum(one.length for one in parts[:place]) for place in range(len(parts))]


def test_a_slice_has_a_bound_in_bytes() -> None:
    """About: the entry that passes it is the last one."""
    cutter = EntryCutter(10_000, 1_000, 500)
    parts = list(cutter.feed(b"".join(pack([1, {"x": "y" * 200}]) for _ in range(10))))
    assert [part.length for part in parts] == [3, 3, 3, 1]


def test_entries_that_are_not_whole_are_refused() -> None:
    """At the end, and when one is larger than a message may be."""
    cutter = EntryCutter(100, 10, 1_000)
    assert list(cutter.feed(pack([1, {}])[:-1])) == []
    with pytest.raises(ForwardInvalidError, match="not whole"):
        cutter.end()
    with pytest.raises(ForwardInvalidError, match="larger"):
        list(EntryCutter(100, 10, 1_000).feed(pack([1, {"x": "y" * 500}])[:400]))
    with pytest.raises(ForwardInvalidError, match="not msgpack"):
        list(EntryCutter(100, 10, 1_000).feed(b"\xc1"))


def test_forward_mode_holds_the_same_entries_as_packed() -> None:
    """For arrays of every size."""
    for count in (0, 3, 15, 16, 70_000):
        head = read_message(pack(["a", [[1, {}]] * count]))
        assert head is not None
        assert unpacked_entries(head.entries) == pack([1, {}]) * count


def test_entries_are_decoded_in_one_call_or_leniently() -> None:
    """What is not UTF-8, or has keys that are no texts, is looked at one by one."""
    good, odd = pack([NOW, {"a": 1}]), b"\x92\x01\x81\xa1k\xa2\xff\xfe"
    assert decode_entries(EntrySlice(good * 2, 2, 0)) is not None
    assert decode_entries(EntrySlice(good + odd, 2, 0)) is None
    assert decode_entry(odd) == ((1, {"k": "\ufffd\ufffd"}), True)
    assert decode_entry(pack([1, {7: 8}])) == ((1, {7: 8}), False)
    for bad in (pack(5), pack([1]), pack([1, "text"]), b"\x91" * 600 + b"\x01"):
        with pytest.raises(ForwardInvalidError):
            decode_entry(bad)


def test_the_client_of_the_tests_packs_as_the_specification_says() -> None:
    """PackedForward: a bin of entries behind each other, and the options."""
    tag, blob, option = msgpack.unpackb(packed_forward("app", [(1, RECORD), (2, RECORD)], "c"))
    assert (tag, option) == ("app", {"size": 2, "chunk": "c"})
    assert list(msgpack.Unpacker(__import__("io").BytesIO(blob))) == [[1, RECORD], [2, RECORD]]
