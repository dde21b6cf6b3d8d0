"""Threat lists and their indicators."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.transforms.enrich.dataset import Answers, BadFileError, Content
from tallystick.transforms.enrich.indicators import read_indicator, read_value
from tallystick.transforms.enrich.settings import EnrichSettings, ThreatSettings
from tallystick.transforms.enrich.threats import ThreatList

DAY = 86_400
SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
PLAIN = f"""# addresses
192.0.2.1
198.51.100.0/24   # a network
198.51.100.128/25
2001:db8::/32

bad.example
*.worse.example
bücher.example
{SHA256.upper()}
md5:d41d8cd98f00b204e9800998ecf8427e
"""


def listed(data: str | bytes, file: str = "list.txt", **settings: Any) -> ThreatList:
    made = msgspec.convert({"file": file, **settings}, ThreatSettings, dec_hook=lambda kind, text: kind(text))
    text = data.encode() if isinstance(data, str) else data
    return ThreatList(Content(Path(file), text, "2026-03-04T10:00:00Z", 100.0 * DAY), made, EnrichSettings())


def hits(found: ThreatList, value: str, now: float = 0.0) -> list[str]:
    return [hit["indicator"] for hit in found.at(now).find(value) or ()]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("192.0.2.1", ["192.0.2.1"]),
        ("::ffff:192.0.2.1", ["192.0.2.1"]),
        ("198.51.100.200", ["198.51.100.128/25", "198.51.100.0/24"]),
        ("https://user@198.51.100.1:8443/x?y", ["198.51.100.0/24"]),
        ("http://[2001:db8::9]/", ["2001:db8::/32"]),
        ("BAD.example.", ["bad.example"]),
        ("a.b.bad.example", ["bad.example"]),
        ("eve@mail.worse.example", ["*.worse.example"]),
        ("https://xn--bcher-kva.example/a", ["bücher.example"]),
        (f"sha256:{SHA256}", [SHA256.upper()]),
        ("D41D8CD98F00B204E9800998ECF8427E", ["md5:d41d8cd98f00b204e9800998ecf8427e"]),
        ("notbad.example", []),
        ("192.0.2.2", []),
        ("example", []),
        ("http://[broken", []),
        ("x" * 100_000, []),
    ],
)
def test_what_matches(value: str, expected: list[str]) -> None:
    """Addresses in networks, names below domains, hosts of URLs and of addresses for mail, hashes in any case."""
    assert hits(listed(PLAIN), value) == expected


def test_a_hit_can_be_read() -> None:
    """Indicator as the list has it, its kind, the note, when it expires, and from which list of what date."""
    found = listed("ioc,x\n192.0.2.0/24,spring\n", "my.csv", name="ours", column="ioc", note="x", expire_after="10d")
    assert found.at(0).find("192.0.2.7") == [
        {
            "indicator": "192.0.2.0/24",
            "type": "network",
            "note": "spring",
            "expires": "1970-04-21T00:00:00Z",
            "dataset": {"name": "ours", "date": "2026-03-04T10:00:00Z"},
        }
    ]


def test_each_indicator_expires_by_itself() -> None:
    """By its own time, else by the age of the file; remembered answers end with the next indicator that expires."""
    text = f"ioc,until\n192.0.2.1,{200 * DAY}\n192.0.2.2,1970-05-01\n192.0.2.3,1970-05-11T00:00:00+02:00\n192.0.2.4,\n"
    found = listed(text, "l.csv", column="ioc", expires="until", expire_after="5d")

    def left(now: float) -> list[int]:
        return [n for n in range(1, 5) if hits(found, f"192.0.2.{n}", now)]

    assert left(100 * DAY) == [1, 2, 3, 4]
    assert left(105 * DAY) == [1, 2, 3]
    assert left(120 * DAY) == [1, 3]
    assert left(130 * DAY) == [1]
    assert left(200 * DAY) == []
    answers = Answers(found, 10)
    assert answers.answering(104 * DAY)(b'"192.0.2.4"') is not None
    assert answers.answering(105 * DAY - 1)(b'"192.0.2.4"') is not None
    assert answers.answering(105 * DAY)(b'"192.0.2.4"') is None
    assert answers.answering(105 * DAY)(b'"192.0.2.1"') is not None


def test_the_later_expiry_of_two_lines_counts() -> None:
    """Whatever their order."""
    for lines in ("192.0.2.1,10\n192.0.2.1,20\n", "192.0.2.1,20\n192.0.2.1,10\n"):
        found = listed("i,e\n" + lines, "l.csv", column="i", expires="e")
        assert (hits(found, "192.0.2.1", 15), hits(found, "192.0.2.1", 20)) == (["192.0.2.1"], [])


def test_parquet_lists(tmp_path: Path) -> None:
    """Times of Parquet are times."""
    path = tmp_path / "l.parquet"
    pq.write_table(pa.table({"i": ["bad.example"], "e": [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)]}), path)
    found = listed(path.read_bytes(), "l.parquet", column="i", expires="e").at(0).find("bad.example")
    assert found is not None
    assert found[0]["expires"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("192.0.2.1\nwhat is this\n", {}, "line 2: 'what is this' is no address"),
        ("i,e\n192.0.2.1,soon\n", {"column": "i", "expires": "e"}, "line 2: 'soon' is no time"),
        ("i\n192.0.2.1\n", {"column": "j"}, "line 1: the column 'j'"),
        (b"\xff\n", {}, "line 1: it is not UTF-8"),
    ],
)
def test_bad_lists_are_refused_with_their_line(text: str | bytes, settings: dict[str, Any], words: str) -> None:
    """A list of which a part cannot be read is not half in force."""
    with pytest.raises(BadFileError) as caught:
        listed(text, "l.txt", **settings)
    assert words in str(caught.value)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_value_and_perhaps_an_indicator(text: str) -> None:
    """Nothing is raised, and what is an indicator matches itself."""
    read_value(text)
    read = read_indicator(text)
    if read is not None and "/" not in text and "*" not in text and not text.startswith(".") and len(text) < 2_000:
        assert read_value(text) is not None
