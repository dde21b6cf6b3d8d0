"""Reading bodies and writing canonical lines."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.errors import EventTooLargeError
from tallystick.event import Event, Source
from tallystick.event.codec import EventReader, Limits, ReadBatch, decode_line, encode_lines
from tallystick.event.fields import Incoming
from tallystick.event.stamp import Stamp
from tallystick.event.strict import compact
from unit.event.test_strict import STRINGS, TEXTS, reference_accepts

RECEIVED = "2026-03-04T10:00:00.123456Z"
READER = EventReader()
MINIMAL = b'{"action":"user.login","actor":"u_1"}'


def stamp(**more: Any) -> Stamp:
    return Stamp("acme", RECEIVED, Source(name="app", type="http"), config="c0ffee", **more)


def read_one(record: bytes) -> tuple[str, str] | Event:
    """The event, or code and pointer of the error."""
    batch = READER.read(record, "object")
    if batch.errors:
        return batch.errors[0].code, batch.errors[0].pointer
    return batch.events[0]


def lines_of(batch: ReadBatch) -> list[bytes]:
    assert not batch.errors
    return encode_lines(batch.events, stamp())


def full_event(metadata: str = "{}", before: str = "1") -> str:
    return (
        '{"metadata":' + metadata + ',"actor":{"id":"u_1","type":"user","roles":["a","b"]},"action":"role.grant","id":"e:1",'
        '"targets":[{"type":"role","id":"r"}],"severity":2,"category":"account","outcome":"denied","reason":"no",'
        '"on_behalf_of":[{"type":"user","id":"u_2","mode":"delegation"}],"context":{"ip":"::1"},'
        '"changes":[{"path":"/a","op":"replace","before":' + before + '}],"producer":{"id":"p","epoch":1,"seq":2}}'
    )


@given(TEXTS, TEXTS)
@settings(max_examples=100, deadline=None)
def test_accepts_what_the_reference_accepts_inside_free_values(metadata: str, before: str) -> None:
    """Inside metadata and changes strictness equals the plain reference, alone and in a batch of good events."""
    record = full_event('{"m":' + metadata + "}", before).encode("utf-8", "surrogatepass")
    expected = reference_accepts(record)
    assert (not READER.read(record, "object").errors) == expected
    batch = READER.read_records([MINIMAL, record, MINIMAL])
    assert batch.lines == ([1, 2, 3] if expected else [1, 3])
    assert [error.line for error in batch.errors] == ([] if expected else [2])


@given(TEXTS.filter(lambda text: reference_accepts(text.encode("utf-8", "surrogatepass"))))
@settings(max_examples=100, deadline=None)
def test_free_values_survive_byte_for_byte(value: str) -> None:
    """Number texts, escapes and order of keys in metadata are in the line as sent, without blanks; the line reads back."""
    sent = ('{"v":' + value + "}").encode()
    record = b'{"action":"a","actor":"u","metadata":' + sent + b"}"
    if not reference_accepts(record):
        return
    line = lines_of(READER.read(record, "object"))[0]
    assert b'"metadata":' + compact(sent) + b"," in line
    assert msgspec.json.encode(decode_line(line)) == line == compact(line)
    assert b"\n" not in line


@pytest.mark.parametrize("level", ["", '"actor":{"type":"user","id":"x","id":"x"}', '"context":{"ip":"a","ip":"a"}'])
def test_typed_objects_may_not_repeat_keys(level: str) -> None:
    """A repeated key is found in typed members also, where decoding keeps the last one silently."""
    body = '{"action":"a","action":"a","actor":"u"}' if not level else '{"action":"a","actor":"u",' + level + "}"
    code, pointer = read_one(body.encode())  # type: ignore[misc]
    assert code == "key_duplicate"
    assert pointer in ("/action", "/actor", "/context/ip")


def test_growth_elsewhere_cannot_hide_a_repeated_key() -> None:
    """A number that grows when encoded does not make up for the bytes of a repeated key."""
    body = b'{"action":"a","actor":"u","metadata":{"":1,"":1,"x":1e5}}'
    assert read_one(body) == ("key_duplicate", "/metadata/")


ERRORS = [
    (b"null", "event_not_object", ""),
    (b"42", "event_not_object", ""),
    (b'"x"', "event_not_object", ""),
    (b"[]", "event_not_object", ""),
    (b"{}", "field_missing", "/action"),
    (b'{"action":"a"}', "field_missing", "/actor"),
    (b'{"action":"a","actor":{"type":"user"}}', "field_missing", "/actor/id"),
    (b'{"action":"a","actor":""}', "field_invalid", "/actor"),
    (b'{"action":"a b","actor":"u"}', "field_invalid", "/action"),
    (b'{"action":"a\\n","actor":"u"}', "field_invalid", "/action"),
    (b'{"action":"a","actor":"u","id":"x\\ny"}', "field_invalid", "/id"),
    (b'{"action":"a","actor":"u","id":""}', "field_invalid", "/id"),
    (b'{"action":"a","actor":"u","tenant":"../../x"}', "field_invalid", "/tenant"),
    (b'{"action":"a","actor":"u","tenant":"x\\n"}', "field_invalid", "/tenant"),
    (b'{"action":"a","actor":"u","outcome":null}', "field_invalid", "/outcome"),
    (b'{"action":"a","actor":"u","severity":7}', "field_invalid", "/severity"),
    (b'{"action":"a","actor":"u","metadata":[]}', "field_invalid", "/metadata"),
    (b'{"action":"a","actor":"u","targets":[{"type":"t","id":"i"},{"type":"t","id":5}]}', "field_invalid", "/targets/1/id"),
    (b'{"action":"a","actor":"u","changes":[{"path":"role","op":"add"}]}', "field_invalid", "/changes/0/path"),
    (b'{"action":"a","actor":"u","occurred_at":"yesterday"}', "field_invalid", "/occurred_at"),
    (b'{"action":"a","actor":"u","occurred_at":1e18}', "field_invalid", "/occurred_at"),
    (b'{"action":"a","actor":"u","x/y":1}', "key_unknown", "/x~1y"),
    (b'{"action":"a","actor":{"type":"user","id":"u","zz":1}}', "key_unknown", "/actor/zz"),
    *[
        (b'{"action":"a","actor":"u","' + name + b'":1}', "key_unknown", "/" + name.decode())
        for name in (b"v", b"received_at", b"source", b"ingest", b"sealed", b"enrichment", b"raw")
    ],
    (b'{"action":"a","actor":"u","metadata":' + b'{"a":' * 31 + b"[[]]" + b"}" * 32, "depth_exceeded", "/metadata" + "/a" * 31),
    (b'{"action":"a","actor":"u"', "json_invalid", "/actor"),
    (b'{"action":"a","actor":"\xff"}', "json_invalid", ""),
    (b'{"action":"a","actor":"u\\u0000"}', "string_invalid", "/actor"),
    (b'{"action":"a","actor":"\\ud800"}', "string_invalid", "/actor"),
    (b'{"action":"a","actor":"u"}{"action":"a","actor":"u"}', "json_invalid", ""),
]


@pytest.mark.parametrize(("record", "code", "pointer"), ERRORS)
def test_errors_name_code_and_place(record: bytes, code: str, pointer: str) -> None:
    """Each kind of fault has its code and a pointer to where it is, whatever surrounds the record."""
    assert read_one(record) == (code, pointer)
    batch = READER.read(b"\n".join([MINIMAL, record, MINIMAL]), "ndjson")
    assert [(error.line, error.code) for error in batch.errors] == [(2, code)]
    assert batch.rejected == [record]
    assert batch.lines == [1, 3]


def test_unreadable_differs_from_invalid() -> None:
    """400 means nothing was JSON as we read it; one readable line makes it 422."""
    assert READER.read(b'{"a":1,"a":1}', "object").is_unreadable
    assert READER.read(b"", "ndjson").is_unreadable
    assert not READER.read(b"{}", "object").is_unreadable
    assert not READER.read(MINIMAL + b"\n{x", "ndjson").is_unreadable


@pytest.mark.parametrize("depth", [30, 31])
def test_depth_counts_the_event_and_ignores_brackets_in_strings(depth: int) -> None:
    """Metadata may nest 31 levels below the event; brackets in strings hide nothing and add nothing."""
    good = '{"b":"}","a":' * depth + '"{{["' + ',"c":"{"}' * depth
    batch = READER.read(f'{{"action":"a","actor":"u","metadata":{good}}}'.encode(), "object")
    assert not batch.errors
    bad = '{"b":"}","a":' * 32 + "1" + ',"c":"{"}' * 32
    assert read_one(f'{{"action":"a","actor":"u","metadata":{bad}}}'.encode())[0] == "depth_exceeded"  # type: ignore[index]


@pytest.mark.parametrize("kinds", ["[", "{", "[{", "[[{", "{{["])
@pytest.mark.parametrize("levels", [31, 32])
def test_depth_is_exact_for_any_mixture(kinds: str, levels: int) -> None:
    """Arrays and objects count alike, in the fast check of a batch as in the exact one."""
    value = "1"
    for level in range(levels - 1):
        value = f"[{value}]" if kinds[level % len(kinds)] == "[" else f'{{"a":{value}}}'
    record = f'{{"action":"a","actor":"u","metadata":{{"m":{value}}}}}'.encode()
    assert (not READER.read_records([record] * 3).errors) is (levels == 31)


def test_values_in_changes_count_their_depth_too() -> None:
    """A value in a change lies three levels down already."""
    for levels, expected in ((29, True), (30, False)):
        value = "[" * levels + "]" * levels
        record = f'{{"action":"a","actor":"u","changes":[{{"path":"/a","op":"add","after":{value}}}]}}'
        assert (not READER.read(record.encode(), "object").errors) is expected


def test_lines_are_split_on_lf_only() -> None:
    """CRLF, blank lines, leading spaces, a mark at the start and U+2028 in strings are tolerated; the count is exact."""
    other = '{"action":"b","actor":"u\u2028\u0085"}'.encode()
    batch = READER.read(b"\xef\xbb\xbf" + MINIMAL + b"\r\n\r\n   " + MINIMAL + b"\n \n" + other, "ndjson")
    assert not batch.errors
    assert batch.lines == [1, 3, 5]
    assert batch.contents == [MINIMAL, MINIMAL, other]


def test_a_record_never_spans_lines() -> None:
    """Two records on one line, or one record on two, are errors even when the numbers would add up."""
    batch = READER.read(b'{"action":"a",\n"actor":"u"}{"action":"a","actor":"u"}', "ndjson")
    assert [error.line for error in batch.errors] == [1, 2]


def test_arrays_are_numbered_by_element() -> None:
    """An array gives its elements in order; an empty one gives none; another value is refused."""
    batch = READER.read(b"[ " + MINIMAL + b" , {} ]", "array")
    assert (batch.contents, [error.line for error in batch.errors]) == ([MINIMAL], [2])
    assert READER.read(b"[]", "array") == ReadBatch()
    assert READER.read(MINIMAL, "array").errors[0].code == "event_not_object"
    assert READER.read(b"[1,", "array").errors[0].code == "json_invalid"
    assert READER.read(b"[" * 100_000, "array").errors[0].code == "depth_exceeded"


def test_contents_are_the_records_compacted() -> None:
    """What dedupe compares differs by more than blanks: order of keys and number texts count."""
    spaced = b'{ "actor": "u_1",\t"action": "user.login", "metadata": {"n": 1.0} }'
    assert READER.read(spaced, "object").contents == [b'{"actor":"u_1","action":"user.login","metadata":{"n":1.0}}']


def test_limits_hold() -> None:
    """Too many events refuse the body; too large a record is refused by itself; too large a line by its position."""
    reader = EventReader(Limits(event_bytes=400, events=3))
    assert reader.read(b"\n".join([MINIMAL] * 4), "ndjson").errors[0].code == "too_many_events"
    big = MINIMAL[:-1] + b',"reason":"' + b"x" * 400 + b'"}'
    batch = reader.read(b"\n".join([MINIMAL, big]), "ndjson")
    assert [(error.line, error.code) for error in batch.errors] == [(2, "event_too_large")]
    grows = MINIMAL[:-1] + b',"reason":"' + b"x" * 200 + b'"}'
    events = reader.read(b"\n".join([MINIMAL, grows]), "ndjson").events
    with pytest.raises(EventTooLargeError) as caught:
        encode_lines(events, stamp(), reader.limits)
    assert (caught.value.positions, caught.value.line) == ([1], 2)
    assert len(encode_lines(events[:1], stamp(), reader.limits)) == 1


def test_server_fields_are_set_in_the_order_of_the_table() -> None:
    """The canonical line has the server's fields, ids where none were sent, one salt for each event."""
    here = stamp(mapping="generic", retention_class="long")
    batch = READER.read(full_event().encode() + b"\n" + MINIMAL, "ndjson")
    first, second = (json.loads(line) for line in encode_lines(batch.events, here))
    order = [name for name in Event.__struct_fields__ if name in first]
    assert list(first) == order
    assert (first["v"], first["id"], first["tenant"], first["received_at"]) == (1, "e:1", "acme", RECEIVED)
    assert second["id"] == here.ids.prefix + "000000"
    assert second["occurred_at"] == RECEIVED
    assert second["actor"] == {"type": "user", "id": "u_1"}
    assert second["outcome"] == "unknown"
    assert second["source"] == {"name": "app", "type": "http"}
    assert second["ingest"].items() >= {"mapping": "generic", "class": "long", "config": "c0ffee"}.items()
    assert re.fullmatch("[0-9a-f]{16}", second["ingest"]["salt"])
    assert first["ingest"]["salt"] != second["ingest"]["salt"]


@pytest.mark.parametrize(
    ("sent", "stored", "flags"),
    [
        ("2026-03-04T11:00:00+01:00", "2026-03-04T10:00:00.000000Z", None),
        ("2026-03-05T10:00:00.123456Z", "2026-03-05T10:00:00.123456Z", None),
        ("2026-03-05T10:00:00.123457Z", "2026-03-05T10:00:00.123457Z", ["time_implausible"]),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z", ["time_implausible"]),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z", ["time_implausible"]),
        ("2024-02-30T00:00:00Z", RECEIVED, ["time_invalid", "time_claimed:2024-02-30T00:00:00Z"]),
    ],
)
def test_claimed_times_are_normalised_and_flagged(sent: str, stored: str, flags: list[str] | None) -> None:
    """occurred_at is UTC with microseconds; odd times stay and are flagged, once, among plain ones too."""
    record = MINIMAL[:-1] + b',"occurred_at":"' + sent.encode() + b'"}'
    batch = READER.read(b"\n".join([MINIMAL, record]), "ndjson")
    encode_lines(batch.events, stamp())
    line = json.loads(encode_lines(batch.events, stamp())[1])
    assert (line["occurred_at"], line["ingest"].get("flags")) == (stored, flags)


def test_hostile_keys_are_inert() -> None:
    """Keys that mean something elsewhere are kept exactly."""
    metadata = b'{"__proto__":1,"constructor":{"$where":"x"},"a.b":2,"":3,"__class__":null}'
    line = lines_of(READER.read(MINIMAL[:-1] + b',"metadata":' + metadata + b"}", "object"))[0]
    assert b'"metadata":' + metadata in line


def test_control_characters_in_text_are_stored_exactly() -> None:
    """Escapes, bidi marks and line breaks stay what they are."""
    text = "\x1b[2J\r\n\u202e\u200b"
    record = json.dumps({"action": "a", "actor": {"type": "user", "id": text}}).encode()
    assert json.loads(lines_of(READER.read(record, "object"))[0])["actor"]["id"] == text


def test_all_forms_of_body_give_the_same_events() -> None:
    """Object, array and NDJSON are three ways to send the same."""
    record = full_event('{"a":1}').encode()
    salt = re.compile(rb'"salt":"[0-9a-f]+"')
    lines = {
        salt.sub(b"", lines_of(READER.read(body, shape))[0])  # type: ignore[arg-type]
        for body, shape in ((record, "object"), (b"[" + record + b"]", "array"), (record + b"\n", "ndjson"))
    }
    assert len(lines) == 1


@given(st.dictionaries(st.sampled_from(["id", "reason", "actor", "action"]), STRINGS, min_size=4))
@settings(max_examples=100, deadline=None)
def test_encoding_never_grows_typed_text(members: dict[str, str]) -> None:
    """The ground of the fast check: what decodes into typed members never encodes to more bytes; accepted text keeps its value."""
    record = ("{" + ",".join(f'"{name}":{text}' for name, text in members.items()) + "}").encode("utf-8", "surrogatepass")
    try:
        decoded = msgspec.json.decode(record, type=Incoming)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        assert READER.read(record, "object").errors
        return
    assert len(msgspec.json.encode(decoded)) <= len(record)
    batch = READER.read(record, "object")
    if not batch.errors:
        assert reference_accepts(record)
        assert batch.events[0].actor.id == json.loads(record)["actor"]


def test_a_body_of_many_parts_keeps_order_and_numbers() -> None:
    """Bodies over the size of one part are read part by part, with nothing lost or renumbered."""
    records = [b'{"action":"a","actor":"u","id":"%d","reason":"%s"}' % (n, b"x" * 1000) for n in range(3000)]
    records[1500] = records[2999] = b"{}"
    batch = READER.read(b"\n".join(records), "ndjson")
    assert [error.line for error in batch.errors] == [1501, 3000]
    assert [event.id for event in batch.events] == [str(n) for n in range(2999) if n != 1500]
    assert batch.lines == [n + 1 for n in range(2999) if n != 1500]


@pytest.mark.parametrize(
    ("body", "shape", "code"),
    [
        (b"\n" * 300_000, "ndjson", "json_invalid"),
        (b"{}\n" + b"\n" * 1_100_000, "ndjson", "too_many_events"),
        (b"[" + b"1," * 3_000_000 + b"1]", "array", "too_many_events"),
        (b"[" + b"{}," * 100_000 + b"{}]", "array", "too_many_events"),
        (b'{"action":"a","actor":"u","metadata":{"a":[' + b"{}," * 1_000_000 + b"1e5]}}", "object", "event_too_large"),
        (b'{"' + b"k" * 1_000_000 + b'":1}', "object", "event_too_large"),
        (b"[" + b"[" * 2_000_000, "array", "json_invalid"),
    ],
)
def test_large_hostile_bodies_are_refused_before_they_are_built(body: bytes, shape: Any, code: str) -> None:
    """Counts and sizes are checked on bytes, so that a small body cannot become a large heap."""
    assert READER.read(body, shape).errors[0].code == code


def test_needless_escapes_are_kept_and_cost_no_event() -> None:
    """A batch of senders that escape more than they must is read whole, and free values keep their escapes."""
    record = b'{"action":"a","actor":"\\u00e9\\/\\ud83d\\ude00","metadata":{"\\u003cb":"\\u0041\\\\u0041"}}'
    batch = READER.read_records([record, MINIMAL] * 50)
    assert not batch.errors
    assert batch.contents[0] == record
    assert batch.events[0].actor.id == "é/😀"
    assert bytes(batch.events[0].metadata) == b'{"\\u003cb":"\\u0041\\\\u0041"}'  # type: ignore[arg-type]
    twice = record.replace(b'"\\u003cb":', b'"<b":1,"\\u003cb":')
    assert [error.line for error in READER.read_records([record, twice]).errors] == [2]
