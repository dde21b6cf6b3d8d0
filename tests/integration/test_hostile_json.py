"""RELIABILITY "Hostile inputs", bodies: encodings, JSON and event content that must be refused whole or kept exactly."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator

import pytest
import zstandard

from support.target import Target, event, event_text, event_with_metadata, run_target
from support.terminal import run_in_terminal

LIMITS = """
[limits]
body = "4MiB"
decompressed = "16MiB"
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with run_target(tmp_path_factory.mktemp("hostile"), LIMITS) as running:
        yield running
        running.check_ledger()


# --- media types and encodings


@pytest.mark.parametrize(
    "media",
    [None, "", "text/html", "text/plain", "application/xml", "application/json; charset=utf-16", 'application/json; charset="UTF-16LE"',
     "application/json; charset=latin-1", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/jsonp"],
)  # fmt: skip
def test_other_media_types_are_415(target: Target, media: str | None) -> None:
    """No type, another type, another charset: refused before the body counts for anything."""
    target.refuse(event_text(), 415, media=media)


@pytest.mark.parametrize(
    "media",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON; Charset=UTF-8",
        "application/x-ndjson",
        "application/jsonl",
    ],
)
def test_our_media_types_in_all_spellings(target: Target, media: str) -> None:
    """Types and charsets are compared without regard to case."""
    assert target.accept(event_text(), media=media)["accepted"] == 1


@pytest.mark.parametrize(
    "encoding", ["br", "deflate", "gzip, gzip", "zstd, gzip", "compress", "x", "identity, gzip", "gzip\x09gzip"]
)
def test_unknown_encodings_are_415(target: Target, encoding: str) -> None:
    """With `Accept-Encoding` naming those that are read."""
    with target.unchanged():
        answer = target.post(event_text(), headers={"Content-Encoding": encoding})
    assert answer.status_code == 415
    assert "gzip" in answer.headers["accept-encoding"]
    assert "zstd" in answer.headers["accept-encoding"]


def gzip_bomb() -> bytes:
    """2.5 MB that grow to 2.5 GB in one member."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block + again * (2_500_000 // len(again))


def test_a_gzip_bomb_stops_at_the_cap(target: Target) -> None:
    """413 long before its end; the server's memory does not know its size."""
    before = peak_rss_bytes(target)
    target.refuse(gzip_bomb(), 413, headers={"Content-Encoding": "gzip"})
    target.refuse(zstandard.compress(bytes(1 << 30)), 413, headers={"Content-Encoding": "zstd"})
    target.refuse(gzip.compress(bytes(1 << 22)) * 100, 413, headers={"Content-Encoding": "gzip"})
    assert peak_rss_bytes(target) - before < 200 << 20


def peak_rss_bytes(target: Target) -> int:
    """The largest resident set that any process of the server ever had."""
    assert target.server.process is not None
    pid = target.server.process.pid
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        pids = children.read().split()
    peaks = []
    for child in pids:
        with open(f"/proc/{child}/status") as status:
            peaks += [int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM")]
    return max(peaks)


def test_gzip_and_zstd_of_several_parts(target: Target) -> None:
    """Members and frames follow each other, and may cut a line in two."""
    body = event_text() + b"\n" + event_text() + b"\n"
    parts = (body[:30], body[30:])
    assert target.accept(b"".join(map(gzip.compress, parts)), headers={"Content-Encoding": "gzip"})["accepted"] == 2
    body = event_text() + b"\n" + event_text() + b"\n"
    parts = (body[:30], body[30:])
    assert target.accept(b"".join(map(zstandard.compress, parts)), headers={"Content-Encoding": "zstd"})["accepted"] == 2


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["trailing", "cut", "flipped", "empty", "plain"])
def test_damaged_encodings_are_400(target: Target, encoding: str, damage: str) -> None:
    """Bytes after the end, a cut end, a flipped bit, nothing, or what is not compressed at all."""
    body = event_text(metadata={"text": "some text " * 40})
    packed = gzip.compress(body) if encoding == "gzip" else zstandard.ZstdCompressor(write_checksum=True).compress(body)
    middle = len(packed) // 2
    sent = {
        "trailing": packed + b"garbage",
        "cut": packed[:-3],
        "flipped": packed[:middle] + bytes([packed[middle] ^ 0x10]) + packed[middle + 1 :],
        "empty": b"",
        "plain": body,
    }[damage]
    target.refuse(sent, 400, headers={"Content-Encoding": encoding})


# --- JSON


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ('{"user":"a","user":"b"}', "key_duplicate"),
        ('{"a":{"b":[{"c":1,"c":1}]}}', "key_duplicate"),
        ('{"a":1,"\\u0061":2}', "key_duplicate"),
        ('{"n":NaN}', "json_invalid"),
        ('{"n":Infinity}', "json_invalid"),
        ('{"n":-Infinity}', "json_invalid"),
        ('{"n":1e400}', "number_invalid"),
        ('{"n":-1e400}', "number_invalid"),
        ('{"n":1e-400}', "number_invalid"),
        ('{"n":' + "9" * 65 + "}", "number_invalid"),
        ('{"n":01}', "json_invalid"),
        ('{"n":.5}', "json_invalid"),
        ('{"n":0x1}', "json_invalid"),
        ('{"s":"\\ud800"}', "string_invalid"),
        ('{"s":"\\udc00\\ud800"}', "string_invalid"),
        ('{"\\ud800":1}', "string_invalid"),
        ('{"s":"a\\u0000b"}', "string_invalid"),
        ('{"s":"a\x00b"}', "json_invalid"),
        ('{"s":"a\x1fb"}', "json_invalid"),
        ('{"s":"\\x"}', "json_invalid"),
        ("{'s':1}", "json_invalid"),
        ('{"s":1,}', "json_invalid"),
        ('{"s":1} {"t":2}', "json_invalid"),
        ("[" * 32 + "]" * 32, "depth_exceeded"),
        ('{"a":' * 32 + "1" + "}" * 32, "depth_exceeded"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson"])
def test_json_with_two_readings_is_400(target: Target, metadata: str, code: str, media: str) -> None:
    """Never last-wins, never infinity, never a replaced character: refused with its code and its place."""
    problem = target.refuse(event_with_metadata(metadata), 400, media=media)
    assert problem["errors"][0]["code"] == code
    assert problem["errors"][0]["line"] == 1
    assert problem["errors"][0]["pointer"].startswith("/metadata") or code == "json_invalid"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson"])
def test_endless_nesting_is_400(target: Target, opening: bytes, media: str) -> None:
    """A hundred thousand levels, alone and inside an event, cost neither a recursion nor seconds."""
    assert target.refuse(opening * 100_000, 400, media=media)["code"] in ("depth_exceeded", "json_invalid")
    target.refuse(event_with_metadata(opening.decode() * 100_000), (400, 422), media=media)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\n", b"  \n \r\n", b"null", b"42", b'"x"', b"true", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]",
        '{"action":"a","actor":"b"}'.encode("utf-16"), '{"action":"a","actor":"b"}'.encode("utf-16-le"),
        '{"action":"a","actor":"b"}'.encode("utf-32"),
        b'\xef\xbb\xbf\xef\xbb\xbf{"action":"a","actor":"b"}',
        b'{"action":"a","actor":"\xff"}', b'{"action":"a","actor":"\xed\xa0\x80"}', b'{"action":"a","actor":"\xc0\xaf"}',
        b'{"action":"a","actor":"b"}\x00', b'{"action":"a","actor":"b"}\x1c{"action":"a","actor":"b"}',
        '{"action":"a","actor":"b"}\u2028{"action":"a","actor":"b"}'.encode(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson"])
def test_bodies_that_hold_no_event_are_400(target: Target, body: bytes, media: str) -> None:
    """With the reason, and with the place when there is one."""
    problem = target.refuse(body, 400, media=media)
    assert problem["errors"][0]["message"]


def test_empty_objects_and_arrays(target: Target) -> None:
    """`{}` misses its action; an array of nothing is a success with nothing in it."""
    assert target.refuse(b"{}", 422, media="application/json")["errors"][0]["code"] == "field_missing"
    for body in (b"[]", b" [ ] "):
        answer = target.accept(body, media="application/json")
        assert (answer["accepted"], answer["receipts"], answer["quarantined"]) == (0, [], [])
    assert target.refuse(b"[1,null,[]]", 400, media="application/json")["errors"][2]["line"] == 3


def test_a_byte_order_mark_is_tolerated_once(target: Target) -> None:
    """Windows tools write one."""
    assert target.accept(b"\xef\xbb\xbf" + event_text())["accepted"] == 1


def test_sizes_end_in_413_or_422(target: Target) -> None:
    """100,000 keys, a key of 1 MB, a string of 1 MB and of 10 MB: refused by a stated limit."""
    many = "{" + ",".join(f'"k{number}":1' for number in range(100_000)) + "}"
    for metadata in (many, '{"' + "k" * 1_000_000 + '":1}', '{"k":"' + "v" * 1_000_000 + '"}'):
        assert target.refuse(event_with_metadata(metadata), 422)["errors"][0]["code"] == "event_too_large"
    assert target.refuse(event_with_metadata('{"k":"' + "v" * 10_000_000 + '"}'), 413)["code"] == "body_too_large"


def test_an_event_at_the_limit_and_one_past_it(target: Target) -> None:
    """65,535 bytes of canonical line are kept; the first byte more is refused by name."""
    taken = event(metadata={"k": ""})
    target.accept(json.dumps(taken).encode())
    line = target.server.http.get(f"/v1/events/{taken['id']}").content
    room = 65_535 - len(line)
    full = event(id="full" + taken["id"][4:].ljust(len(taken["id"]) - 4, "0"), metadata={"k": "x" * room})
    padding = len(full["id"]) - len(taken["id"])
    full["metadata"] = {"k": "x" * (room - padding)}
    target.accept(json.dumps(full).encode())
    assert len(target.server.http.get(f"/v1/events/{full['id']}").content) == 65_535
    over = {**full, "id": "over" + full["id"][4:], "metadata": {"k": "x" * (room - padding + 1)}}
    assert target.refuse(json.dumps(over).encode(), 422)["errors"][0]["code"] == "event_too_large"


@pytest.mark.parametrize("body", [b"[" + b"{}," * 999_999 + b"{}]", b"{}\n" * 1_000_000, b"[" + b"," * 3_000_000 + b"]"])
def test_a_million_tiny_events_are_413(target: Target, body: bytes) -> None:
    """By the limit on the number of events."""
    media = "application/json" if body.startswith(b"[") else "application/x-ndjson"
    assert target.refuse(body, 413, media=media)["code"] == "too_many_events"


def test_odd_keys_and_numbers_are_kept_exactly(target: Target) -> None:
    """Names that mean something to other languages are data; number texts stay what they were."""
    metadata = (
        '{"__proto__":{"admin":true},"constructor":{"prototype":1},"__class__":"x","$where":"1==1","a.b":{"c.d":1},"":"empty",'
        '"{{7*7}}":"${jndi:ldap://x}","n":[1.0,1,-0,1E2,1e2,0.1,123456789012345678901234567890],"z":1,"a":2}'
    )
    body = event_with_metadata(metadata)
    target.accept(body)
    lines = target.export(f"id:{json.loads(body)['id']}")
    assert metadata.encode() in lines[0]


def test_blanks_and_line_ends_are_tolerated(target: Target) -> None:
    """CRLF, blank lines, leading spaces: the count is exact, and lines keep their numbers."""
    body = b"\r\n   " + event_text() + b"\r\n\r\n\t" + event_text() + b"  \r\n\n" + event_text()
    answer = target.accept(body)
    assert answer["accepted"] == 3
    assert [row["line"] for row in answer["results"]] == [2, 4, 6]


@pytest.mark.parametrize(
    "text",
    [
        *("a\r\nb", "\x1b[2J\x1b]0;title\x07", "\u202egnp.exe", "zero\u200bwidth", "\x85next\u2028line", "\x7f\x9b31m"),
        *("\u2066isolate\u2069", "soft\u00adhyphen", "\ufeffmark", "tag\U000e0041", "a\tb"),
    ],
)
def test_control_characters_are_kept_and_never_printed(target: Target, text: str) -> None:
    """Stored exactly; a terminal gets visible escapes (CWE-117)."""
    sent = event(actor={"type": "user", "id": "u", "name": text}, reason=text, targets=[{"type": "file", "id": text}])
    target.accept(json.dumps(sent).encode())
    kept = target.get(sent["id"])
    assert (kept["actor"]["name"], kept["reason"], kept["targets"][0]["id"]) == (text, text, text)
    shown = run_in_terminal(target.server, "search", f"id:{sent['id']}")
    assert sent["id"] in shown
    assert len(shown.split("\r\n")) == 3
    assert text not in shown
    shown = re.sub(r"\x1b\[[0-9;]*m|\r\n", "", shown)  # the table's own bold type and line ends
    assert not [character for character in shown if not character.isprintable()]


def test_markup_is_no_markup(target: Target) -> None:
    """Brackets that the terminal library reads as colours are printed as they are."""
    sent = event(actor={"type": "user", "id": "u", "name": "[red]x[/red] [link=http://x]y"})
    target.accept(json.dumps(sent).encode())
    assert "[red]x[/red] [link=http://x]y" in run_in_terminal(target.server, "search", f"id:{sent['id']}")
