"""HEC bodies: where objects end, what they hold, and what is said of those that are wrong."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.errors import EventInvalidError
from tallystick.event import times
from tallystick.event.plain import Plain
from tallystick.event.times import ParsedTime
from tallystick.plugin import Carrier
from tallystick.protocols import hec, hec_answers
from tallystick.protocols.hec import Defaults, TooManyError
from tallystick.protocols.hec_answers import HecError

LIMIT = 100


class HecEvent(NamedTuple):
    """One event of a batch."""

    record: bytes
    event: bytes | Plain
    carrier: Carrier

    @property
    def text(self) -> bytes:
        return msgspec.json.encode(self.event.value) if isinstance(self.event, Plain) else self.event


def read(body: bytes, defaults: Defaults = Defaults(peer="192.0.2.7")) -> list[Any]:  # noqa: B008
    """Events and errors in the order of the body."""
    batch = hec.read_events(hec.read_objects(body, LIMIT), defaults)
    found: dict[int, Any] = {fault.line: fault.error for fault in batch.faults}
    for line, record, event, carrier in zip(batch.lines, batch.records, batch.events, batch.carriers, strict=True):
        assert line not in found
        found[line] = HecEvent(record, event, carrier)
    return [found[line] for line in sorted(found)]


def one(body: bytes, defaults: Defaults = Defaults(peer="192.0.2.7")) -> HecEvent:  # noqa: B008
    (found,) = read(body, defaults)
    assert isinstance(found, HecEvent), found
    return found


def refusal(body: bytes) -> tuple[int, int | None]:
    """Code and event number of the first thing that is wrong."""
    try:
        wrong = next(found for found in read(body) if isinstance(found, HecError))
    except HecError as error:
        wrong = error
    return wrong.answer.code, wrong.number


@pytest.mark.parametrize("between", [b"", b"\n", b" ", b"\r\n", b"\n\n", b" \n\t ", b"mixed"])
def test_objects_stand_one_behind_the_other(between: bytes) -> None:
    """With or without blanks between them; each keeps its own bytes, also where a string looks like a border."""
    objects = [b'{"event":"}{"}', b'{ "event" : {"a":[{},{"b":"}\\n{"}]} }', b'{"event":"\\"}{\\""}', b'{"event":1}']
    body = objects[0] + b"\n" + objects[1] + b"  " + b"".join(objects[2:]) if between == b"mixed" else between.join(objects)
    assert [found.record for found in hec.read_objects(b" \n" + body + b"\n", LIMIT)] == objects
    assert [found.text for found in read(body)] == [b"}{", b'{"a":[{},{"b":"}\\n{"}]}', b'"}{"', b"1"]


def test_an_array_of_objects_is_read_too() -> None:
    """Some clients send one."""
    assert [found.text for found in read(b'[{"event":"a"}, {"event":"b"}]')] == [b"a", b"b"]


def test_a_comma_between_objects_is_no_border() -> None:
    """Not even when a string with a border in it makes the count come out right."""
    assert refusal(b'{"event":"}{"},{"event":"b"}') == (6, 1)


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (b"", (5, None)),
        (b" \r\n", (5, None)),
        (b"[]", (5, None)),
        (b"hello", (6, 0)),
        (b"[1", (6, 0)),
        (b"42", (6, 0)),
        (b'{"event":"a"}{"event":', (6, 1)),
        (b'{"event":"a"} x {"event":"b"}', (6, 1)),
        (b'{"event":"a"}{"event":"b"}}', (6, 2)),
        (b'{"event":"a"}\n{"event":"\xff"}' + b'{"event":b}', (6, 2)),
        (b'{"event":"a"}{"time":1}', (12, 1)),
        (b'{"event":null}', (12, 0)),
        (b'{"event":"a"}{"event":""}', (13, 1)),
        (b'{"event":" \\n"}', (13, 0)),
        (b'{"event":"a","fields":[1]}', (15, 0)),
        (b'{"event":"a","fields":{"a":{"b":1}}}', (15, 0)),
        (b'{"event":"a","fields":{"a":[{}]},"time":1.50}', (15, 0)),
        (b'{"event":"a","host":{"a":1}}', (6, 0)),
        (b"[" * 100_000, (6, 0)),
        (b'{"event":' * 50_000, (6, 0)),
        (b'["a"]', (6, 0)),
        (b'{"event":"\\ud800"}', (6, 0)),
    ],
)
def test_wrong_forms_have_splunks_codes(body: bytes, refused: tuple[int, int | None]) -> None:
    """With the number of the event at fault, from 0."""
    assert refusal(body) == refused


@pytest.mark.parametrize(
    "body",
    [
        b'{"event":"a","event":"b"}',
        b'{"event":"a","fields":{"k":1,"k":2}}',
        b'{"event":"a","host":"h","host":"i"}',
        b'{"event":"a","host":"x\\u0000"}',
        b'{"event":"a","fields":{"n":1e400}}',
        b'{"event":"\xff"}',
    ],
)
def test_what_is_not_strict_is_no_wrong_form(body: bytes) -> None:
    """Splunk would take it; it cannot become an event, and is told as such."""
    (found,) = read(body)
    assert isinstance(found, EventInvalidError)


def test_too_many_events_are_not_cut_out_first() -> None:
    """Past the limit nothing more is read."""
    for body in (b"{}" * 101, b"{}\n" * 101, b"{}\t" * 101, b"[" + b"{}," * 100 + b"{}]", b"[" + b"1," * 5000 + b"1]"):
        with pytest.raises(TooManyError):
            hec.read_objects(body, LIMIT)
    assert len(hec.read_objects(b"{}" * 100, LIMIT)) == 100
    for raw in (b"x\n" * 101, b"\n" * 1000):
        with pytest.raises(TooManyError):
            hec.split_raw(raw, LIMIT)


def test_what_stands_around_an_event() -> None:
    """Host, source, sourcetype, index, fields and members of other names are kept; the host is who it came from."""
    text = b'{"time":1426279439.5,"host":"web-1","source":"app","sourcetype":"_json","index":"main","fields":{"r":["a",1]},"x":1,"event":"a"}'
    found = one(text)
    assert found.carrier.peer == "web-1"
    assert found.carrier.time == ParsedTime("2015-03-13T20:43:59.500000Z")
    assert found.carrier.more == {
        "hec": {"host": "web-1", "source": "app", "sourcetype": "_json", "index": "main", "fields": {"r": ["a", 1]}, "x": 1}
    }
    bare = one(b'{"event":"a","host":null,"fields":null}')
    assert (bare.carrier.peer, bare.carrier.time, bare.carrier.more) == ("192.0.2.7", None, {})
    assert one(b'{"event":"a","host":7}').carrier.peer == "7"


def test_the_query_string_speaks_for_objects_that_do_not() -> None:
    """What an object says itself goes before it; of a raw body it holds for every line."""
    defaults = Defaults(host="h", source="s", sourcetype="t", index="i", time="1", peer="p")
    found = one(b'{"event":"a","host":"own"}', defaults).carrier
    assert (found.peer, found.time) == ("own", ParsedTime("1970-01-01T00:00:01.000000Z"))
    assert found.more == {"hec": {"host": "own", "source": "s", "sourcetype": "t", "index": "i"}}
    assert one(b'{"event":"a","time":2}', defaults).carrier.time == ParsedTime("1970-01-01T00:00:02.000000Z")
    lines = hec.read_lines([b"x"], [3], defaults)
    assert (lines.events, lines.lines, lines.carriers[0].peer, lines.carriers[0].more["hec"]["source"]) == ([b"x"], [3], "h", "s")


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        (b"1426279439", "2015-03-13T20:43:59.000000Z"),
        (b"1426279439.123", "2015-03-13T20:43:59.123000Z"),
        (b"1426279439.123456789", "2015-03-13T20:43:59.123456Z"),
        (b"1426279439.999999999", "2015-03-13T20:43:59.999999Z"),
        (b"1426279439.120000000", "2015-03-13T20:43:59.120000Z"),
        (b'"1426279439.5"', "2015-03-13T20:43:59.500000Z"),
        (b"1426279439123", "2015-03-13T20:43:59.123000Z"),
        (b"1.426279439123E9", "2015-03-13T20:43:59.123000Z"),
        (b'"2015-03-13T20:43:59Z"', "2015-03-13T20:43:59.000000Z"),
    ],
)
@pytest.mark.parametrize(
    "form", [b'{"time":%s,"event":{"n":1.50}}', b'{"event":{"n":1.50},"time":%s}', b'{ "time": %s, "event": "a"}']
)
def test_times(claim: bytes, text: str, form: bytes) -> None:
    """Seconds with any number of digits, cut and not rounded; larger numbers as their size says; RFC 3339."""
    assert one(form % claim).carrier.time == ParsedTime(text)


@pytest.mark.parametrize("claim", [b'"soon"', b"true", b"[1]", b"1e300", b'"' + b"x" * 200 + b'"'])
def test_a_time_that_is_none_is_flagged(claim: bytes) -> None:
    """The event is kept with the claim; it has the time of receipt."""
    found = one(b'{"event":"a","time":%s}' % claim).carrier.time
    assert found is not None
    assert (found.text, found.flags[0]) == (None, "time_invalid")
    assert found.flags[1].startswith("time_claimed:")
    assert len(found.flags[1]) < 80


def test_number_texts_of_an_event_stay() -> None:
    """Whether an object is read as values or member by member."""
    assert one(b'{"event":{"a":1.50,"b":1E2},"time":1}').text == b'{"a":1.50,"b":1E2}'
    found = one(b'{"time":1.500,"event":{"a":1.5}}')
    assert isinstance(found.event, Plain)
    assert (found.text, found.record) == (b'{"a":1.5}', b'{"time":1.500,"event":{"a":1.5}}')


_EVENTS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


@given(events=st.lists(_EVENTS, min_size=1, max_size=6), separator=st.sampled_from(["", "\n", " ", "\t\n"]), is_ascii=st.booleans())
def test_any_events_come_out_as_they_went_in(events: list[Any], separator: str, is_ascii: bool) -> None:
    """Whatever JSON they are, and however they are put together."""
    texts = [json.dumps({"event": event, "time": 1}, ensure_ascii=is_ascii) for event in events]
    body = separator.join(texts).encode("utf-8", "surrogatepass")
    for found, event in zip(read(body), events, strict=True):
        if event is None:
            assert found.answer is hec_answers.EVENT_REQUIRED
        elif isinstance(event, str) and not event.encode("utf-8", "surrogatepass").strip():
            assert found.answer is hec_answers.EVENT_BLANK
        elif isinstance(found, HecEvent):
            wanted = event.encode() if isinstance(event, str) else json.dumps(event).encode()
            assert found.text == wanted or json.loads(found.text) == event
        else:
            assert isinstance(found, EventInvalidError)


@given(st.binary(max_size=200) | st.text('{}[]":,a1 \n\\').map(str.encode))
def test_any_bytes_are_events_or_a_refusal(body: bytes) -> None:
    """Nothing else comes out, and every object's bytes are in the body."""
    try:
        objects = hec.read_objects(body, LIMIT)
    except (HecError, TooManyError):
        return
    assert all(found.record in body for found in objects)
    assert len(read(body)) == len(objects)


def test_lines_of_a_raw_body() -> None:
    """Split at line feeds, without carriage returns; blank ones are not events, but counted."""
    assert hec.split_raw(b"a\r\n\n b \r\n", LIMIT) == ([b"a", b" b "], [1, 3])
    with pytest.raises(HecError) as caught:
        hec.split_raw(b" \n", LIMIT)
    assert caught.value.answer is hec_answers.NO_DATA


def test_answers() -> None:
    """Member names are Splunk's."""
    assert hec_answers.encode_answer(hec_answers.SUCCESS, ack_id=7) == b'{"text":"Success","code":0,"ackId":7}'
    assert hec_answers.encode_answer(hec_answers.INVALID_FORMAT, number=3) == (
        b'{"text":"Invalid data format","code":6,"invalid-event-number":3}'
    )
    assert hec_answers.encode_acks({1: True, 2: False}) == b'{"acks":{"1":true,"2":false}}'
    assert hec_answers.read_acks(b'{"acks":[1, 2]}') == [1, 2]
    for body in (b"", b"[]", b'{"acks":["1"]}', b'{"acks":[1],"more":[]}', b"{}", b'{"acks":[1.5]}'):
        with pytest.raises(HecError):
            hec_answers.read_acks(body)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0aeeac95-ac74-4aa9-b30d-6c4c0ac581ba", True),
        ("00872DC6-AC83-4EDE-8AFE-8413C3825C4C", True),
        ("1", False),
        ("", False),
        ("0aeeac95-ac74-4aa9-b30d-6c4c0ac581ba\n", False),
    ],
)
def test_channels_are_guids(text: str, is_one: bool) -> None:
    """In either case of letters."""
    assert hec.is_channel(text) == is_one


_HEADS = st.fixed_dictionaries(
    {},
    optional={
        "time": st.one_of(st.none(), st.integers(0, 2**33), st.floats(0, 1e11), st.booleans(), st.just("1"), st.just(1e-9)),
        "host": st.sampled_from(["web-1", "", None, 7]),
        "source": st.just("app"),
        "fields": st.sampled_from([{}, {"a": [1]}, {"a": {}}, None]),
    },
)
_OBJECTS = st.lists(st.tuples(_HEADS, st.sampled_from([{}, {"a": 1}, "text", "", " ", None, 1, [1]])), min_size=1, max_size=5)


@given(objects=_OBJECTS)
def test_the_quick_reader_reads_as_the_careful_one(objects: list[tuple[dict[str, Any], Any]]) -> None:
    """Bodies whose events are alike are read at once; what comes out is what comes of one by one."""
    body = b"".join(msgspec.json.encode({**head, "event": event}) for head, event in objects)
    quick = read(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hec, "_read_alike", lambda objects, defaults: None)
        careful = read(body)
    assert [repr(one) for one in quick] == [repr(one) for one in careful]


@given(st.floats(allow_nan=False, allow_infinity=False) | st.floats(1e9, 1e10) | st.integers(-(10**20), 10**20))
def test_a_number_is_the_time_that_its_text_is(moment: float) -> None:
    """Whichever of the two readers of numbers comes to it."""
    assert times.parse_moments([moment]) == [times.parse_epoch(repr(moment))]
